//! Proof of possession: a signed statement, made for one request, that the caller holds the key
//! its token is bound to (RFC 9449).
//!
//! Only ES256 exists here. The key in a proof is chosen by the caller, so every further algorithm
//! would be one more way to choose a weak one.

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters,
    EllipticCurveKeyType, Jwk, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::{Deserialize, Serialize};
use url::Url;

use super::key::{KeyError, SigningKey};
use crate::types::{RandomError, random};

pub use replay::ReplayCache;

mod replay;

/// The `typ` header of every proof.
const TYP: &str = "dpop+jwt";

/// How far a proof's `iat` may lie from the server's clock, either way, in seconds.
pub const WINDOW: i64 = 60;

/// A proof is under 1 KiB; anything much larger is not one.
const MAX_PROOF: usize = 8 * 1024;
const MAX_JTI: usize = 128;

/// Members that make a JWK private or symmetric (RFC 7518, section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The SHA-256 thumbprint of a public key (RFC 7638), as it stands in a token's `cnf.jkt`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Thumbprint(String);

impl Thumbprint {
    /// The thumbprint of a key.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] for a kind of key that has none.
    pub fn of(jwk: &Jwk) -> Result<Self, KeyError> {
        jwk.thumbprint(ThumbprintHash::SHA256).map(Self).map_err(|_| KeyError::Unusable)
    }

    /// The thumbprint as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A proof that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DpopError {
    /// The header is no proof.
    #[error("the DPoP proof is malformed: {0}")]
    Malformed(&'static str),
    /// Another algorithm than ES256, or a key that is not a public P-256 key.
    #[error("the DPoP proof's key is not a public P-256 key for ES256: {0}")]
    Key(&'static str),
    /// The signature does not fit the key in the header.
    #[error("the DPoP proof's signature is wrong")]
    Signature,
    /// The proof was made for another request.
    #[error("the DPoP proof was made for another {0}")]
    OtherRequest(&'static str),
    /// The proof is too old or from the future.
    #[error("the DPoP proof's time is {off} s off; compare the clocks of client and server")]
    Stale {
        /// How far from the server's clock, in seconds; negative is the past.
        off: i64,
    },
    /// The proof was seen before.
    #[error("the DPoP proof was used before")]
    Replayed,
    /// The proof is older than the server's memory of proofs.
    #[error(
        "the server has started since the DPoP proof was made; try again, or compare the clocks of client and server"
    )]
    BeforeStart,
    /// The access token is bound to another key.
    #[error("the token is bound to another key than the one that signed the DPoP proof")]
    OtherKey,
    /// So many proofs came in that this one cannot be remembered; nothing unremembered is let in.
    #[error("too many requests at once; try again in a minute")]
    Full,
}

impl DpopError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "dpop_malformed",
            Self::Key(_) => "dpop_key",
            Self::Signature => "dpop_signature",
            Self::OtherRequest(_) => "dpop_other_request",
            Self::Stale { .. } => "dpop_stale",
            Self::BeforeStart => "dpop_before_start",
            Self::Replayed => "dpop_replayed",
            Self::OtherKey => "dpop_other_key",
            Self::Full => "dpop_busy",
        }
    }
}

/// A key for making proofs. It lives in this process's memory only, unless it was asked for by file. It has no `Debug`.
pub struct DpopKey {
    key: SigningKey,
    thumbprint: Thumbprint,
}

impl DpopKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError`] when none can be made.
    pub fn generate() -> Result<Self, KeyError> {
        let key = SigningKey::generate()?;
        let thumbprint = Thumbprint::of(key.jwk())?;
        Ok(Self { key, thumbprint })
    }

    /// The key in a private file, for commands that have to share one; makes both when there is
    /// no file.
    ///
    /// # Errors
    /// [`KeyError`] when the file is not private, not a key, or cannot be made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let key = SigningKey::load_or_create(path)?;
        let thumbprint = Thumbprint::of(key.jwk())?;
        Ok(Self { key, thumbprint })
    }

    /// What a token bound to this key carries as `cnf.jkt`.
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// A proof for one request; with an access token, also for that token.
    ///
    /// # Errors
    /// [`KeyError`] when signing fails or there is no randomness.
    pub fn proof(
        &self,
        method: &str,
        url: &Url,
        access_token: Option<&str>,
        now: i64,
    ) -> Result<String, KeyError> {
        let claims = ProofClaims {
            jti: fresh_jti()?,
            htm: method.to_owned(),
            htu: target(url),
            iat: now,
            ath: access_token.map(token_hash),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(TYP.to_owned());
        header.jwk = Some(Jwk {
            common: CommonParameters::default(),
            algorithm: self.key.jwk().algorithm.clone(),
        });
        self.key.sign(&header, &claims)
    }
}

/// Checks a proof against the request it came with, and uses it up.
///
/// The caller compares the thumbprint with the token's `cnf.jkt`, and must have verified that
/// token first: else strangers could fill `seen`.
///
/// # Errors
/// [`DpopError`]: what is wrong with the proof.
pub fn verify_proof(
    proof: &str,
    method: &str,
    url: &Url,
    access_token: Option<&str>,
    now: i64,
    seen: &ReplayCache,
) -> Result<Thumbprint, DpopError> {
    if proof.len() > MAX_PROOF {
        return Err(DpopError::Malformed("too long"));
    }
    let mut parts = proof.split('.');
    let (Some(head), Some(body), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(DpopError::Malformed("not three parts"));
    };
    let header: ProofHeader = part(head)?;
    if header.typ != TYP {
        return Err(DpopError::Malformed("typ is not dpop+jwt"));
    }
    if header.crit.is_some() {
        return Err(DpopError::Malformed("critical extensions are not known here"));
    }
    if header.alg != "ES256" {
        return Err(DpopError::Key("alg"));
    }
    let jwk = public_p256(&header.jwk)?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| DpopError::Key("coordinates"))?;
    let signed = proof.len() - signature.len() - 1;
    let signed = proof.as_bytes().get(..signed).ok_or(DpopError::Malformed("parts"))?;
    match jsonwebtoken::crypto::verify(signature, signed, &key, Algorithm::ES256) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err(DpopError::Signature),
    }

    let claims: ProofClaims = part(body)?;
    if claims.htm != method {
        return Err(DpopError::OtherRequest("method"));
    }
    let htu = Url::parse(&claims.htu).map_err(|_| DpopError::Malformed("htu is not a URL"))?;
    if htu.query().is_some() || htu.fragment().is_some() {
        return Err(DpopError::Malformed("htu has a query or fragment"));
    }
    if htu.as_str() != target(url) {
        return Err(DpopError::OtherRequest("URL"));
    }
    let off = claims.iat.saturating_sub(now);
    if !(-WINDOW..=WINDOW).contains(&off) {
        return Err(DpopError::Stale { off });
    }
    // A proof without `ath` must not serve with a token, nor the other way round.
    if claims.ath != access_token.map(token_hash) {
        return Err(DpopError::OtherRequest("access token"));
    }
    if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
        return Err(DpopError::Malformed("jti"));
    }
    let thumbprint = Thumbprint::of(&jwk).map_err(|_| DpopError::Key("thumbprint"))?;
    seen.use_once(&thumbprint, &claims.jti, claims.iat, now)?;
    Ok(thumbprint)
}

#[derive(Deserialize)]
struct ProofHeader {
    typ: String,
    alg: String,
    jwk: serde_json::Map<String, serde_json::Value>,
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Serialize, Deserialize)]
struct ProofClaims {
    jti: String,
    htm: String,
    htu: String,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DpopError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| DpopError::Malformed("base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| DpopError::Malformed("JSON"))
}

/// Rebuilds the key from the four members that make it one, and nothing else of what was sent.
fn public_p256(jwk: &serde_json::Map<String, serde_json::Value>) -> Result<Jwk, DpopError> {
    if PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return Err(DpopError::Key("it is private or symmetric"));
    }
    let text = |member: &str| jwk.get(member).and_then(serde_json::Value::as_str);
    if text("kty") != Some("EC") || text("crv") != Some("P-256") {
        return Err(DpopError::Key("kty or crv"));
    }
    let coordinate = |member: &'static str| {
        let text = text(member).ok_or(DpopError::Key(member))?;
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if bytes.len() == 32 => Ok(text.to_owned()),
            _ => Err(DpopError::Key(member)),
        }
    };
    Ok(Jwk {
        common: CommonParameters::default(),
        algorithm: AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
            key_type: EllipticCurveKeyType::EC,
            curve: EllipticCurve::P256,
            x: coordinate("x")?,
            y: coordinate("y")?,
        }),
    })
}

/// A URL as `htu` names it: normalised by the parser, without query and fragment.
fn target(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

fn token_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, token.as_bytes()))
}

fn fresh_jti() -> Result<String, RandomError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<16>()?))
}

#[cfg(test)]
mod tests;
