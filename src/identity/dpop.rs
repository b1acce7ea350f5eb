//! Proof of possession: a signed statement, made for one request, that the caller holds the key
//! its token is bound to (RFC 9449).
//!
//! Only Ed25519 and ES256 exist here. The key in a proof is chosen by the caller, so every further
//! algorithm would be one more way to choose a weak one. Our own broker signs with Ed25519, which
//! takes the gateway two thirds of the time; ES256 is what other clients have.

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{CommonParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use super::key::{self, KeyError};
use crate::types::{RandomError, random};

pub use nonce::Nonces;
pub use replay::ReplayCache;

mod head;
mod nonce;
mod replay;

/// The `typ` header of every proof.
const TYP: &str = "dpop+jwt";

/// How far a proof's `iat` may lie from the server's clock, either way, in seconds.
pub const WINDOW: i64 = 60;

/// A proof is under 1 KiB; anything much larger is not one.
const MAX_PROOF: usize = 8 * 1024;
const MAX_JTI: usize = 128;

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
    /// Another algorithm than EdDSA and ES256, or a key that is not its public key.
    #[error(
        "the DPoP proof's key is neither a public Ed25519 key for EdDSA nor a public P-256 key \
         for ES256: {0}"
    )]
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
    /// The server wants its nonce in the proof, and it is not there or not good any more.
    #[error("the DPoP proof needs the server's nonce")]
    Nonce,
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
            Self::Nonce => "use_dpop_nonce",
            Self::OtherKey => "dpop_other_key",
            Self::Full => "dpop_busy",
        }
    }
}

/// An Ed25519 key for making proofs. It lives in this process's memory only, unless it was asked for
/// by file. It has no `Debug`.
pub struct DpopKey {
    private: EncodingKey,
    jwk: Jwk,
    thumbprint: Thumbprint,
}

impl DpopKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError`] when none can be made.
    pub fn generate() -> Result<Self, KeyError> {
        Self::of(&new_pair()?)
    }

    fn of(pair: &Ed25519KeyPair) -> Result<Self, KeyError> {
        // The first version of PKCS #8, as the JWT library reads no other.
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Unusable)?;
        let private = EncodingKey::from_ed_der(pkcs8.as_ref());
        let jwk =
            Jwk::from_encoding_key(&private, Algorithm::EdDSA).map_err(|_| KeyError::Unusable)?;
        let jwk = Jwk { common: CommonParameters::default(), algorithm: jwk.algorithm };
        let thumbprint = Thumbprint::of(&jwk)?;
        Ok(Self { private, jwk, thumbprint })
    }

    /// The key in a private file, for commands that have to share one; makes both when there is
    /// no file.
    ///
    /// # Errors
    /// [`KeyError`] when the file is not private, not a key, or cannot be made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let pkcs8 = key::load_or_create_pkcs8(path, KIND, || {
            let pkcs8 = new_pair()?.to_pkcs8v1().map_err(|_| KeyError::Unusable)?;
            Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
        })?;
        let not_key = |_| KeyError::NotKey { path: path.display().to_string(), kind: KIND };
        Self::of(&Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(not_key)?)
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
        self.proof_with(method, url, access_token, None, now)
    }

    /// [`Self::proof`] with the server's nonce, where it gave one.
    ///
    /// # Errors
    /// As [`Self::proof`].
    pub fn proof_with(
        &self,
        method: &str,
        url: &Url,
        access_token: Option<&str>,
        nonce: Option<String>,
        now: i64,
    ) -> Result<String, KeyError> {
        let claims = ProofClaims {
            jti: fresh_jti()?,
            htm: method.to_owned(),
            htu: target(url),
            iat: now,
            ath: access_token.map(token_hash),
            nonce,
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYP.to_owned());
        header.jwk = Some(self.jwk.clone());
        jsonwebtoken::encode(&header, &claims, &self.private).map_err(KeyError::Sign)
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
    url: impl AsRef<str>,
    access_token: Option<&str>,
    now: i64,
    seen: &ReplayCache,
) -> Result<Thumbprint, DpopError> {
    inspect_proof(proof, method, url, access_token, now, seen)?.use_up(now, seen)
}

/// A proof that is good, but for having been used before.
#[derive(Clone, Debug)]
pub struct Unused {
    thumbprint: Thumbprint,
    jti: String,
    iat: i64,
}

impl Unused {
    /// Whose key signed it.
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// Uses it up.
    ///
    /// # Errors
    /// [`DpopError`]: it was used before, or cannot be remembered.
    pub fn use_up(self, now: i64, seen: &ReplayCache) -> Result<Thumbprint, DpopError> {
        seen.use_once(&self.thumbprint, &self.jti, self.iat, now)?;
        Ok(self.thumbprint)
    }
}

/// Checks a proof as [`verify_proof`] does, and leaves it to be used up: for a caller who learns
/// of the proof's key before it knows who shows it.
///
/// # Errors
/// [`DpopError`]: what is wrong with the proof.
pub fn inspect_proof(
    proof: &str,
    method: &str,
    url: impl AsRef<str>,
    access_token: Option<&str>,
    now: i64,
    seen: &ReplayCache,
) -> Result<Unused, DpopError> {
    if proof.len() > MAX_PROOF {
        return Err(DpopError::Malformed("too long"));
    }
    let mut parts = proof.split('.');
    let (Some(head), Some(body), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(DpopError::Malformed("not three parts"));
    };
    let (key, known) = seen.heads.find(head)?;
    let signed = proof.len() - signature.len() - 1;
    let signed = proof.as_bytes().get(..signed).ok_or(DpopError::Malformed("parts"))?;
    if !key.signed(signed, signature) {
        return Err(DpopError::Signature);
    }
    if !known {
        seen.heads.remember(head, &key);
    }

    let claims: ProofClaims = part(body).map_err(|error| blamed(body, error))?;
    if claims.htm != method {
        return Err(DpopError::OtherRequest("method"));
    }
    same_target(&claims.htu, url.as_ref())?;
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
    seen.check_nonce(claims.nonce.as_deref(), now)?;
    Ok(Unused { thumbprint: key.thumbprint().clone(), jti: claims.jti, iat: claims.iat })
}

/// What [`DpopKey`] is, for people.
const KIND: &str = "Ed25519";

fn new_pair() -> Result<Ed25519KeyPair, KeyError> {
    Ed25519KeyPair::generate().map_err(|_| KeyError::Unusable)
}

#[derive(Serialize, Deserialize)]
struct ProofClaims {
    jti: String,
    htm: String,
    htu: String,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// Which claim it is for which the claims were not read.
fn blamed(body: &str, error: DpopError) -> DpopError {
    let Ok(claims) = part::<serde_json::Map<String, serde_json::Value>>(body) else {
        return error;
    };
    let wrong =
        |name: &str, good: fn(&serde_json::Value) -> bool, needed: bool| match claims.get(name) {
            None => needed,
            Some(value) => !good(value),
        };
    let text = |value: &serde_json::Value| value.is_string();
    let number = |value: &serde_json::Value| value.is_i64();
    let optional = |value: &serde_json::Value| value.is_string() || value.is_null();
    let which = [
        ("jti", wrong("jti", text, true)),
        ("htm", wrong("htm", text, true)),
        ("htu", wrong("htu", text, true)),
        ("iat", wrong("iat", number, true)),
        ("ath", wrong("ath", optional, false)),
        ("nonce", wrong("nonce", optional, false)),
    ];
    let which = which.into_iter().find_map(|(name, wrong)| wrong.then_some(name));
    DpopError::Malformed(which.unwrap_or("a claim stands in it twice"))
}

fn part<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, DpopError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| DpopError::Malformed("base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| DpopError::Malformed("JSON"))
}

/// Whether `htu` names this URL. Most clients write it as we do; only where they do not is anything
/// parsed.
fn same_target(htu: &str, url: &str) -> Result<(), DpopError> {
    if htu == url && !url.contains(['?', '#']) {
        return Ok(());
    }
    let htu = Url::parse(htu).map_err(|_| DpopError::Malformed("htu is not a URL"))?;
    if htu.query().is_some() || htu.fragment().is_some() {
        return Err(DpopError::Malformed("htu has a query or fragment"));
    }
    let url = Url::parse(url).map_err(|_| DpopError::OtherRequest("URL"))?;
    if htu.as_str() == target(&url) { Ok(()) } else { Err(DpopError::OtherRequest("URL")) }
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
