//! A signing key (ES256) and the private file it lives in.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::Serialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::private_file::{self, PrivateFileError};
use crate::types::RandomError;

/// A signing key could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library made or accepted no key.
    #[error("the ES256 key cannot be made or used")]
    Unusable,
    /// The file holds something else.
    #[error(
        "{path} holds no PKCS #8 {kind} private key in PEM; move it away to have a new one made"
    )]
    NotKey {
        /// The file.
        path: String,
        /// The kind of key that belongs there.
        kind: &'static str,
    },
    /// The list of retired keys cannot be read.
    #[error(
        "{path} is no list of retired keys; move it away, and brokers ask for new grants by themselves"
    )]
    NotRing {
        /// The file.
        path: String,
    },
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The claims do not serialise, or signing failed.
    #[error("cannot sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A P-256 key pair. It has no `Debug`. The public half knows its id: its thumbprint.
#[derive(Clone)]
pub struct SigningKey {
    private: EncodingKey,
    pair: Arc<EcdsaKeyPair>,
    public: DecodingKey,
    jwk: Jwk,
    id: String,
}

impl SigningKey {
    /// A new key, in memory only.
    ///
    /// # Errors
    /// [`KeyError::Unusable`] when the library makes none.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pkcs8(&new_pkcs8()?)
    }

    /// The key in a private file; makes both when there is no file.
    ///
    /// # Errors
    /// [`KeyError`] when the file is not private, not a key, or cannot be made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        let pkcs8 = load_or_create_pkcs8(path, KIND, new_pkcs8)?;
        Self::of_file(path, &pkcs8)
    }

    pub(super) fn load(path: &Path) -> Result<Option<Self>, KeyError> {
        load_pkcs8(path, KIND)?.map(|pkcs8| Self::of_file(path, &pkcs8)).transpose()
    }

    fn of_file(path: &Path, pkcs8: &[u8]) -> Result<Self, KeyError> {
        Self::from_pkcs8(pkcs8).map_err(|_| not_key(path, KIND))
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| KeyError::Unusable)?;
        let private = EncodingKey::from_ec_der(pkcs8);
        let mut jwk =
            Jwk::from_encoding_key(&private, Algorithm::ES256).map_err(|_| KeyError::Unusable)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyError::Unusable)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let public = DecodingKey::from_jwk(&jwk).map_err(|_| KeyError::Unusable)?;
        Ok(Self { private, pair: Arc::new(pair), public, jwk, id })
    }

    /// The key's id: the thumbprint of its public half.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The public half, to publish.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The public half, to verify with.
    pub fn public(&self) -> &DecodingKey {
        &self.public
    }

    pub(super) fn pair(&self) -> &EcdsaKeyPair {
        &self.pair
    }

    /// Signs claims under a header.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    pub fn sign<C: Serialize>(&self, header: &Header, claims: &C) -> Result<String, KeyError> {
        jsonwebtoken::encode(header, claims, &self.private).map_err(KeyError::Sign)
    }

    /// A signature over anything, as a forger with a key of his own can make.
    #[cfg(test)]
    pub(super) fn sign_raw(&self, message: &[u8]) -> String {
        jsonwebtoken::crypto::sign(message, &self.private, Algorithm::ES256).unwrap()
    }
}

/// What [`SigningKey`] is, for people.
const KIND: &str = "P-256";

fn not_key(path: &Path, kind: &'static str) -> KeyError {
    KeyError::NotKey { path: path.display().to_string(), kind }
}

/// The key in a private file, as PKCS #8, or a new one that it holds from now on.
pub(super) fn load_or_create_pkcs8(
    path: &Path,
    kind: &'static str,
    new: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, KeyError>,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if let Some(pkcs8) = load_pkcs8(path, kind)? {
        return Ok(pkcs8);
    }
    let pem = to_pem(&new()?);
    // Whoever was first won; both processes go on with the key that is on disk.
    private_file::create(path, pem.as_bytes())?;
    load_pkcs8(path, kind)?.ok_or_else(|| not_key(path, kind))
}

fn load_pkcs8(path: &Path, kind: &'static str) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let Some(bytes) = private_file::read(path)?.map(Zeroizing::new) else {
        return Ok(None);
    };
    from_pem(&bytes).map(Some).ok_or_else(|| not_key(path, kind))
}

fn new_pkcs8() -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let random = aws_lc_rs::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)
        .map_err(|_| KeyError::Unusable)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

fn to_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    let mut encoded = STANDARD.encode(pkcs8);
    let mut pem = String::with_capacity(encoded.len() + 80);
    pem.push_str(BEGIN);
    for (n, character) in encoded.chars().enumerate() {
        if n % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push('\n');
    pem.push_str(END);
    pem.push('\n');
    encoded.zeroize();
    Zeroizing::new(pem)
}

fn from_pem(bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let inner = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let packed: Zeroizing<String> = Zeroizing::new(inner.split_ascii_whitespace().collect());
    STANDARD.decode(packed.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grant.pem");
        let first = SigningKey::load_or_create(&path).unwrap();
        let again = SigningKey::load_or_create(&path).unwrap();
        assert_eq!(first.id(), again.id());
        assert_ne!(first.id(), SigningKey::generate().unwrap().id());
        // The file is what other tools call a PKCS #8 PEM.
        EncodingKey::from_ec_pem(&std::fs::read(&path).unwrap()).unwrap();
    }

    #[test]
    fn refuses_a_file_that_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grant.pem");
        for content in
            ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
        {
            private_file::write(&path, content.as_bytes()).unwrap();
            assert!(matches!(SigningKey::load_or_create(&path), Err(KeyError::NotKey { .. })));
        }
    }

    #[cfg(unix)]
    #[test]
    fn refuses_an_exposed_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grant.pem");
        SigningKey::load_or_create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(SigningKey::load_or_create(&path), Err(KeyError::File(_))));
    }
}
