//! A record as it stands in the tree: versioned, timed, and with the commitment to its body.
//!
//! Leaves are entries of C2SP tlog-tiles, so at most 65,535 bytes. They are compact JSON with
//! fields in the order of the types here, written by this one encoder.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize, Serializer};

use super::record::Record;
use super::tree::Hash;
use crate::types::{InvalidText, Timestamp};

/// The longest leaf: entries in a tile carry a 16-bit length.
pub const MAX_LEAF: usize = 65_535;

/// Random bytes before a body, so that a short or guessable body cannot be found by trying.
pub(super) type Salt = [u8; 32];

/// One entry of the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The version of this form; 1.
    pub v: u8,
    /// When the recorder was told.
    pub at: Timestamp,
    /// What it was told.
    #[serde(flatten)]
    pub record: Record,
    /// The commitment to the body that goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Commitment>,
}

/// A leaf that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// Longer than a tile's entry can be.
    #[error("the record takes {found} bytes; a leaf holds at most {MAX_LEAF}")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Written by a newer version of this program.
    #[error("the leaf has version {found}; this program reads version {VERSION}")]
    Version {
        /// The version it has.
        found: u8,
    },
    /// Not a leaf.
    #[error("the leaf is not one that this program can read")]
    Json(#[from] serde_json::Error),
}

impl Leaf {
    /// A leaf of the current version.
    pub fn new(at: Timestamp, record: Record, body: Option<Commitment>) -> Self {
        Self { v: VERSION, at, record: record.tidy(), body }
    }

    /// The leaf's bytes, as they are hashed and stored.
    ///
    /// # Errors
    /// [`LeafError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, LeafError> {
        let bytes = serde_json::to_vec(self)?;
        if bytes.len() > MAX_LEAF {
            return Err(LeafError::TooLong { found: bytes.len() });
        }
        Ok(bytes)
    }

    /// Reads a leaf's bytes.
    ///
    /// # Errors
    /// [`LeafError::Version`] or [`LeafError::Json`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LeafError> {
        // The envelope first, so that a newer leaf is named as such, whatever its record is.
        Envelope::decode(bytes)?;
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// The part of a leaf that verification needs. Reading no more than this lets an old program
/// verify a log with kinds of records that it does not know.
#[derive(Deserialize)]
pub(super) struct Envelope {
    v: u8,
    #[serde(default)]
    pub(super) body: Option<Commitment>,
}

impl Envelope {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, LeafError> {
        let envelope: Self = serde_json::from_slice(bytes)?;
        if envelope.v != VERSION {
            return Err(LeafError::Version { found: envelope.v });
        }
        Ok(envelope)
    }
}

/// A salted SHA-256 of a body. It tells nothing of the body to whoever lacks the salt.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Commitment(Hash);

impl Serialize for Commitment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_string())
    }
}

impl Commitment {
    /// Commits to a body.
    pub fn new(salt: &Salt, body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(BODY_DOMAIN);
        context.update(salt);
        context.update(body);
        Self(Hash::finish(context))
    }
}

impl fmt::Display for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Commitment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commitment({})", self.0)
    }
}

impl std::str::FromStr for Commitment {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Ok(Self(text.parse()?))
    }
}

impl TryFrom<String> for Commitment {
    type Error = InvalidText;
    fn try_from(text: String) -> Result<Self, InvalidText> {
        text.parse()
    }
}

const VERSION: u8 = 1;

/// Keeps a commitment from ever being mistaken for another hash of the same bytes.
const BODY_DOMAIN: &[u8] = b"mcpx/body/v1\0";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_commitment_is_the_documented_hash() {
        let mut bytes = b"mcpx/body/v1\0".to_vec();
        bytes.extend([7u8; 32]);
        bytes.extend(b"{}");
        let digest = aws_lc_rs::digest::digest(&SHA256, &bytes);
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(Commitment::new(&[7; 32], b"{}").to_string(), hex);
        assert_ne!(Commitment::new(&[8; 32], b"{}").to_string(), hex);
        assert_eq!(hex.parse::<Commitment>().unwrap(), Commitment::new(&[7; 32], b"{}"));
        assert!(hex.to_uppercase().parse::<Commitment>().is_err(), "hex has one spelling");
        assert!("é".repeat(32).parse::<Commitment>().is_err());
    }

    #[test]
    fn a_newer_leaf_is_named_as_such() {
        let newer = br#"{"v":2,"at":"2026-08-01T10:00:00Z","kind":"levitated","body":null}"#;
        assert!(matches!(Leaf::decode(newer), Err(LeafError::Version { found: 2 })));
        let strange = br#"{"v":1,"at":"2026-08-01T10:00:00Z","kind":"levitated"}"#;
        assert!(matches!(Leaf::decode(strange), Err(LeafError::Json(_))));
        assert!(Envelope::decode(strange).is_ok(), "an unknown kind can still be verified");
    }

    #[test]
    fn a_leaf_too_long_for_a_tile_is_refused() {
        let record = |n| Record::PolicyLoaded { hash: "a".repeat(n) };
        let spare =
            MAX_LEAF - Leaf::new(Timestamp::UNIX_EPOCH, record(0), None).encode().unwrap().len();
        let fits = Leaf::new(Timestamp::UNIX_EPOCH, record(spare), None);
        assert_eq!(fits.encode().unwrap().len(), MAX_LEAF);
        let over = Leaf::new(Timestamp::UNIX_EPOCH, record(spare + 1), None);
        assert!(
            matches!(over.encode(), Err(LeafError::TooLong { found }) if found == MAX_LEAF + 1)
        );
    }

    proptest! {
        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(Leaf::decode(&bytes));
        }
    }
}
