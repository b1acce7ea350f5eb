//! The head of a proof: its algorithm and the public key that must have signed it.
//!
//! The key is chosen by the caller, so what is accepted is a short list of whole suites, each one
//! algorithm on one curve. Every proof that a key signs has the same head, so heads that bore a good
//! signature once are remembered, with the key ready for use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters,
    EllipticCurveKeyType, Jwk, OctetKeyPairParameters, OctetKeyPairType,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{DpopError, TYP, Thumbprint, part};

/// Members that make a JWK private or symmetric (RFC 7518, section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Heads that are remembered at once.
const KNOWN: usize = 4096;

/// What a proof's head says, once it is understood.
pub(super) struct Head {
    algorithm: Algorithm,
    key: DecodingKey,
    thumbprint: Thumbprint,
}

impl Head {
    /// Reads the first part of a proof.
    pub(super) fn read(text: &str) -> Result<Self, DpopError> {
        let header: ProofHeader = part(text)?;
        if header.typ != TYP {
            return Err(DpopError::Malformed("typ is not dpop+jwt"));
        }
        if header.crit.is_some() {
            return Err(DpopError::Malformed("critical extensions are not known here"));
        }
        let (algorithm, kind, curve) = match header.alg.as_str() {
            "EdDSA" => (Algorithm::EdDSA, "OKP", "Ed25519"),
            "ES256" => (Algorithm::ES256, "EC", "P-256"),
            _ => return Err(DpopError::Key("alg")),
        };
        let jwk = public(&header.jwk, kind, curve)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| DpopError::Key("coordinates"))?;
        let thumbprint = Thumbprint::of(&jwk).map_err(|_| DpopError::Key("thumbprint"))?;
        Ok(Self { algorithm, key, thumbprint })
    }

    /// Whether the key signed this.
    pub(super) fn signed(&self, message: &[u8], signature: &str) -> bool {
        matches!(
            jsonwebtoken::crypto::verify(signature, message, &self.key, self.algorithm),
            Ok(true)
        )
    }

    /// The key's thumbprint.
    pub(super) fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }
}

#[derive(Deserialize)]
struct ProofHeader {
    typ: String,
    alg: String,
    jwk: Map<String, Value>,
    crit: Option<serde::de::IgnoredAny>,
}

/// Rebuilds the key from the members that make it one, and nothing else of what was sent.
fn public(jwk: &Map<String, Value>, kind: &str, curve: &str) -> Result<Jwk, DpopError> {
    if PRIVATE_MEMBERS.iter().any(|member| jwk.contains_key(*member)) {
        return Err(DpopError::Key("it is private or symmetric"));
    }
    let text = |member: &str| jwk.get(member).and_then(Value::as_str);
    if text("kty") != Some(kind) || text("crv") != Some(curve) {
        return Err(DpopError::Key("kty or crv"));
    }
    let coordinate = |member: &'static str| {
        let text = text(member).ok_or(DpopError::Key(member))?;
        match URL_SAFE_NO_PAD.decode(text) {
            Ok(bytes) if bytes.len() == 32 => Ok(text.to_owned()),
            _ => Err(DpopError::Key(member)),
        }
    };
    let x = coordinate("x")?;
    let algorithm = if kind == "OKP" {
        AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
            key_type: OctetKeyPairType::OctetKeyPair,
            curve: EllipticCurve::Ed25519,
            x,
        })
    } else {
        AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
            key_type: EllipticCurveKeyType::EC,
            curve: EllipticCurve::P256,
            x,
            y: coordinate("y")?,
        })
    };
    Ok(Jwk { common: CommonParameters::default(), algorithm })
}

/// Heads of proofs whose signature was good.
#[derive(Default)]
pub(super) struct Heads {
    known: Mutex<HashMap<Box<str>, Arc<Head>>>,
}

impl Heads {
    /// The head that this text is, remembered or read, and whether it was remembered.
    pub(super) fn find(&self, text: &str) -> Result<(Arc<Head>, bool), DpopError> {
        if let Some(head) = self.lock().get(text) {
            return Ok((Arc::clone(head), true));
        }
        Head::read(text).map(|head| (Arc::new(head), false))
    }

    /// Remembers a head that has borne a good signature.
    pub(super) fn remember(&self, text: &str, head: &Arc<Head>) {
        let mut known = self.lock();
        // Strangers can sign with keys of their own; whoever is forgotten is read again.
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(text.into(), Arc::clone(head));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Arc<Head>>> {
        // An insert is all there is, so a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
