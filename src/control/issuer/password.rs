//! Hashing and checking passwords: PBKDF2-HMAC-SHA256 (RFC 8018), written as
//! `pbkdf2-sha256$iterations$salt$hash`.

use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::types::{InvalidText, RandomError, random};

const NAME: &str = "pbkdf2-sha256";

/// What OWASP asks for with this function.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).unwrap();

/// More would let a configuration stall the server.
const MAX_ITERATIONS: u32 = 10_000_000;

const HASH_LENGTH: usize = 32;

/// A password, hashed. It has no `Debug`.
#[derive(Clone)]
pub struct PasswordHash {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    hash: [u8; HASH_LENGTH],
}

/// Hashes a password for the configuration. Takes a moment on purpose.
///
/// # Errors
/// [`RandomError`] when there is no randomness for a salt.
pub fn hash(password: &str) -> Result<String, RandomError> {
    hash_with(password, ITERATIONS)
}

/// Like [`hash`], with another number of iterations.
///
/// # Errors
/// [`RandomError`].
pub fn hash_with(password: &str, iterations: NonZeroU32) -> Result<String, RandomError> {
    let salt: [u8; 16] = random()?;
    let mut hash = [0; HASH_LENGTH];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut hash);
    let [salt, hash] = [salt.as_slice(), hash.as_slice()].map(|part| STANDARD_NO_PAD.encode(part));
    Ok(format!("{NAME}${iterations}${salt}${hash}"))
}

impl PasswordHash {
    /// Whether this is the password, in time that does not depend on where they differ.
    pub fn matches(&self, password: &str) -> bool {
        let password = password.as_bytes();
        pbkdf2::verify(PBKDF2_HMAC_SHA256, self.iterations, &self.salt, password, &self.hash)
            .is_ok()
    }

    pub(super) fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// A hash of no password at all, that takes as long to check as others do.
    pub(super) fn of_nobody(iterations: Option<NonZeroU32>) -> Result<Self, RandomError> {
        let salt: [u8; 16] = random()?;
        let iterations = iterations.unwrap_or(ITERATIONS);
        Ok(Self { iterations, salt: salt.to_vec(), hash: random()? })
    }
}

impl FromStr for PasswordHash {
    type Err = InvalidText;

    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let invalid = |why: &str| InvalidText { what: "password hash", why: why.to_owned() };
        let mut parts = text.split('$');
        let (Some(NAME), Some(iterations), Some(salt), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(invalid("must be pbkdf2-sha256$iterations$salt$hash"));
        };
        let iterations: NonZeroU32 =
            iterations.parse().map_err(|_| invalid("the iterations are not a number"))?;
        if iterations.get() > MAX_ITERATIONS {
            return Err(invalid("too many iterations"));
        }
        let decode = |part| STANDARD_NO_PAD.decode(part).map_err(|_| invalid("not base64"));
        let salt = decode(salt)?;
        let hash = decode(hash)?;
        let hash = hash.try_into().map_err(|_| invalid("the hash must have 32 bytes"))?;
        if salt.len() < 8 {
            return Err(invalid("the salt must have at least 8 bytes"));
        }
        Ok(Self { iterations, salt, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_what_it_hashed() {
        let few = NonZeroU32::new(10).unwrap();
        let text = hash_with("correct horse", few).unwrap();
        let hashed: PasswordHash = text.parse().unwrap();
        assert!(hashed.matches("correct horse"));
        for wrong in ["", "correct horse ", "Correct horse", "correct"] {
            assert!(!hashed.matches(wrong), "{wrong:?}");
        }
        assert_ne!(text, hash_with("correct horse", few).unwrap(), "no salt");
        assert!(!PasswordHash::of_nobody(Some(few)).unwrap().matches(""));
    }

    #[test]
    fn agrees_with_others() {
        // Python: base64.b64encode(hashlib.pbkdf2_hmac("sha256", b"password", b"saltsalt", 4096))
        let text = "pbkdf2-sha256$4096$c2FsdHNhbHQ$PYTHON";
        let text = text.replace("PYTHON", REFERENCE);
        assert!(text.parse::<PasswordHash>().unwrap().matches("password"));
    }

    const REFERENCE: &str = "ZiMD/VuDIBLM8rT9ZlFkcm8vO44PH2jtvpsH6s4pwvU";

    #[test]
    fn refuses_other_shapes() {
        let hash = STANDARD_NO_PAD.encode([0; 32]);
        for bad in [
            String::new(),
            "password".to_owned(),
            format!("pbkdf2-sha256$0$c2FsdHNhbHQ${hash}"),
            format!("pbkdf2-sha256$-1$c2FsdHNhbHQ${hash}"),
            format!("pbkdf2-sha256$4000000000$c2FsdHNhbHQ${hash}"),
            format!("pbkdf2-sha1$1000$c2FsdHNhbHQ${hash}"),
            format!("pbkdf2-sha256$1000$c2Fs${hash}"),
            "pbkdf2-sha256$1000$c2FsdHNhbHQ$c2FsdHNhbHQ".to_owned(),
            format!("pbkdf2-sha256$1000$c2FsdHNhbHQ${hash}$x"),
        ] {
            assert!(bad.parse::<PasswordHash>().is_err(), "{bad}");
        }
    }
}
