//! A job's own token in place of a login: nothing is stored, and what can be read again is read
//! again for every exchange.
//!
//! | file | owns |
//! |---|---|
//! | [`mod@find`] | which token a job has, by its environment |
//! | [`ask`] | tokens that have to be asked for: GitHub Actions, Entra ID |
//!
//! GitHub is asked for a fresh token each time, a file is read each time (Kubernetes and SPIFFE
//! write it anew before it expires), and a variable is what it is. No token is ever part of an
//! error.

use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::grant::{IdentitySource, TokenKind};
use super::login::LoginError;
use crate::identity::dpop::DpopKey;
use crate::identity::fetch::FetchError;
use crate::identity::key::KeyError;
use crate::types::Secret;

pub use self::find::{Kind, Looked, Wanted, find};

mod ask;
mod find;

/// Larger than any token.
const MAX_TOKEN: u64 = 32 * 1024;

/// Where a job's token comes from.
#[derive(Clone)]
pub enum Source {
    /// GitHub's endpoint for the job.
    GitHub {
        /// Where to ask.
        url: url::Url,
        /// What to ask with.
        token: Secret,
    },
    /// A variable of the environment.
    Variable {
        /// Its name.
        name: String,
        /// What it holds.
        token: Secret,
    },
    /// A file.
    File {
        /// The file.
        path: PathBuf,
    },
    /// Entra ID, which gives a token with our audience for one that Kubernetes gave.
    Azure {
        /// Entra's token endpoint.
        url: url::Url,
        /// The application that the job is there.
        client: String,
        /// The file with what Kubernetes gave.
        path: PathBuf,
    },
}

impl Source {
    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::GitHub { .. } => "GitHub Actions".to_owned(),
            Self::Variable { name, .. } => format!("the variable {name}"),
            Self::File { path } => format!("the file {}", path.display()),
            Self::Azure { .. } => "Azure workload identity".to_owned(),
        }
    }

    /// Whether several commands of one job show the same token.
    fn is_shared(&self) -> bool {
        matches!(self, Self::Variable { .. } | Self::File { .. })
    }
}

/// A job has no token to show.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// Nothing was found anywhere.
    #[error("no token of a job is found ({})", told(looked))]
    None {
        /// Where was looked, and why nothing was there.
        looked: Vec<Looked>,
    },
    /// What was asked for is not there.
    #[error("{from}: {why}")]
    Missing {
        /// Where was looked.
        from: String,
        /// What is missing.
        why: String,
    },
    /// The file cannot be read.
    #[error("{from}: {path} cannot be read")]
    Read {
        /// Whose file.
        from: String,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The URL would send a secret in the clear.
    #[error("{from}: {name} cannot be used")]
    Url {
        /// Whose URL.
        from: String,
        /// The variable that holds it.
        name: &'static str,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// Nobody answers; the same may work later.
    #[error("{from} does not answer at {host}")]
    Network {
        /// Who was asked.
        from: String,
        /// Where.
        host: String,
        /// What went wrong.
        #[source]
        source: FetchError,
    },
    /// The other side gave no token.
    #[error("{from} gives no token: {why}")]
    Refused {
        /// Who was asked.
        from: String,
        /// What it said.
        why: String,
    },
    /// What was found is no token.
    #[error("{from} holds no token: {why}")]
    NotToken {
        /// Where it was found.
        from: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl WorkloadError {
    /// Whether the same may work later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Network { .. })
    }
}

fn told(looked: &[Looked]) -> String {
    let told: Vec<_> = looked.iter().map(|one| format!("{}: {}", one.from, one.why)).collect();
    told.join("; ")
}

/// A job, as somebody who can prove who they are.
pub struct Workload {
    source: Source,
    audience: String,
    rule: Option<String>,
    key: Option<PathBuf>,
}

impl Workload {
    /// A job that asks for tokens with an audience, where it can ask, and shows them under a trust
    /// rule, where one is named. Commands of one job that show the same token share the key in
    /// `home`, as the server lets each token serve one key only.
    pub fn new(source: Source, audience: &str, rule: Option<String>, home: Option<&Path>) -> Self {
        let key = home.filter(|_| source.is_shared()).map(|home| home.join(KEY));
        Self { source, audience: audience.to_owned(), rule, key }
    }

    /// The job's token as it is now.
    ///
    /// # Errors
    /// [`WorkloadError`], naming where was looked and why that did not serve.
    pub async fn token(&self) -> Result<Secret, WorkloadError> {
        let token = match &self.source {
            Source::GitHub { url, token } => ask::github(url, token, &self.audience).await?,
            Source::Variable { token, .. } => token.clone(),
            Source::File { path } if find::is_for_the_api_server(path) => {
                let why = "it is the pod's token for the API server, which is shown to nobody else; \
                           mount a projected token with the server's URL as audience";
                return Err(WorkloadError::Missing {
                    from: self.source.name(),
                    why: why.to_owned(),
                });
            }
            Source::File { path } => read(&self.source.name(), path)?,
            Source::Azure { url, client, path } => {
                let shown = read(&self.source.name(), path)?;
                looks_like_one(&self.source, &shown)?;
                ask::azure(url, client, &shown, &self.audience).await?
            }
        };
        looks_like_one(&self.source, &token)?;
        Ok(token)
    }
}

/// The key that commands of one job share, beside what logins leave in a home.
const KEY: &str = "job.key";

impl IdentitySource for Workload {
    fn id_token(&self) -> BoxFuture<'_, Result<Secret, LoginError>> {
        Box::pin(async { Ok(self.token().await?) })
    }

    fn kind(&self) -> TokenKind {
        TokenKind::Job { rule: self.rule.clone() }
    }

    // Also where it is not shared: what falls back from a certificate to a key shows the token with
    // both, and the server lets it serve one.
    fn key(&self) -> Result<Option<DpopKey>, KeyError> {
        match &self.key {
            None => DpopKey::generate(),
            Some(path) => DpopKey::load_or_create(path),
        }
        .map(Some)
    }
}

/// Reads a token's file: whole, at every use, through whatever links lead to it.
fn read(from: &str, path: &Path) -> Result<Secret, WorkloadError> {
    use std::io::Read as _;
    let unreadable = |source| WorkloadError::Read {
        from: from.to_owned(),
        path: path.display().to_string(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(MAX_TOKEN + 1).read_to_string(&mut text).map_err(unreadable)?;
    let token = Secret::new(text.trim());
    // What stays behind in memory is wiped as well.
    drop(Secret::new(text));
    Ok(token)
}

/// Three parts of base64url, which is all that can be said here of a token.
fn looks_like_one(source: &Source, token: &Secret) -> Result<(), WorkloadError> {
    let not = |why| Err(WorkloadError::NotToken { from: source.name(), why });
    let text = token.expose();
    if text.is_empty() {
        return not("it is empty");
    }
    if text.len() as u64 > MAX_TOKEN {
        return not("it is over 32 KiB");
    }
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if text.split('.').count() != 3 || !text.split('.').all(plain) {
        return not("it is not a signed JWT");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
