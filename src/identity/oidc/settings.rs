//! Which issuers are trusted, and for what: the part of the configuration that is about issuers.

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;

use crate::identity::fetch::{self, FetchError};

/// An issuer whose identity tokens are accepted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// What people call it.
    pub name: String,
    /// Its URL, exactly as in its tokens' `iss`.
    pub url: String,
    /// The public client that the command line is there.
    #[serde(default = "default_client_id")]
    pub client_id: String,
    /// Accepted audiences; empty means the client id.
    #[serde(default)]
    pub audience: Vec<String>,
    /// What the command line asks for, besides `openid`.
    #[serde(default = "default_scopes")]
    pub scopes: Vec<String>,
    /// The claim that lists groups: a name, or a path such as `realm_access.roles`.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// Accepted signature algorithms.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
}

fn default_client_id() -> String {
    "mcpx-cli".to_owned()
}

fn default_scopes() -> Vec<String> {
    ["openid", "profile", "email", "offline_access"].map(str::to_owned).to_vec()
}

fn default_groups_claim() -> String {
    "groups".to_owned()
}

fn default_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA]
}

/// An issuer that must not be configured like this.
#[derive(Debug, thiserror::Error)]
pub enum IssuerSettingsError {
    /// The URL is not safe to use.
    #[error("issuer {name}: the url cannot be used")]
    Url {
        /// The issuer's name.
        name: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// The URL cannot be compared with a token's `iss`.
    #[error("issuer {name}: the url must have no query and no fragment")]
    UrlParts {
        /// The issuer's name.
        name: String,
    },
    /// A symmetric algorithm would make every verifier a signer.
    #[error("issuer {name}: the algorithm {algorithm:?} is symmetric and cannot be accepted")]
    Symmetric {
        /// The issuer's name.
        name: String,
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// Nothing would ever be accepted, or anything.
    #[error("issuer {name}: {what} must not be empty")]
    Empty {
        /// The issuer's name.
        name: String,
        /// The setting.
        what: &'static str,
    },
    /// Two issuers would answer for one `iss`.
    #[error("the issuer {url} is configured twice")]
    Twice {
        /// The URL.
        url: String,
    },
}

impl IssuerSettings {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`IssuerSettingsError`] naming the issuer.
    pub fn check(&self) -> Result<(), IssuerSettingsError> {
        let name = || self.name.clone();
        let url = fetch::safe_url(&self.url)
            .map_err(|source| IssuerSettingsError::Url { name: name(), source })?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(IssuerSettingsError::UrlParts { name: name() });
        }
        let symmetric = |a: &&Algorithm| a.family() == AlgorithmFamily::Hmac;
        if let Some(&algorithm) = self.algorithms.iter().find(symmetric) {
            return Err(IssuerSettingsError::Symmetric { name: name(), algorithm });
        }
        let empty = [
            ("name", self.name.is_empty()),
            ("client_id", self.client_id.is_empty()),
            ("algorithms", self.algorithms.is_empty()),
            ("audience", self.audience.iter().any(String::is_empty)),
            ("groups_claim", self.groups_claim.is_empty()),
        ];
        match empty.into_iter().find(|(_, empty)| *empty) {
            Some((what, _)) => Err(IssuerSettingsError::Empty { name: name(), what }),
            None => Ok(()),
        }
    }

    pub(super) fn accepts(&self, audience: &str) -> bool {
        if self.audience.is_empty() {
            audience == self.client_id
        } else {
            self.audience.iter().any(|accepted| accepted == audience)
        }
    }
}
