//! Tokens at rest.
//!
//! With a keyring, the keyring holds a 256-bit key and the tokens lie in the home, sealed with
//! AES-256-GCM: some keyrings hold no more than two kilobytes, and none says when a change is on
//! disk, which a rotating refresh token needs. Without one, and only if the user chose so, the
//! tokens lie plain in a file that only its owner may read.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::home::{Home, HomeError};
use crate::identity::private_file;
use crate::types::{Identity, RandomError, Secret, random};

pub use kernel::KernelKeyring;

mod kernel;

const FILE: &str = "tokens";
const SERVICE: &str = "mcpx";
const VERSION: u32 = 1;
const KEY_LENGTH: usize = 32;

/// Where the tokens of a login are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Sealed under a key in the operating system's keyring.
    Keyring,
    /// Sealed under a key in the Linux kernel's keyring.
    Keyutils,
    /// Plain in a file with mode 0600.
    File,
}

/// What a login holds.
#[derive(Clone)]
pub struct Tokens {
    /// The identity token.
    pub id_token: Secret,
    /// When it was received, in seconds since 1970.
    pub obtained: i64,
    /// When it expires.
    pub expires: i64,
    /// What the next identity token is had for, if the issuer gave one.
    pub refresh_token: Option<Secret>,
    /// Who the identity token says this is.
    pub identity: Identity,
}

/// Tokens could not be kept or had back.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// No keyring answers.
    #[error(
        "no keyring answers here ({why}); choose: mcpx login --keyutils (Linux: the kernel keeps the key until the next reboot), or mcpx login --insecure-file (a private file, unencrypted)"
    )]
    NoKeyring {
        /// What the platform said.
        why: String,
    },
    /// The sealed tokens do not open, or the key is gone.
    #[error("the stored tokens cannot be opened ({why}); run: mcpx login")]
    Unreadable {
        /// Which part is at fault.
        why: &'static str,
    },
    /// The home cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A place for small secrets under a user name. A trait, so that tests need no desktop.
pub trait Keyring: Send + Sync + 'static {
    /// The secret, if there is one.
    ///
    /// # Errors
    /// What the platform says, for people to read.
    fn get(&self, user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String>;

    /// Keeps a secret.
    ///
    /// # Errors
    /// What the platform says, for people to read.
    fn set(&self, user: &str, secret: &[u8]) -> Result<(), String>;

    /// Forgets a secret; that there is none is fine.
    ///
    /// # Errors
    /// What the platform says, for people to read.
    fn delete(&self, user: &str) -> Result<(), String>;
}

/// The operating system's keyring. Its calls block: they may wait for the user to unlock it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsKeyring;

impl OsKeyring {
    fn entry(user: &str) -> Result<keyring::Entry, String> {
        if let Err(error) = keyring::Entry::store_status() {
            return Err(error.to_string());
        }
        keyring::Entry::new(SERVICE, user).map_err(|error| error.to_string())
    }
}

impl Keyring for OsKeyring {
    fn get(&self, user: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        match Self::entry(user)?.get_secret() {
            Ok(secret) => Ok(Some(Zeroizing::new(secret))),
            Err(keyring::Error::NoEntry) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn set(&self, user: &str, secret: &[u8]) -> Result<(), String> {
        Self::entry(user)?.set_secret(secret).map_err(|error| error.to_string())
    }

    fn delete(&self, user: &str) -> Result<(), String> {
        match Self::entry(user)?.delete_credential() {
            Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The place where one login's tokens are kept. Changes happen under [`Home::lock`].
#[derive(Clone)]
pub struct TokenStore {
    home: Home,
    kind: StorageKind,
    user: String,
    keyring: Arc<dyn Keyring>,
}

impl TokenStore {
    /// The store for a login to `server`.
    pub fn new(home: Home, kind: StorageKind, server: &str, keyring: Arc<dyn Keyring>) -> Self {
        let user = format!("{server} {}", home.tag());
        let keyring = match kind {
            StorageKind::Keyutils => Arc::new(KernelKeyring),
            StorageKind::Keyring | StorageKind::File => keyring,
        };
        Self { home, kind, user, keyring }
    }

    /// How tokens are kept here.
    pub fn kind(&self) -> StorageKind {
        self.kind
    }

    /// Finds out whether tokens can be kept here at all, before anybody logs in for nothing.
    ///
    /// # Errors
    /// [`CredentialError::NoKeyring`].
    pub async fn check(&self) -> Result<(), CredentialError> {
        self.blocking(|store| match store.kind {
            StorageKind::Keyring | StorageKind::Keyutils => store.sealing_key(true).map(drop),
            StorageKind::File => Ok(()),
        })
        .await
    }

    /// The tokens; `None` when there are none.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn load(&self) -> Result<Option<Tokens>, CredentialError> {
        self.blocking(Self::load_blocking).await
    }

    /// Replaces the tokens. When this returns, they are on disk.
    ///
    /// # Errors
    /// [`CredentialError`]; the old tokens then still stand.
    pub async fn save(&self, tokens: Tokens) -> Result<(), CredentialError> {
        self.blocking(move |store| store.save_blocking(&tokens)).await
    }

    /// Removes the tokens and the key that sealed them.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn clear(&self) -> Result<(), CredentialError> {
        self.blocking(|store| {
            // The file first: without it the key opens nothing.
            private_file::sweep(&store.home.file(FILE)).map_err(HomeError::from)?;
            private_file::remove(&store.home.file(FILE)).map_err(HomeError::from)?;
            match store.kind {
                StorageKind::Keyring | StorageKind::Keyutils => {
                    store.keyring.delete(&store.user).map_err(no_keyring)
                }
                StorageKind::File => Ok(()),
            }
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, CredentialError> + Send + 'static,
    ) -> Result<T, CredentialError> {
        let store = self.clone();
        let interrupted = CredentialError::Unreadable { why: "interrupted" };
        tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or(Err(interrupted))
    }

    fn load_blocking(&self) -> Result<Option<Tokens>, CredentialError> {
        let Some(file) = self.home.read_json::<StoredFile>(FILE)? else {
            return Ok(None);
        };
        if file.version != VERSION {
            return Err(CredentialError::Unreadable { why: "written by another version of mcpx" });
        }
        let stored: Stored = match (self.kind, file.sealed, file.tokens) {
            (StorageKind::File, None, Some(stored)) => stored,
            (StorageKind::Keyring | StorageKind::Keyutils, Some(sealed), None) => {
                let plain = self.open(&sealed)?;
                serde_json::from_slice(&plain)
                    .map_err(|_| CredentialError::Unreadable { why: "damaged" })?
            }
            _ => return Err(CredentialError::Unreadable { why: "kept in another way" }),
        };
        Ok(Some(stored.into()))
    }

    fn save_blocking(&self, tokens: &Tokens) -> Result<(), CredentialError> {
        let stored = StoredRef::from(tokens);
        let file = match self.kind {
            StorageKind::File => serde_json::to_vec(&FileRef {
                version: VERSION,
                sealed: None,
                tokens: Some(&stored),
            }),
            StorageKind::Keyring | StorageKind::Keyutils => {
                let mut plain = serde_json::to_vec(&stored).map_err(damaged)?;
                let sealed = self.seal(&mut plain)?;
                serde_json::to_vec(&FileRef {
                    version: VERSION,
                    sealed: Some(&sealed),
                    tokens: None,
                })
            }
        };
        let file = Zeroizing::new(file.map_err(damaged)?);
        // Under the lock nobody else writes: what is there was left by a process that died.
        private_file::sweep(&self.home.file(FILE)).map_err(HomeError::from)?;
        private_file::write(&self.home.file(FILE), &file).map_err(HomeError::from)?;
        Ok(())
    }

    /// Encrypts in place and gives nonce and ciphertext as base64. The user name is bound in, so
    /// that a file moved to another home or server does not open there.
    fn seal(&self, plain: &mut Vec<u8>) -> Result<String, CredentialError> {
        let key = self.sealing_key(true)?;
        let nonce = key
            .seal_in_place_append_tag(Aad::from(self.user.as_bytes()), plain)
            .map_err(|_| RandomError)?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.extend_from_slice(plain);
        plain.zeroize();
        Ok(STANDARD.encode(sealed))
    }

    fn open(&self, sealed: &str) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let damaged = CredentialError::Unreadable { why: "damaged" };
        let Ok(bytes) = STANDARD.decode(sealed) else {
            return Err(damaged);
        };
        let Some((nonce, cipher)) = bytes.split_at_checked(NONCE_LEN) else {
            return Err(damaged);
        };
        let Ok(nonce) = Nonce::try_assume_unique_for_key(nonce) else {
            return Err(damaged);
        };
        let key = self.sealing_key(false)?;
        let mut plain = Zeroizing::new(cipher.to_vec());
        let length = key
            .open_in_place(nonce, Aad::from(self.user.as_bytes()), &mut plain)
            .map_err(|_| CredentialError::Unreadable { why: "sealed under another key" })?
            .len();
        plain.truncate(length);
        Ok(plain)
    }

    fn sealing_key(&self, make: bool) -> Result<RandomizedNonceKey, CredentialError> {
        let bytes = match self.keyring.get(&self.user).map_err(no_keyring)? {
            Some(bytes) if bytes.len() == KEY_LENGTH => bytes,
            _ if make => {
                let bytes = Zeroizing::new(random::<KEY_LENGTH>()?.to_vec());
                self.keyring.set(&self.user, &bytes).map_err(no_keyring)?;
                bytes
            }
            _ => {
                return Err(CredentialError::Unreadable { why: "the keyring has no key for them" });
            }
        };
        RandomizedNonceKey::new(&AES_256_GCM, &bytes)
            .map_err(|_| CredentialError::Unreadable { why: "the keyring's key is damaged" })
    }
}

fn no_keyring(why: String) -> CredentialError {
    CredentialError::NoKeyring { why }
}

fn damaged(_: serde_json::Error) -> CredentialError {
    CredentialError::Unreadable { why: "they do not serialise" }
}

#[derive(Deserialize)]
struct StoredFile {
    version: u32,
    #[serde(default)]
    sealed: Option<String>,
    #[serde(default)]
    tokens: Option<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    id_token: Secret,
    obtained: i64,
    expires: i64,
    refresh_token: Option<Secret>,
    identity: Identity,
}

#[derive(Serialize)]
struct FileRef<'a> {
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<&'a StoredRef<'a>>,
}

/// [`Secret`] does not serialise by design; this is the one place that writes tokens out.
#[derive(Serialize)]
struct StoredRef<'a> {
    id_token: &'a str,
    obtained: i64,
    expires: i64,
    refresh_token: Option<&'a str>,
    identity: &'a Identity,
}

impl<'a> From<&'a Tokens> for StoredRef<'a> {
    fn from(tokens: &'a Tokens) -> Self {
        Self {
            id_token: tokens.id_token.expose(),
            obtained: tokens.obtained,
            expires: tokens.expires,
            refresh_token: tokens.refresh_token.as_ref().map(Secret::expose),
            identity: &tokens.identity,
        }
    }
}

impl From<Stored> for Tokens {
    fn from(stored: Stored) -> Self {
        Self {
            id_token: stored.id_token,
            obtained: stored.obtained,
            expires: stored.expires,
            refresh_token: stored.refresh_token,
            identity: stored.identity,
        }
    }
}
