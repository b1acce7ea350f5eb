//! The directory that holds a user's login state.
//!
//! | file | holds |
//! |---|---|
//! | `login.json` | which server and issuer; nothing secret |
//! | `tokens` | the tokens, sealed or plain as `login.json` says |
//! | `issuer.json` | the issuer's last good metadata and keys; nothing secret |
//! | `login.lock` | held while the tokens change |

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::identity::private_file::{self, PrivateFileError};
use crate::types::{hex, sha256};

/// How long another process may hold the lock: longer than its requests may take together.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The login state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file is not private or cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// A file holds something else.
    #[error("{path} is damaged; run: mcpx logout, then mcpx login")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The lock could not be had.
    #[error("cannot lock {path}")]
    Lock {
        /// The lock file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process has held the lock for longer than any request takes.
    #[error("another mcpx has held {path} for {} s; end it and try again", LOCK_PATIENCE.as_secs())]
    LockHeld {
        /// The lock file.
        path: String,
    },
    /// The runtime is shutting down.
    #[error("interrupted while waiting for {path}")]
    Interrupted {
        /// The lock file.
        path: String,
    },
}

/// A user's directory, mode 0700. Which one is the caller's choice (`MCPX_HOME`, or the platform's
/// place for settings).
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

/// The lock on a home's tokens; dropping it lets the next process in.
#[derive(Debug)]
pub struct HomeLock {
    /// Held only for its lock.
    _file: File,
}

impl Home {
    /// Opens a home and makes the directory if there is none.
    ///
    /// # Errors
    /// [`HomeError::File`] when the directory cannot be made or is open to others.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, HomeError> {
        let path = path.into();
        private_file::directory(&path)?;
        Ok(Self { path: path.canonicalize().unwrap_or(path) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A short name for this directory, for keyring entries: two homes never share one.
    pub fn tag(&self) -> String {
        let [a, b, c, d, e, f, g, h, ..] = sha256(self.path.as_os_str().as_encoded_bytes());
        hex(&[a, b, c, d, e, f, g, h])
    }

    /// Reads a JSON file; `None` when there is none.
    ///
    /// # Errors
    /// [`HomeError::File`] or [`HomeError::Damaged`].
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, HomeError> {
        let path = self.file(name);
        let Some(bytes) = private_file::read(&path)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| HomeError::Damaged { path: path.display().to_string(), source })
    }

    /// Replaces a JSON file, durably.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), HomeError> {
        let path = self.file(name);
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| HomeError::Damaged { path: path.display().to_string(), source })?;
        Ok(private_file::write(&path, &bytes)?)
    }

    /// Waits for the lock that says who may change the tokens. It also excludes other handles in
    /// this process, and goes away with the process however that ends.
    ///
    /// # Errors
    /// [`HomeError::LockHeld`] after a patience that no honest holder needs.
    pub async fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.file("login.lock");
        let name = path.display().to_string();
        // Bounded by LOCK_PATIENCE, because a runtime waits for its blocking tasks when it ends.
        let waiting = tokio::task::spawn_blocking(move || lock_file(&path));
        waiting.await.unwrap_or(Err(HomeError::Interrupted { path: name }))
    }
}

fn lock_file(path: &Path) -> Result<HomeLock, HomeError> {
    let name = || path.display().to_string();
    let failed = |source| HomeError::Lock { path: name(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(failed)?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(HomeLock { _file: file }),
            Err(TryLockError::WouldBlock) if waited < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
                waited += LOCK_PAUSE;
            }
            Err(TryLockError::WouldBlock) => return Err(HomeError::LockHeld { path: name() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}
