//! The server's nonces (RFC 9449, section 8): with one in each proof, nobody who borrows a key for
//! a moment can make proofs for later.
//!
//! A nonce is the time of its making under a key that lives and dies with the process, so that none
//! has to be remembered.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::types::{RandomError, random};

/// Makes nonces and knows its own.
pub struct Nonces {
    key: hmac::Key,
    /// For how many seconds one is good, at most; each is given out for half of that.
    life: i64,
}

/// Bytes of time, and of the code that vouches for it.
const TIME: usize = 8;
const CODE: usize = 32;

impl Nonces {
    /// Nonces that are good for `life` seconds.
    ///
    /// # Errors
    /// [`RandomError`] when there is no key for them.
    pub fn new(life: i64) -> Result<Self, RandomError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random::<CODE>()?);
        Ok(Self { key, life: life.max(2) })
    }

    /// The nonce to use now.
    pub(super) fn current(&self, now: i64) -> String {
        let made = self.period(now).to_be_bytes();
        let code = hmac::sign(&self.key, &made);
        URL_SAFE_NO_PAD.encode([made.as_slice(), code.as_ref()].concat())
    }

    /// Whether a nonce is one of these, and still good.
    pub(super) fn accepts(&self, nonce: &str, now: i64) -> bool {
        // Nothing longer is decoded.
        if nonce.len() > 2 * (TIME + CODE) {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((made, code)) = bytes.split_first_chunk::<TIME>() else { return false };
        let age = self.period(now).saturating_sub(i64::from_be_bytes(*made));
        (0..=1).contains(&age) && hmac::verify(&self.key, made, code).is_ok()
    }

    fn period(&self, now: i64) -> i64 {
        now.div_euclid(self.life / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_life_and_from_one_server() {
        let nonces = Nonces::new(60).unwrap();
        let nonce = nonces.current(6_000);
        for (now, good) in [(6_000, true), (6_059, true), (6_060, false), (5_999, false)] {
            assert_eq!(nonces.accepts(&nonce, now), good, "{now}");
        }
        assert_eq!(nonces.current(6_029), nonce);
        assert_ne!(nonces.current(6_030), nonce);
        assert!(!Nonces::new(60).unwrap().accepts(&nonce, 6_000), "another server's");
    }

    #[test]
    fn what_was_not_made_here_is_no_nonce() {
        let nonces = Nonces::new(60).unwrap();
        let nonce = nonces.current(6_000);
        for at in 0..nonce.len() {
            let mut other = nonce.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            // The last character has bits that mean nothing; base64url refuses them.
            assert!(!nonces.accepts(std::str::from_utf8(&other).unwrap(), 6_000), "{at}");
        }
        for text in ["", "A", "AAAA", &nonce[..20], &format!("{nonce}AAAA"), &"A".repeat(1 << 20)] {
            assert!(!nonces.accepts(text, 6_000));
        }
    }
}
