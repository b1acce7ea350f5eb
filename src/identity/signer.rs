//! Who signs grant tokens: a key in a file today. A key that cannot leave its device or service
//! (PKCS #11, a cloud's KMS) takes its place by implementing [`Signer`].

use aws_lc_rs::rand::SystemRandom;
use futures_util::future::BoxFuture;
use jsonwebtoken::jwk::Jwk;

use super::key::{KeyError, SigningKey};

/// Signs with one P-256 key (ES256), wherever that key is.
pub trait Signer: Send + Sync {
    /// The key's id, which stands in each token as `kid`: the thumbprint of its public half
    /// (RFC 7638), so that nobody has to invent one.
    fn id(&self) -> &str;

    /// The public half, to publish and to verify with.
    fn jwk(&self) -> &Jwk;

    /// The signature over a message, in the form of JWS (RFC 7518, section 3.4): R and S, 32 bytes
    /// each. It may ask a device or another server.
    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], KeyError>>;
}

/// The key in this process's memory, from its private file.
impl Signer for SigningKey {
    fn id(&self) -> &str {
        Self::id(self)
    }

    fn jwk(&self) -> &Jwk {
        Self::jwk(self)
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], KeyError>> {
        let signed = self
            .pair()
            .sign(&SystemRandom::new(), message)
            .ok()
            .and_then(|signature| <[u8; 64]>::try_from(signature.as_ref()).ok());
        Box::pin(std::future::ready(signed.ok_or(KeyError::Unusable)))
    }
}
