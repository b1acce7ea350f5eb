//! The log's signing key: an Ed25519 seed in one PKCS#8 file that only the server can read.
//!
//! The key never leaves this file's type: it has no `Debug`, is not cloned, and only signs
//! checkpoints.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::disk::{private_file, sync_folder};
use super::note::{Checkpoint, SignedCheckpoint, VerifierKey, checkpoint_text};
use super::tree::Hash;
use crate::types::InvalidText;

/// The key that signs a log's checkpoints, and the log's name.
pub struct LogKey {
    pair: Ed25519KeyPair,
    vkey: VerifierKey,
}

/// A log key that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or written.
    #[error("cannot use the log key {path}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "{path} does not hold an Ed25519 private key in PKCS#8 PEM form; restore it from a backup, \
         or begin a new log with a new key"
    )]
    Unreadable {
        /// The file.
        path: String,
    },
    /// Everyone on the machine can read the key.
    #[error("{path} can be read by every user of this machine; take that right away (chmod o= …)")]
    Exposed {
        /// The file.
        path: String,
    },
    /// The log's name cannot stand in a signed note.
    #[error(transparent)]
    Origin(#[from] InvalidText),
    /// The cryptographic library refused; not something that a caller can cause.
    #[error("the Ed25519 key could not be made or used")]
    Crypto,
}

impl LogKey {
    /// Reads the key from `path`, or makes a new one there (mode 0600, on disk before it is used)
    /// if there is no such file. `origin` names the log: a short URL without scheme, such as
    /// `mcpx.example.org/log`, which must stay the same for the log's life.
    ///
    /// # Errors
    /// [`KeyError`], naming the file. A key is never replaced.
    pub fn load_or_create(path: &Path, origin: &str) -> Result<Self, KeyError> {
        match Self::load(path, origin) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let key = Self::generate(origin)?;
        match key.save(path) {
            Ok(()) => Ok(key),
            // Another process was faster: its key is the log's.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path, origin),
            Err(source) => Err(KeyError::Io { path: path.display().to_string(), source }),
        }
    }

    /// Reads the key from `path`.
    ///
    /// # Errors
    /// [`KeyError`], naming the file.
    pub fn load(path: &Path, origin: &str) -> Result<Self, KeyError> {
        let name = || path.display().to_string();
        let io = |source| KeyError::Io { path: name(), source };
        let file = fs::File::open(path).map_err(io)?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // The group is left out: secret mounts in containers commonly share it.
            if file.metadata().map_err(io)?.permissions().mode() & 0o007 != 0 {
                return Err(KeyError::Exposed { path: name() });
            }
        }
        let mut pem = Zeroizing::new(String::new());
        file.take(MAX_FILE).read_to_string(&mut pem).map_err(io)?;
        let body: Zeroizing<String> = Zeroizing::new(
            pem.trim()
                .strip_prefix(PEM_BEGIN)
                .and_then(|rest| rest.strip_suffix(PEM_END))
                .ok_or_else(|| KeyError::Unreadable { path: name() })?
                .split_whitespace()
                .collect(),
        );
        let unreadable = || KeyError::Unreadable { path: name() };
        let der = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| unreadable())?);
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| unreadable())?;
        Self::new(pair, origin)
    }

    /// A new key that is kept nowhere: for tests and throw-away logs.
    ///
    /// # Errors
    /// [`KeyError::Origin`] or [`KeyError::Crypto`].
    pub fn generate(origin: &str) -> Result<Self, KeyError> {
        Self::new(Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?, origin)
    }

    /// The public half, under the log's name.
    pub fn vkey(&self) -> &VerifierKey {
        &self.vkey
    }

    /// Signs a tree head.
    pub(super) fn sign(&self, size: u64, root: Hash) -> Result<SignedCheckpoint, KeyError> {
        let checkpoint = Checkpoint { origin: self.vkey.name().to_owned(), size, root };
        let text = checkpoint_text(&checkpoint);
        let line = self.vkey.signature_line(&self.sign_text(&text)?);
        Ok(SignedCheckpoint::signed(checkpoint, format!("{text}\n{line}")))
    }

    pub(super) fn sign_text(&self, text: &str) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.try_sign(text.as_bytes()).map_err(|_| KeyError::Crypto)?;
        Ok(signature.as_ref().to_vec())
    }

    fn new(pair: Ed25519KeyPair, origin: &str) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Crypto)?;
        Ok(Self { pair, vkey: VerifierKey::new(origin, public)? })
    }

    fn save(&self, path: &Path) -> io::Result<()> {
        let der = self.pair.to_pkcs8v1().map_err(|_| io::Error::other("no PKCS#8 form"))?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let pem = Zeroizing::new(format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", *body));
        let mut file = private_file().write(true).create_new(true).open(path)?;
        let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a key would be refused for ever. The error that counts is the first one.
            drop(fs::remove_file(path));
        }
        written?;
        path.parent().map_or(Ok(()), sync_folder)
    }
}

const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
const MAX_FILE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_then_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.key");
        let made = LogKey::load_or_create(&path, "a").unwrap();
        let read = LogKey::load_or_create(&path, "a").unwrap();
        assert_eq!(made.vkey(), read.vkey());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
            assert!(matches!(LogKey::load(&path, "a"), Err(KeyError::Exposed { .. })));
        }
    }

    #[test]
    fn what_is_no_key_is_neither_used_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.key");
        for text in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
        {
            drop(fs::remove_file(&path));
            private_file()
                .write(true)
                .create_new(true)
                .open(&path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
            let result = LogKey::load_or_create(&path, "a");
            assert!(matches!(result, Err(KeyError::Unreadable { .. })), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let result = LogKey::load_or_create(&folder.path().join("b"), "two words");
        assert!(matches!(result, Err(KeyError::Origin(_))));
    }
}
