//! Grant tokens: short-lived JWTs (RFC 9068) that permit one subject the use of one resource, and
//! only to the holder of one key (`cnf.jkt`, RFC 7800 and RFC 9449).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::{Deserialize, Serialize};

use super::dpop::Thumbprint;
use super::error::TokenError;
use super::key::{KeyError, SigningKey};
use super::oidc::{check_times, claims, malformed, split};
use crate::types::{ConnectionName, GrantId, SessionId, SubjectId, sha256};

const TYP: &str = "at+jwt";

/// Verified tokens that are remembered, so that a busy caller costs one signature per token.
const CACHE: usize = 4096;

/// What a grant token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantClaims {
    /// The control server's URL.
    pub iss: String,
    /// Whom it is for.
    pub sub: SubjectId,
    /// The one resource that it permits: a connection's URL, or the API's.
    pub aud: String,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// When it was made.
    pub iat: i64,
    /// The grant's id, or a random one for the API.
    pub jti: String,
    /// The key that its holder must prove.
    pub cnf: Confirmation,
    /// What the gateway needs to know.
    pub mcpx: GrantDetail,
}

impl GrantClaims {
    /// The grant behind this token; none for the API.
    pub fn grant(&self) -> Option<GrantId> {
        self.jti.parse().ok()
    }
}

/// The key that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The key's SHA-256 thumbprint.
    pub jkt: Thumbprint,
}

/// The part of a grant token that is ours alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantDetail {
    /// What the token is for.
    pub kind: GrantKind,
    /// The session that its calls belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The connection that it permits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionName>,
}

/// What a grant token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrantKind {
    /// Calls to one MCP server.
    Connection,
    /// The control server's API.
    Api,
}

/// Signs grant tokens.
pub struct GrantSigner {
    issuer: String,
    key: SigningKey,
}

impl GrantSigner {
    /// The signer of the server `issuer`, with the key in a private file; makes it if need be.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load_or_create(path: &Path, issuer: impl Into<String>) -> Result<Self, KeyError> {
        Ok(Self::new(SigningKey::load_or_create(path)?, issuer))
    }

    /// A signer with a given key.
    pub fn new(key: SigningKey, issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), key }
    }

    /// Signs a token. The issuer is always this signer's own.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign(&self, claims: &GrantClaims) -> Result<String, KeyError> {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(self.key.id().to_owned());
        self.key.sign(&header, &GrantClaims { iss: self.issuer.clone(), ..claims.clone() })
    }

    /// The server's URL, as in `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public half of the key, to publish.
    pub fn jwk(&self) -> &Jwk {
        self.key.jwk()
    }

    /// A verifier for what this signs.
    pub fn verifier(&self) -> GrantVerifier {
        GrantVerifier {
            issuer: self.issuer.clone(),
            key_id: self.key.id().to_owned(),
            key: self.key.public().clone(),
            verified: Mutex::default(),
        }
    }
}

/// Verifies grant tokens. Whether the grant was revoked meanwhile is not its concern.
pub struct GrantVerifier {
    issuer: String,
    key_id: String,
    key: DecodingKey,
    /// Tokens whose signature and shape are good, by hash; audience and time are judged each time.
    verified: Mutex<HashMap<[u8; 32], Arc<GrantClaims>>>,
}

impl GrantVerifier {
    /// Verifies a token for one resource.
    ///
    /// The caller then checks the DPoP proof and compares its thumbprint with
    /// [`Confirmation::jkt`].
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(
        &self,
        token: &str,
        audience: &str,
        now: i64,
    ) -> Result<Arc<GrantClaims>, TokenError> {
        let hash = sha256(token.as_bytes());
        let known = self.cache().get(&hash).cloned();
        let claims = match known {
            Some(claims) => claims,
            None => Arc::new(self.verify_signature(token)?),
        };
        check_times(claims.exp, None, Some(claims.iat), now, 0)?;
        if claims.aud != audience {
            return Err(TokenError::WrongAudience { expected: audience.to_owned() });
        }
        self.remember(hash, &claims, now);
        Ok(claims)
    }

    fn verify_signature(&self, token: &str) -> Result<GrantClaims, TokenError> {
        #[derive(Deserialize)]
        struct GrantHeader {
            alg: String,
            typ: Option<String>,
            kid: Option<String>,
            crit: Option<serde_json::Value>,
        }
        /// Only to tell "no cnf" from other faults.
        #[derive(Deserialize)]
        struct Bound {
            cnf: Option<Confirmation>,
        }
        let (header, signed, signature): (GrantHeader, _, _) = split(token)?;
        let typ = header.typ.unwrap_or_default();
        if typ != TYP {
            return Err(TokenError::WrongType { expected: TYP, found: typ });
        }
        if header.alg != "ES256" {
            return Err(TokenError::Algorithm(header.alg));
        }
        if header.crit.is_some() {
            return Err(malformed("it has critical extensions that are not known here"));
        }
        if header.kid.as_deref() != Some(self.key_id.as_str()) {
            return Err(TokenError::UnknownKey(header.kid.unwrap_or_default()));
        }
        match jsonwebtoken::crypto::verify(signature, signed, &self.key, Algorithm::ES256) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
        if claims::<Bound>(token)?.cnf.is_none() {
            return Err(TokenError::NotBound);
        }
        let claims: GrantClaims = claims(token)?;
        if claims.iss != self.issuer {
            return Err(TokenError::UnknownIssuer(claims.iss));
        }
        Ok(claims)
    }

    fn remember(&self, hash: [u8; 32], claims: &Arc<GrantClaims>, now: i64) {
        let mut verified = self.cache();
        if verified.len() >= CACHE && !verified.contains_key(&hash) {
            verified.retain(|_, claims| claims.exp > now);
            // All alive: start over. It costs signatures, never a wrong answer.
            if verified.len() >= CACHE {
                verified.clear();
            }
        }
        verified.insert(hash, Arc::clone(claims));
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Arc<GrantClaims>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
