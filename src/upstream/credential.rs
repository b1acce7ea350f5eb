//! The credential that the gateway adds to a call: the secret that never reaches a laptop.

use std::path::PathBuf;

use reqwest::header::{HeaderName, HeaderValue};

use crate::types::Secret;

/// Where a secret comes from.
#[derive(Clone)]
pub enum SecretSource {
    /// A value that was in the server's environment when it started.
    Fixed(Secret),
    /// A file, read at each use, so that rotating it needs no restart. Trailing newlines are
    /// dropped.
    File(PathBuf),
}

impl std::fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(_) => f.write_str("Fixed(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

/// A secret that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The secret holds bytes that no HTTP header may.
    #[error("the secret for header {header:?} holds characters that no header may")]
    NotAHeader {
        /// The header.
        header: String,
    },
}

impl SecretSource {
    /// The secret as it is now.
    ///
    /// # Errors
    /// [`CredentialError::Unreadable`], naming the file.
    pub async fn read(&self) -> Result<Secret, CredentialError> {
        match self {
            Self::Fixed(secret) => Ok(secret.clone()),
            Self::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => Ok(Secret::new(text.trim_end_matches(['\n', '\r']))),
                Err(source) => {
                    Err(CredentialError::Unreadable { path: path.display().to_string(), source })
                }
            },
        }
    }
}

/// A header that carries a secret.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The header's name.
    pub header: HeaderName,
    /// What stands before the secret, such as `Bearer `.
    pub prefix: String,
    /// Where the secret comes from.
    pub from: SecretSource,
}

impl Credential {
    /// The header's value as it is now, marked sensitive so that nothing prints it.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub async fn value(&self) -> Result<HeaderValue, CredentialError> {
        let secret = self.from.read().await?;
        let text = format!("{}{}", self.prefix, secret.expose());
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| CredentialError::NotAHeader { header: self.header.to_string() })?;
        value.set_sensitive(true);
        Ok(value)
    }
}
