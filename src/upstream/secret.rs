//! Secrets of the server: where each comes from, how long one may be kept, and what makes one
//! unusable.
//!
//! A source either gives a secret that can be used or says, by the source's name and never by
//! anything of its content, why there is none. There is no empty secret. [`kept`] keeps what was
//! fetched for a stated time and no longer, fetches once for however many wait, and fetches anew
//! when an MCP server refuses what is kept. [`vault`], [`aws`] and [`azure`] are the places that
//! are asked over the network.

pub mod ask;
pub mod aws;
pub mod azure;
pub mod kept;
pub mod vault;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::aws::Aws;
use self::azure::Azure;
use self::kept::{Fetch, Fetched, Life};
use self::vault::Vault;
use crate::types::Secret;

/// The longest secret, in bytes: none that is sent in a header is longer.
const LONGEST: usize = 64 * 1024;

/// How long a secret that was read from a file is kept, unless configured.
const FILE: Duration = Duration::from_secs(1);
/// How long one that was fetched over the network is.
const REMOTE: Duration = Duration::from_secs(5 * 60);

/// A secret that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret {name} {why}")]
pub struct SecretError {
    /// The source, as the configuration names it.
    pub name: Arc<str>,
    /// Why not.
    pub why: Why,
}

/// Why a secret cannot be had. Holds our words and statuses, never what a server said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// There is nothing in it.
    #[error("is empty")]
    Empty,
    /// It has characters that no header may have.
    #[error("holds a control character, which no header may")]
    Control,
    /// It is longer than any secret.
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    /// It is no text.
    #[error("is not text")]
    NotText,
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// There is none of that name, or it has no such field.
    #[error("is not there: {0}")]
    Missing(String),
    /// Whoever keeps it does not answer, or not with it.
    #[error("cannot be fetched: {0}")]
    Unavailable(String),
    /// Whoever keeps it does not give it to this server.
    #[error("is refused: {0}")]
    Refused(String),
}

/// Where a secret lies.
#[derive(Clone)]
pub enum Place {
    /// In the server's environment, when it started.
    Fixed(Secret),
    /// In a file, without its trailing line break.
    File(PathBuf),
    /// In a field of a KV v2 secret of Vault or OpenBao.
    Vault(Arc<Vault>, vault::Address),
    /// In AWS Secrets Manager.
    Aws(Arc<Aws>, aws::Address),
    /// In an Azure Key Vault.
    Azure(Arc<Azure>, azure::Address),
}

/// A secret, by where it comes from.
#[derive(Clone)]
pub struct SecretSource {
    name: Arc<str>,
    place: Place,
    cache: Option<Duration>,
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSource").field("name", &self.name).finish_non_exhaustive()
    }
}

impl SecretSource {
    /// A source, as the configuration names it.
    pub fn new(name: &str, place: Place) -> Self {
        let cache = match &place {
            Place::Fixed(_) => None,
            Place::File(_) => Some(FILE),
            Place::Vault(..) | Place::Aws(..) | Place::Azure(..) => Some(REMOTE),
        };
        Self { name: name.into(), place, cache }
    }

    /// The same, kept for another time. What was read at start is kept for ever all the same.
    #[must_use]
    pub fn kept_for(mut self, cache: Option<Duration>) -> Self {
        if self.cache.is_some() {
            self.cache = cache.or(self.cache);
        }
        self
    }

    /// What the configuration calls it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The bound on the age of what is used; none for what cannot change.
    pub fn cache(&self) -> Option<Duration> {
        self.cache
    }

    /// The file that it lies in.
    pub fn file(&self) -> Option<&Path> {
        match &self.place {
            Place::File(path) => Some(path),
            _ => None,
        }
    }

    /// Whether somebody has to be asked for it over the network.
    pub fn is_remote(&self) -> bool {
        matches!(self.place, Place::Vault(..) | Place::Aws(..) | Place::Azure(..))
    }

    /// The secret as it is now.
    ///
    /// # Errors
    /// [`SecretError`]: there is none, or none that can be used.
    pub async fn fetch(&self) -> Result<Secret, SecretError> {
        let fetched = match &self.place {
            Place::Fixed(secret) => Ok(secret.clone()),
            Place::File(path) => match tokio::fs::read(path).await {
                Ok(bytes) => text(bytes),
                Err(error) => Err(unreadable(&error)),
            },
            Place::Vault(vault, address) => vault.read(address).await,
            Place::Aws(aws, address) => aws.read(address).await,
            Place::Azure(azure, address) => azure.read(address).await,
        };
        fetched.and_then(usable).map_err(|why| self.error(why))
    }

    /// The secret as it is now, without waiting; of those that are asked for over the network,
    /// none.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read_now(&self) -> Result<Option<Secret>, SecretError> {
        let read = match &self.place {
            Place::Fixed(secret) => Ok(secret.clone()),
            Place::File(path) => {
                std::fs::read(path).map_err(|error| unreadable(&error)).and_then(text)
            }
            Place::Vault(..) | Place::Aws(..) | Place::Azure(..) => return Ok(None),
        };
        read.and_then(nonempty).map(Some).map_err(|why| self.error(why))
    }

    pub(super) fn error(&self, why: Why) -> SecretError {
        SecretError { name: Arc::clone(&self.name), why }
    }

    /// How long what is fetched now may be used.
    pub(super) fn life(&self) -> Life {
        self.cache.map_or(Life::FOREVER, Life::bounded)
    }
}

/// A source is fetched as it is: a text that others make requests of.
impl Fetch for SecretSource {
    type Value = Secret;
    type Error = SecretError;

    fn fetch(&self, _anew: bool) -> Fetched<'_, Self> {
        Box::pin(self.make())
    }

    fn same(one: &Secret, other: &Secret) -> bool {
        one.matches(other.expose())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl SecretSource {
    async fn make(&self) -> Result<(Secret, Life), SecretError> {
        Ok((self.fetch().await?, self.life()))
    }
}

fn unreadable(error: &std::io::Error) -> Why {
    match error.kind() {
        std::io::ErrorKind::NotFound => Why::Missing("there is no such file".to_owned()),
        kind => Why::Unreadable(kind.to_string()),
    }
}

/// What a file holds. One line break at its end belongs to the file, not to the secret.
fn text(bytes: Vec<u8>) -> Result<Secret, Why> {
    let mut text = String::from_utf8(bytes).map_err(|_| Why::NotText)?;
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(Secret::new(text))
}

fn nonempty(secret: Secret) -> Result<Secret, Why> {
    if secret.expose().trim().is_empty() { Err(Why::Empty) } else { Ok(secret) }
}

/// A secret that can stand in a header, or why not.
fn usable(secret: Secret) -> Result<Secret, Why> {
    let secret = nonempty(secret)?;
    if secret.expose().len() > LONGEST {
        return Err(Why::TooLong);
    }
    if secret.expose().chars().any(char::is_control) {
        return Err(Why::Control);
    }
    Ok(secret)
}

/// A text, or the one text field of a JSON object that a `#field` names.
fn field(text: &str, field: Option<&str>) -> Result<Secret, Why> {
    let Some(field) = field else { return Ok(Secret::new(text)) };
    let object: std::collections::BTreeMap<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|_| Why::Missing("it is no JSON object, so it has no fields".to_owned()))?;
    of_object(&object, field)
}

fn of_object(
    object: &std::collections::BTreeMap<String, serde_json::Value>,
    field: &str,
) -> Result<Secret, Why> {
    match object.get(field) {
        Some(serde_json::Value::String(text)) => Ok(Secret::new(text.clone())),
        Some(_) => Err(Why::NotText),
        None => Err(Why::Missing("it has no such field".to_owned())),
    }
}

#[cfg(test)]
mod tests;
