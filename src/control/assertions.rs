//! What this server says of its subjects to other authorization servers: short signed assertions,
//! and the key to check them with.
//!
//! The key signs nothing else, so that no assertion can ever pass for a grant token. An assertion
//! is for one authorization server, one client, one subject, and one minute; its `jti` is random.
//! ID-JAGs have the `typ` that `draft-ietf-oauth-identity-assertion-authz-grant` demands.

use std::path::Path;
use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, Header};
use serde::Serialize;
use serde_json::json;

use crate::identity::key::{KeyError, SigningKey};
use crate::types::{Clock, Secret};
use crate::upstream::credential::behalf::{AssertionError, Assertions, Claims, Way};

/// Where the public key is published.
pub const JWKS: &str = "/.well-known/assertion-jwks.json";

/// How long an assertion may be used, in seconds: long enough to be handed over.
const LIFE: i64 = 60;

/// Signs assertions.
pub struct AssertionSigner {
    issuer: String,
    key: SigningKey,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize)]
struct Signed<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    jti: &'a str,
    iat: i64,
    exp: i64,
}

impl AssertionSigner {
    /// The signer of the server `issuer`, with the key in a private file; makes it if need be.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load_or_create(
        path: &Path,
        issuer: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeyError> {
        let key = SigningKey::load_or_create(path)?;
        Ok(Self { issuer: issuer.to_owned(), key, clock })
    }

    /// The public key, for whoever has to check.
    pub fn router(&self) -> Router {
        let keys = json!({ "keys": [self.key.jwk()] });
        Router::new().route(JWKS, get(async move || Json(keys)))
    }
}

impl Assertions for AssertionSigner {
    fn assert(&self, claims: &Claims<'_>) -> Result<Secret, AssertionError> {
        let mut header = Header::new(Algorithm::ES256);
        let typ = match claims.way {
            Way::TokenExchange => "JWT",
            Way::IdJag => "oauth-id-jag+jwt",
        };
        header.typ = Some(typ.to_owned());
        header.kid = Some(self.key.id().to_owned());
        let jti = Secret::generate().map_err(|error| AssertionError(error.to_string()))?;
        let now = self.clock.now_seconds();
        let signed = Signed {
            iss: &self.issuer,
            sub: claims.sub,
            aud: claims.audience,
            client_id: claims.client_id,
            resource: claims.resource,
            scope: claims.scope,
            jti: jti.expose(),
            iat: now,
            exp: now + LIFE,
        };
        let token = self.key.sign(&header, &signed);
        token.map(Secret::new).map_err(|error| AssertionError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Validation, decode};
    use serde_json::Value;

    use super::*;
    use crate::identity::grant::GrantSigner;
    use crate::identity::ring::KeyRing;
    use crate::types::SystemClock;

    #[test]
    fn an_assertion_says_for_whom_for_what_and_until_when_and_is_no_grant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("assertion.key");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let signer =
            AssertionSigner::load_or_create(&path, "https://mcpx.example", Arc::clone(&clock))
                .unwrap();
        let claims = Claims {
            way: Way::IdJag,
            sub: "sub_x",
            audience: "https://as.example",
            client_id: "gateway",
            resource: Some("https://crm.example/mcp"),
            scope: None,
        };
        let token = signer.assert(&claims).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&["https://as.example"]);
        validation.set_issuer(&["https://mcpx.example"]);
        let read = decode::<Value>(token.expose(), signer.key.public(), &validation).unwrap();
        assert_eq!(read.header.typ.as_deref(), Some("oauth-id-jag+jwt"));
        let said = read.claims;
        assert_eq!((&said["sub"], &said["client_id"]), (&json!("sub_x"), &json!("gateway")));
        assert_eq!(said["resource"], "https://crm.example/mcp");
        assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), LIFE);
        assert!(said.get("scope").is_none(), "{said}");
        // No two are the same.
        assert_ne!(token.expose(), signer.assert(&claims).unwrap().expose());
        // Even under the very same key it would pass for no grant token.
        let ring = Arc::new(KeyRing::of(Arc::new(signer.key.clone())).unwrap());
        let grants = GrantSigner::new(ring, "https://mcpx.example").verifier();
        let now = clock.now_seconds();
        assert!(grants.verify(token.expose(), "https://as.example", now).is_err());
    }
}
