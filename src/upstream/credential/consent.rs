//! Tokens that a user agreed to themselves: the authorization code grant (RFC 6749, 4.1) with PKCE
//! (RFC 7636), and the refresh token that comes of it.
//!
//! Nobody but this server ever holds the tokens. What is agreed to is kept sealed by [`Consents`],
//! which `control` implements. A refresh token that is replaced by another is on disk before the
//! access token that came with it is used, and one that the authorization server refuses is
//! forgotten: the user has to agree again.

use futures_util::future::BoxFuture;
use reqwest::Url;

use super::Life;
use crate::types::{Clock as _, Secret, SubjectId, SystemClock};
use crate::upstream::token::{Given, TokenEndpoint, TokenError, life};

/// How long a kept access token must still live to be used, if there is a way to another: longer
/// than before its end another one is asked for.
const WORTH: i64 = 90;

/// What a user has agreed to.
pub struct Consent {
    /// What further tokens are got with.
    pub refresh: Option<Secret>,
    /// The newest access token.
    pub access: Secret,
    /// When that one ends, in seconds since 1970.
    pub until: i64,
}

/// Where consents to one connection are kept.
pub trait Consents: Send + Sync {
    /// What a subject agreed to.
    fn load<'a>(
        &'a self,
        subject: &'a SubjectId,
    ) -> BoxFuture<'a, Result<Option<Consent>, ConsentError>>;

    /// Keeps it, durably.
    fn keep<'a>(
        &'a self,
        subject: &'a SubjectId,
        consent: &'a Consent,
    ) -> BoxFuture<'a, Result<(), ConsentError>>;

    /// Forgets it.
    fn forget<'a>(&'a self, subject: &'a SubjectId) -> BoxFuture<'a, Result<(), ConsentError>>;
}

/// What is kept cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConsentError(pub String);

/// An authorization server that asks users.
pub struct Consenting {
    /// Where tokens are given, and to which client.
    pub endpoint: TokenEndpoint,
    /// Where users are asked.
    pub authorization: Url,
    /// Its own name for itself, which it may repeat (RFC 9207).
    pub issuer: Option<String>,
    /// The MCP server, as it knows it (RFC 8707).
    pub resource: Option<String>,
    /// What is asked for.
    pub scope: Option<String>,
}

impl Consenting {
    pub(super) fn name(&self) -> String {
        format!("authorization-code of {}", self.endpoint.client_id())
    }

    /// The address at which the user is asked.
    pub fn address(&self, redirect_uri: &str, state: &str, challenge: &str) -> Url {
        let mut url = self.authorization.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", self.endpoint.client_id());
            query.append_pair("redirect_uri", redirect_uri);
            query.append_pair("state", state);
            query.append_pair("code_challenge", challenge);
            query.append_pair("code_challenge_method", "S256");
            for (name, value) in [("scope", &self.scope), ("resource", &self.resource)] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
        }
        url
    }

    /// What the code that the user was given is good for.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn finish(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
    ) -> Result<Consent, TokenError> {
        let mut grant = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        grant.extend(self.resource.as_deref().map(|resource| ("resource", resource)));
        let given = self.endpoint.ask_for(&grant).await?;
        Ok(consent(given, None))
    }

    pub(super) async fn token(
        &self,
        subject: &SubjectId,
        consents: &dyn Consents,
        anew: bool,
    ) -> Result<(Secret, Life), TokenError> {
        let unkept = |ConsentError(why)| TokenError::Unavailable(format!("is not asked: {why}"));
        let kept = consents.load(subject).await.map_err(unkept)?.ok_or(TokenError::NoConsent)?;
        let left = kept.until - SystemClock.now_seconds();
        let enough = if kept.refresh.is_some() { WORTH } else { 0 };
        if !anew && left > enough {
            let left = std::time::Duration::from_secs(u64::try_from(left).unwrap_or(0));
            return Ok((kept.access, life(Some(left))));
        }
        let Some(refresh) = kept.refresh else { return Err(TokenError::NoConsent) };
        let mut grant = vec![("grant_type", "refresh_token"), ("refresh_token", refresh.expose())];
        grant.extend(self.resource.as_deref().map(|resource| ("resource", resource)));
        let given = match self.endpoint.ask_for(&grant).await {
            Err(TokenError::Refused { code: "invalid_grant", .. }) => {
                consents.forget(subject).await.map_err(unkept)?;
                return Err(TokenError::NoConsent);
            }
            other => other?,
        };
        let life = given.life;
        let next = consent(given, Some(refresh));
        consents.keep(subject, &next).await.map_err(unkept)?;
        Ok((next.access, life))
    }
}

fn consent(given: Given, before: Option<Secret>) -> Consent {
    let hard = given.life.hard.unwrap_or_default().as_secs();
    let until = SystemClock.now_seconds().saturating_add_unsigned(hard);
    Consent { refresh: given.refresh.or(before), access: given.token, until }
}
