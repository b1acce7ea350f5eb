//! MCP's own OAuth, for clients that cannot run the command line: the gateway is a protected resource
//! (RFC 9728), one for each connection, whose authorization server is the organisation's own
//! (MCP `basic/authorization`, 2025-06-18 to 2026-07-28).
//!
//! It is off unless the configuration turns it on for a server and a connection, because most such
//! tokens are bound to nobody: whoever has one may use it until it ends. A token is taken by the rule
//! of its own kind only. One that is bound to a key (`cnf.jkt`) has to be proved, and sent as `DPoP`, by
//! the same rule as a grant token of ours; one that is not is `Bearer`. A grant token is never judged
//! here, in whichever scheme it comes.
//!
//! What comes out is a grant like every other, made by `control` behind [`AccessGrants`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use super::Gateway;
use super::ports::{Ended, LiveGrant, PortError};
use super::refusal::Refusal;
use crate::identity::access::{AccessClaims, AccessRules, AccessVerifier, named_issuer};
use crate::identity::possession::{Confirmation, Presented, Shown};
use crate::identity::{Issuers, TokenError};
use crate::policy::Denial;
use crate::policy::connect::Ask;
use crate::types::{ConnectionName, SubjectId};

/// Where the metadata of a protected resource is found (RFC 9728, section 3).
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// In the configuration's names of scopes, the connection's name.
pub const CONNECTION: &str = "{connection}";

/// What is taken, and for which connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which tokens are accepted.
    pub rules: AccessRules,
    /// What every token has to permit.
    pub scopes: Vec<String>,
    /// What clients should ask for besides.
    pub optional_scopes: Vec<String>,
    /// Where it is on.
    pub connections: BTreeSet<ConnectionName>,
}

/// MCP's own OAuth at this gateway.
pub struct OAuth {
    verifier: AccessVerifier,
    desk: Arc<dyn AccessGrants>,
    resources: BTreeMap<ConnectionName, Resource>,
}

/// A connection as a protected resource.
struct Resource {
    url: String,
    /// Where its metadata is.
    place: String,
    metadata: Value,
    /// What a token has to permit.
    scopes: Vec<String>,
    /// What a client should ask for.
    asked: Vec<String>,
}

/// What a grant is asked for with.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// A verified token for this connection, whose binding was proved.
    pub claims: &'a AccessClaims,
    /// The connection.
    pub connection: &'a ConnectionName,
    /// The scopes that it has to have.
    pub scopes: &'a [String],
    /// Where the request came from.
    pub source: Option<IpAddr>,
}

/// Why there is no grant.
pub enum Why {
    /// Policy does not let the subject connect.
    Denied(Box<Denial>),
    /// Policy does, once a person says yes; and nobody can wait for that here.
    NeedsApproval(Ask),
    /// The token lacks a scope.
    Scope,
    /// What this client had was revoked, and nobody has logged in since.
    Revoked,
    /// It could not be told.
    Failed(PortError),
}

/// No grant.
pub struct NoGrant {
    /// Who asked, where that became known.
    pub subject: Option<SubjectId>,
    /// Why not.
    pub why: Why,
}

/// Where a verified access token becomes a grant.
pub trait AccessGrants: Send + Sync {
    /// The grant under which a token's calls run. It may be over by now.
    fn grant<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<LiveGrant, NoGrant>>;
}

/// A refusal, and whose.
pub(super) struct No {
    pub(super) refusal: Refusal,
    pub(super) subject: Option<SubjectId>,
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, subject: None }
    }
}

impl OAuth {
    /// The protected resources of a server; none where no connection is one.
    pub fn new(
        settings: &Settings,
        issuers: &Issuers,
        public_url: &str,
        desk: Arc<dyn AccessGrants>,
    ) -> Option<Self> {
        let verifier = AccessVerifier::new(issuers, &settings.rules);
        let resource = |name: &ConnectionName| {
            let named = |scopes: &[String]| -> Vec<String> {
                scopes.iter().map(|scope| scope.replace(CONNECTION, name.as_str())).collect()
            };
            let (scopes, url) = (named(&settings.scopes), format!("{public_url}/mcp/{name}"));
            let asked = [scopes.clone(), named(&settings.optional_scopes)].concat();
            let mut metadata = json!({
                "resource": url,
                "resource_name": name,
                "authorization_servers": settings.rules.issuers,
                "bearer_methods_supported": ["header"],
                "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
            });
            if !asked.is_empty() {
                metadata["scopes_supported"] = json!(asked);
            }
            let place = format!("{public_url}{WELL_KNOWN}/mcp/{name}");
            (name.clone(), Resource { url, place, metadata, scopes, asked })
        };
        let resources: BTreeMap<_, _> = settings.connections.iter().map(resource).collect();
        (!resources.is_empty()).then(|| Self { verifier, desk, resources })
    }

    /// The metadata of a connection (RFC 9728, section 2); of the only one, if none is named: at the
    /// root there is place for one resource.
    pub fn metadata(&self, connection: Option<&str>) -> Option<&Value> {
        let resource = match connection {
            Some(name) => self.resource(name),
            None if self.resources.len() == 1 => self.resources.values().next(),
            None => None,
        };
        resource.map(|resource| &resource.metadata)
    }

    /// Whether a token is judged as an access token: at a connection that takes them, unless it
    /// names this server (`own`) as its issuer. As `DPoP` it has to name an issuer of access tokens.
    pub(super) fn takes(
        &self,
        connection: &ConnectionName,
        presented: Presented<'_>,
        own: &str,
    ) -> bool {
        self.resources.contains_key(connection)
            && match presented {
                Presented::Bearer(token) => named_issuer(token).as_deref() != Some(own),
                Presented::Dpop(token) => self.verifier.names(token),
            }
    }

    /// Adds to a refusal how the client learns where to log in (RFC 9728, section 5.1), or which
    /// scopes it lacks (RFC 6750, section 3.1).
    pub(super) fn challenge(&self, connection: &str, mut refusal: Refusal) -> Refusal {
        let Some(resource) = self.resource(connection) else { return refusal };
        if refusal.nonce.is_some() {
            // The token is as good as before, and logging in would bring no nonce.
            return refusal;
        }
        let error = match (refusal.status, refusal.code) {
            // Without a token there is nothing to find fault with.
            (StatusCode::UNAUTHORIZED, "token_missing") => {
                refusal.message = "a token is needed".to_owned();
                refusal.hint = Some(format!(
                    "log in as {} says, or connect through `mcpx connect {connection}`",
                    resource.place
                ));
                String::new()
            }
            (StatusCode::UNAUTHORIZED, code) => {
                format!("error=\"invalid_token\", error_description=\"{code}\", ")
            }
            (StatusCode::FORBIDDEN, "insufficient_scope") => {
                "error=\"insufficient_scope\", ".to_owned()
            }
            _ => return refusal,
        };
        let mut challenge = format!("Bearer {error}resource_metadata=\"{}\"", resource.place);
        if !resource.asked.is_empty() {
            challenge.push_str(&format!(", scope=\"{}\"", resource.asked.join(" ")));
        }
        refusal.challenge = Some(challenge);
        refusal
    }

    fn resource(&self, connection: &str) -> Option<&Resource> {
        let name: ConnectionName = connection.parse().ok()?;
        self.resources.get(&name)
    }
}

impl Gateway {
    /// The grant of a caller who shows an access token.
    pub(super) async fn access_grant(
        &self,
        oauth: &OAuth,
        presented: Presented<'_>,
        connection: &ConnectionName,
        shown: &Shown<'_>,
    ) -> Result<LiveGrant, No> {
        let resource = oauth.resources.get(connection);
        let resource = resource.ok_or_else(|| Refusal::no_connection(connection.as_str()))?;
        let wrong = |error: TokenError| Refusal::access_token(&error);
        let now = self.clock.now();
        let seconds = now.as_second();
        let claims = oauth.verifier.verify(presented.token(), &resource.url, seconds).await;
        let claims = claims.map_err(wrong)?;
        match (&claims.jkt, presented) {
            (None, Presented::Bearer(_)) => {}
            (None, Presented::Dpop(_)) => return Err(wrong(TokenError::NotBound).into()),
            (Some(jkt), _) => {
                let bound = Confirmation::Key(jkt.clone());
                self.possession
                    .check(shown, presented, &bound, seconds)
                    .map_err(|error| Refusal::possession(&error, self.possession.nonce(seconds)))?;
            }
        }
        let source = shown.source;
        let asked = Asked { claims: &claims, connection, scopes: &resource.scopes, source };
        let grant = oauth.desk.grant(asked).await.map_err(|no| No {
            refusal: match no.why {
                Why::Denied(denial) => Refusal::may_not_connect(&denial),
                Why::NeedsApproval(ask) => Refusal::connect_needs_yes(connection, &ask),
                Why::Scope => Refusal::insufficient_scope(&resource.scopes),
                Why::Revoked => over(Ended::Revoked),
                Why::Failed(error) => Refusal::from(&error),
            },
            subject: no.subject,
        })?;
        match grant.has_ended(now) {
            Some(ended) => {
                Err(No { refusal: over(ended), subject: Some(grant.subject.id.clone()) })
            }
            None => Ok(grant),
        }
    }
}

fn over(ended: Ended) -> Refusal {
    let mut refusal = Refusal::ended(ended);
    refusal.hint = Some(match ended {
        Ended::Revoked => "log in at the identity provider again".to_owned(),
        Ended::Expired => "get another token at the identity provider".to_owned(),
    });
    refusal
}
