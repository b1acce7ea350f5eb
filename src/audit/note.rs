//! Checkpoints: the tree's size and root under a signature, as C2SP tlog-checkpoint and
//! signed-note lay down (signature type 1, Ed25519).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::tree::Hash;
use crate::types::InvalidText;

/// A tree head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, which is also its key's.
    pub origin: String,
    /// How many leaves the tree has.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// A checkpoint with the note that it was read from: only made by signing or by verifying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: String,
}

impl SignedCheckpoint {
    /// Joins a checkpoint with the note that its own key signed.
    pub(super) fn signed(checkpoint: Checkpoint, note: String) -> Self {
        Self { checkpoint, note }
    }

    /// What was signed.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note: what the file `checkpoint` holds, and what to remember and hand to others.
    pub fn note(&self) -> &str {
        &self.note
    }
}

/// Why a note is not a checkpoint of the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note, or not one of a checkpoint.
    #[error("not a signed checkpoint: {0}")]
    Malformed(&'static str),
    /// No signature of the key that was asked for.
    #[error("no signature by the key {key}")]
    Unsigned {
        /// The key, without its public part.
        key: String,
    },
    /// The key's signature does not fit the text.
    #[error("the signature by the key {key} is wrong")]
    WrongSignature {
        /// The key, without its public part.
        key: String,
    },
    /// Signed, but about another log.
    #[error("it is about the log {found:?}, not {expected:?}")]
    OtherLog {
        /// The log that it is about.
        found: String,
        /// The log that was asked for.
        expected: String,
    },
}

/// A log's public key: `name+hash+key`, as every tool for signed notes takes it.
#[derive(Clone)]
pub struct VerifierKey {
    name: String,
    hash: [u8; 4],
    key: ParsedPublicKey,
    public: [u8; 32],
}

impl VerifierKey {
    pub(super) fn new(name: &str, public: [u8; 32]) -> Result<Self, InvalidText> {
        check_name(name)?;
        let key = ParsedPublicKey::new(&ED25519, public)
            .map_err(|_| bad_key("the public key is not one of Ed25519"))?;
        Ok(Self { name: name.to_owned(), hash: key_hash(name, &public), key, public })
    }

    /// The key's name: the log's origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a note and checks this key's signature on it. Signatures by other keys, such as
    /// witnesses' cosignatures, are neither needed nor checked.
    ///
    /// # Errors
    /// [`NoteError`], for whatever is wrong with it.
    pub fn verify(&self, note: &[u8]) -> Result<SignedCheckpoint, NoteError> {
        let note = std::str::from_utf8(note).map_err(|_| NoteError::Malformed("not UTF-8"))?;
        if note.len() > MAX_NOTE {
            return Err(NoteError::Malformed("too long"));
        }
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Malformed("control characters"));
        }
        let split = note.rfind("\n\n").ok_or(NoteError::Malformed("no signatures"))?;
        let (text, signatures) = note.split_at(split + 1);
        let signatures = signatures.strip_prefix('\n').unwrap_or_default();
        if signatures.is_empty() || !signatures.ends_with('\n') {
            return Err(NoteError::Malformed("the signatures are cut short"));
        }
        let mut signed = false;
        for line in signatures.lines() {
            let (name, hash, signature) =
                read_signature(line).ok_or(NoteError::Malformed("a line is no signature"))?;
            if name == self.name && hash == self.hash {
                self.key
                    .verify_sig(text.as_bytes(), &signature)
                    .map_err(|_| NoteError::WrongSignature { key: self.label() })?;
                signed = true;
            }
        }
        if !signed {
            return Err(NoteError::Unsigned { key: self.label() });
        }
        let checkpoint = read_checkpoint(text).map_err(NoteError::Malformed)?;
        if checkpoint.origin != self.name {
            let expected = self.name.clone();
            return Err(NoteError::OtherLog { found: checkpoint.origin, expected });
        }
        Ok(SignedCheckpoint { checkpoint, note: note.to_owned() })
    }

    /// The line by which this key signs a text.
    pub(super) fn signature_line(&self, signature: &[u8]) -> String {
        let bytes = [&self.hash, signature].concat();
        format!("— {} {}\n", self.name, STANDARD.encode(bytes))
    }

    fn label(&self) -> String {
        format!("{}+{}", self.name, hex(self.hash))
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[ALGORITHM][..], &self.public].concat();
        write!(f, "{}+{}+{}", self.name, hex(self.hash), STANDARD.encode(bytes))
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifierKey({self})")
    }
}

impl PartialEq for VerifierKey {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.public == other.public
    }
}

impl Eq for VerifierKey {}

impl FromStr for VerifierKey {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let parts = text.split_once('+').and_then(|(name, rest)| {
            let (hash, key) = rest.split_once('+')?;
            Some((name, hash, key))
        });
        let (name, hash, key) = parts.ok_or_else(|| bad_key("must be name+hash+key"))?;
        let key = STANDARD.decode(key).map_err(|_| bad_key("the key is not base64"))?;
        let public = match key.split_first() {
            Some((&ALGORITHM, public)) => public.try_into().ok(),
            _ => None,
        };
        let public = public.ok_or_else(|| bad_key("only Ed25519 keys (type 1) are known"))?;
        let parsed = Self::new(name, public)?;
        if hex(parsed.hash) != hash {
            return Err(bad_key("its hash does not fit: it was copied wrongly or altered"));
        }
        Ok(parsed)
    }
}

/// The text that a checkpoint's signature covers.
pub(super) fn checkpoint_text(checkpoint: &Checkpoint) -> String {
    let root = STANDARD.encode(checkpoint.root.0);
    format!("{}\n{}\n{root}\n", checkpoint.origin, checkpoint.size)
}

fn read_checkpoint(text: &str) -> Result<Checkpoint, &'static str> {
    let text = text.strip_suffix('\n').ok_or("its text is cut short")?;
    let mut lines = text.split('\n');
    let mut line = || lines.next().filter(|line| !line.is_empty());
    let origin = line().ok_or("no origin")?.to_owned();
    let size = line()
        .and_then(|line| Some((line, line.parse::<u64>().ok()?)))
        // One number has one spelling.
        .filter(|(line, size)| size.to_string() == *line)
        .ok_or("no size")?
        .1;
    let root = line()
        .and_then(|line| STANDARD.decode(line).ok())
        .and_then(|root| root.try_into().ok())
        .ok_or("no root")?;
    // Further lines are extensions; they are signed, and mean nothing here.
    if lines.any(str::is_empty) {
        return Err("an empty line in its text");
    }
    Ok(Checkpoint { origin, size, root: Hash(root) })
}

fn read_signature(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, rest) = line.strip_prefix("— ")?.split_once(' ')?;
    check_name(name).ok()?;
    let bytes = STANDARD.decode(rest).ok()?;
    let (hash, signature) = bytes.split_first_chunk::<4>()?;
    (!signature.is_empty()).then(|| (name, *hash, signature.to_vec()))
}

fn key_hash(name: &str, public: &[u8; 32]) -> [u8; 4] {
    let bytes = [name.as_bytes(), b"\n", &[ALGORITHM], public].concat();
    let [a, b, c, d, ..] = Hash::of(&bytes).0;
    [a, b, c, d]
}

fn hex(hash: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(hash))
}

fn check_name(name: &str) -> Result<(), InvalidText> {
    let fits = !name.is_empty()
        && name.len() <= MAX_NAME
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    if fits {
        return Ok(());
    }
    let why = format!("{name:?} must be 1 to {MAX_NAME} bytes without blanks and '+'");
    Err(InvalidText { what: "log origin", why })
}

fn bad_key(why: &str) -> InvalidText {
    InvalidText { what: "verifier key", why: why.to_owned() }
}

/// signed-note's number for Ed25519.
const ALGORITHM: u8 = 1;

const MAX_NAME: usize = 255;

/// Room for a good many cosignatures; what a stranger's checkpoint may cost to read.
pub(super) const MAX_NOTE: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::key::LogKey;
    use super::*;

    fn sample() -> (LogKey, String) {
        let key = LogKey::generate("mcpx.example/log").unwrap();
        let root = Hash([7; 32]);
        let signed = key.sign(42, root).unwrap();
        (key, signed.note().to_owned())
    }

    #[test]
    fn a_key_comes_back_from_its_text() {
        let (key, note) = sample();
        let text = key.vkey().to_string();
        let again: VerifierKey = text.parse().unwrap();
        assert_eq!(again, *key.vkey());
        assert_eq!(again.verify(note.as_bytes()).unwrap().checkpoint().size, 42);
        for bad in ["", "a", "a+b", "a+00000000+AAAA", &text.replace("mcpx", "mcpy"), &text[1..]] {
            assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn every_flipped_byte_of_a_note_is_noticed() {
        let (key, note) = sample();
        for place in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                assert!(key.vkey().verify(&bytes).is_err(), "byte {place}, bit {bit}");
            }
            assert!(key.vkey().verify(&note.as_bytes()[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn other_keys_and_other_logs_are_named() {
        let (key, note) = sample();
        let other = LogKey::generate("mcpx.example/log").unwrap();
        let error = other.vkey().verify(note.as_bytes()).unwrap_err();
        assert!(matches!(error, NoteError::Unsigned { .. }), "{error}");
        // A cosignature by a stranger does not disturb.
        let line = other.sign(42, Hash([7; 32])).unwrap();
        let cosignature = line.note().lines().last().unwrap();
        assert!(key.vkey().verify(format!("{note}{cosignature}\n").as_bytes()).is_ok());
        // A checkpoint of another log, signed by our key, is not ours.
        let text =
            checkpoint_text(&Checkpoint { origin: "b".into(), size: 1, root: Hash([0; 32]) });
        let note = format!("{text}\n{}", key.vkey().signature_line(&key.sign_text(&text).unwrap()));
        assert!(matches!(key.vkey().verify(note.as_bytes()), Err(NoteError::OtherLog { .. })));
    }

    #[test]
    fn odd_checkpoints_are_refused_even_when_signed() {
        let (key, _) = sample();
        let root = STANDARD.encode([1; 32]);
        for text in [
            format!("mcpx.example/log\n042\n{root}\n"),
            format!("mcpx.example/log\n+42\n{root}\n"),
            "mcpx.example/log\n42\nAAAA\n".to_owned(),
            "mcpx.example/log\n42\n".to_owned(),
            format!("mcpx.example/log\n42\n{root}\n\nx\n"),
        ] {
            let line = key.vkey().signature_line(&key.sign_text(&text).unwrap());
            assert!(key.vkey().verify(format!("{text}\n{line}").as_bytes()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn reading_any_text_never_panics(text in "[a-z0-9\n— +=/]{0,200}") {
            let (key, _) = sample();
            prop_assert!(key.vkey().verify(text.as_bytes()).is_err());
            drop(text.parse::<VerifierKey>());
        }
    }
}
