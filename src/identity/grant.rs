//! Grant tokens: short-lived JWTs (RFC 9068) that permit one subject the use of one resource, and
//! only to the holder of one key (`cnf`, RFC 7800): see [`possession`](super::possession).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::TokenError;
use super::key::KeyError;
use super::oidc::{check_times, claims, malformed, split};
use super::ring::{KeyRing, Keys};
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

pub use super::possession::Confirmation;

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
    ring: Arc<KeyRing>,
}

impl GrantSigner {
    /// The signer of the server `issuer`, with the keys of a ring.
    pub fn new(ring: Arc<KeyRing>, issuer: impl Into<String>) -> Self {
        Self { issuer: issuer.into(), ring }
    }

    /// Signs a token. The issuer is always this signer's own.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn sign(&self, claims: &GrantClaims) -> Result<String, KeyError> {
        let signer = Arc::clone(self.ring.keys().signer());
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TYP.to_owned());
        header.kid = Some(signer.id().to_owned());
        let claims = GrantClaims { iss: self.issuer.clone(), ..claims.clone() };
        let mut token = format!("{}.{}", part(&header)?, part(&claims)?);
        let signature = signer.sign(token.as_bytes()).await?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// The server's URL, as in `iss`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys that it signs with, one after the other.
    pub fn ring(&self) -> &Arc<KeyRing> {
        &self.ring
    }

    /// A verifier for what this signs.
    pub fn verifier(&self) -> GrantVerifier {
        GrantVerifier {
            issuer: self.issuer.clone(),
            ring: Arc::clone(&self.ring),
            verified: Mutex::default(),
        }
    }
}

/// One part of a compact JWS.
fn part(value: &impl Serialize) -> Result<String, KeyError> {
    let text = serde_json::to_vec(value).map_err(|error| KeyError::Sign(error.into()))?;
    Ok(URL_SAFE_NO_PAD.encode(text))
}

/// Claims, and under which keys their signature was good.
#[derive(Clone)]
struct Verified {
    claims: Arc<GrantClaims>,
    generation: u64,
}

/// Verifies grant tokens. Whether the grant was revoked meanwhile is not its concern.
pub struct GrantVerifier {
    issuer: String,
    ring: Arc<KeyRing>,
    /// Tokens whose signature and shape are good, by hash; audience and time are judged each time,
    /// and all of it again once the keys change.
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

impl GrantVerifier {
    /// Verifies a token for one resource.
    ///
    /// The caller then checks that the request shows what the token is bound to:
    /// [`Possession::check`](super::possession::Possession::check).
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
        let keys = self.ring.keys();
        let known = self.cache().get(&hash).cloned();
        let known = known.filter(|known| known.generation == keys.generation());
        let is_known = known.is_some();
        let claims = match known {
            Some(known) => known.claims,
            None => Arc::new(self.verify_signature(token, &keys, now)?),
        };
        check_times(claims.exp, None, Some(claims.iat), now, 0)?;
        if claims.aud != audience {
            return Err(TokenError::WrongAudience { expected: audience.to_owned() });
        }
        if !is_known {
            self.remember(hash, &claims, keys.generation(), now);
        }
        Ok(claims)
    }

    fn verify_signature(
        &self,
        token: &str,
        keys: &Keys,
        now: i64,
    ) -> Result<GrantClaims, TokenError> {
        #[derive(Deserialize)]
        struct GrantHeader {
            alg: String,
            typ: Option<String>,
            kid: Option<String>,
            crit: Option<Value>,
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
        let kid = header.kid.unwrap_or_default();
        let Some(key) = keys.verifying(&kid, now) else { return Err(TokenError::UnknownKey(kid)) };
        match jsonwebtoken::crypto::verify(signature, signed, key, Algorithm::ES256) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(TokenError::Signature),
        }
        let claims = read(claims(token)?)?;
        if claims.iss != self.issuer {
            return Err(TokenError::UnknownIssuer(claims.iss));
        }
        Ok(claims)
    }

    fn remember(&self, hash: [u8; 32], claims: &Arc<GrantClaims>, generation: u64, now: i64) {
        let mut verified = self.cache();
        if verified.len() >= CACHE && !verified.contains_key(&hash) {
            verified.retain(|_, known| known.claims.exp > now);
            // All alive: start over. It costs signatures, never a wrong answer.
            if verified.len() >= CACHE {
                verified.clear();
            }
        }
        verified.insert(hash, Verified { claims: Arc::clone(claims), generation });
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Verified>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads claims one by one, so that a fault names the claim that it is in.
fn read(mut claims: Map<String, Value>) -> Result<GrantClaims, TokenError> {
    fn claim<T: DeserializeOwned>(
        claims: &mut Map<String, Value>,
        name: &str,
    ) -> Result<T, TokenError> {
        let value = claims
            .remove(name)
            .ok_or_else(|| TokenError::Malformed(format!("it has no claim {name}")))?;
        serde_json::from_value(value)
            .map_err(|error| TokenError::Malformed(format!("its claim {name} is wrong: {error}")))
    }
    if !claims.contains_key("cnf") {
        return Err(TokenError::NotBound);
    }
    Ok(GrantClaims {
        iss: claim(&mut claims, "iss")?,
        sub: claim(&mut claims, "sub")?,
        aud: claim(&mut claims, "aud")?,
        exp: claim(&mut claims, "exp")?,
        iat: claim(&mut claims, "iat")?,
        jti: claim(&mut claims, "jti")?,
        cnf: claim(&mut claims, "cnf")?,
        mcpx: claim(&mut claims, "mcpx")?,
    })
}

#[cfg(test)]
mod tests;
