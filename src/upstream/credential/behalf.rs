//! Tokens for the subject of a call, got with what this server itself says of that subject.
//!
//! The gateway holds no token of the user's. This server has verified who they are, so it vouches
//! for them: it signs a short assertion, for one authorization server, one client and one resource,
//! and the authorization server, which was set up to trust this server's published key, gives a
//! token for that user. There are two ways to hand the assertion over:
//!
//! - **token exchange** (RFC 8693): the assertion is the `subject_token`;
//! - **ID-JAG**, as MCP's enterprise-managed authorization says
//!   (`draft-ietf-oauth-identity-assertion-authz-grant`): this server is the identity provider that
//!   issues the Identity Assertion JWT Authorization Grant, and the grant is redeemed at the MCP
//!   server's authorization server (RFC 7523).
//!
//! The tokens are kept by [`super::each`].

use super::Life;
use crate::types::{Secret, Subject};
use crate::upstream::token::{TokenEndpoint, TokenError};

/// What an assertion is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A subject token of RFC 8693.
    TokenExchange,
    /// An Identity Assertion JWT Authorization Grant.
    IdJag,
}

/// As whom the subject is known to the authorization server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// By this server's own id, `sub_…`: never two subjects under one name.
    Id,
    /// By the identity provider's `sub`.
    Sub,
}

/// What an assertion says besides who vouches and when.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// What it is for.
    pub way: Way,
    /// The subject, as the authorization server knows them.
    pub sub: &'a str,
    /// The authorization server that may take it.
    pub audience: &'a str,
    /// The client that may hand it over.
    pub client_id: &'a str,
    /// The MCP server that it is for.
    pub resource: Option<&'a str>,
    /// With which scope.
    pub scope: Option<&'a str>,
}

/// No assertion could be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AssertionError(pub String);

/// Vouches for subjects.
pub trait Assertions: Send + Sync {
    /// A signed assertion, good for a minute.
    ///
    /// # Errors
    /// [`AssertionError`].
    fn assert(&self, claims: &Claims<'_>) -> Result<Secret, AssertionError>;
}

/// How tokens for subjects are got.
pub struct Behalf {
    /// What is handed over.
    pub way: Way,
    /// As whom subjects are known.
    pub named: Named,
    /// Where, and as which client.
    pub endpoint: TokenEndpoint,
    /// The authorization server's own name for itself.
    pub issuer: String,
    /// The MCP server, as the authorization server knows it (RFC 8707).
    pub resource: Option<String>,
    /// The same by RFC 8693's other word.
    pub audience: Option<String>,
    /// With which scope.
    pub scope: Option<String>,
}

impl Behalf {
    pub(super) fn name(&self) -> String {
        let way = match self.way {
            Way::TokenExchange => "token-exchange",
            Way::IdJag => "id-jag",
        };
        format!("{way} of {}", self.endpoint.client_id())
    }

    pub(super) async fn token(
        &self,
        subject: &Subject,
        assertions: &dyn Assertions,
    ) -> Result<(Secret, Life), TokenError> {
        // Whoever gives jobs their names could give them a user's.
        if self.named == Named::Sub && !subject.kind.is_person() {
            let why = "the name of a job at its issuer is none that it could be vouched for by";
            return Err(TokenError::NoAssertion(why.to_owned()));
        }
        let claims = Claims {
            way: self.way,
            sub: match self.named {
                Named::Id => subject.id.as_str(),
                Named::Sub => &subject.identity.sub,
            },
            audience: &self.issuer,
            client_id: self.endpoint.client_id(),
            resource: self.resource.as_deref(),
            scope: self.scope.as_deref(),
        };
        let assertion = assertions
            .assert(&claims)
            .map_err(|AssertionError(why)| TokenError::NoAssertion(why))?;
        let mut grant = match self.way {
            Way::TokenExchange => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("subject_token", assertion.expose()),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ],
            Way::IdJag => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", assertion.expose()),
            ],
        };
        let more =
            [("resource", &self.resource), ("audience", &self.audience), ("scope", &self.scope)];
        for (name, value) in more {
            grant.extend(value.as_deref().map(|value| (name, value)));
        }
        self.endpoint.ask(&grant).await
    }
}
