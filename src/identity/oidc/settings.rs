//! Which issuers are trusted, and for what: the part of the configuration that is about issuers.

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Serialize};

use super::lookup::GroupLookupSettings;
use crate::identity::fetch::{self, FetchError};

/// A way to log in that an issuer offers the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginKind {
    /// Authorization code with PKCE, back to a port on loopback (RFC 8252).
    Browser,
    /// The device authorization grant (RFC 8628).
    Device,
}

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
    /// The claim that lists groups: a name, a path such as `realm_access.roles`, or a JSON pointer
    /// such as `/resource_access/mcpx/roles`.
    #[serde(default = "default_groups_claim")]
    pub groups_claim: String,
    /// Where groups are asked for that the issuer leaves out of its tokens, being too many.
    #[serde(default)]
    pub group_lookup: Option<GroupLookupSettings>,
    /// How the command line may log in; a browser needs [`Self::redirect_uri`] registered.
    #[serde(default = "default_logins")]
    pub logins: Vec<LoginKind>,
    /// Where the issuer sends a browser back to. Without a port the command line takes a free one.
    #[serde(default = "default_redirect_uri")]
    pub redirect_uri: String,
    /// The `resource` (RFC 8707) that the command line sends to the issuer; some refuse any.
    #[serde(default)]
    pub resource: Option<String>,
    /// The secret that some issuers demand of public clients. Everybody who asks the server is told
    /// it, so it is none.
    #[serde(default)]
    pub published_client_secret: Option<String>,
    /// Accepted signature algorithms.
    #[serde(default = "default_algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// Whether it signs tokens for jobs and services as well, whose owners choose their audience: then
    /// a person's identity token must bear the sign of a login, `auth_time` or `nonce`. Where a trust
    /// rule names the issuer, it does.
    #[serde(default)]
    pub signs_for_jobs: bool,
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

fn default_logins() -> Vec<LoginKind> {
    vec![LoginKind::Browser, LoginKind::Device]
}

fn default_redirect_uri() -> String {
    "http://127.0.0.1/callback".to_owned()
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
    /// A code sent there would leave the machine, or never arrive.
    #[error(
        "issuer {name}: redirect_uri must be http://127.0.0.1/PATH, with or without a port (or [::1], or localhost where the issuer takes nothing else)"
    )]
    RedirectUri {
        /// The issuer's name.
        name: String,
    },
    /// RFC 8707 wants an absolute URI without fragment.
    #[error("issuer {name}: resource must be an absolute URI without fragment")]
    Resource {
        /// The issuer's name.
        name: String,
    },
    /// Groups cannot be looked up there.
    #[error("issuer {name}: group_lookup.{key} cannot be used")]
    GroupLookup {
        /// The issuer's name.
        name: String,
        /// The setting.
        key: &'static str,
        /// Why.
        #[source]
        source: FetchError,
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
        if !is_loopback_redirect(&self.redirect_uri) {
            return Err(IssuerSettingsError::RedirectUri { name: name() });
        }
        let absolute = |uri: &String| {
            url::Url::parse(uri).is_ok_and(|url| url.fragment().is_none()) && !uri.contains('#')
        };
        if !self.resource.as_ref().is_none_or(absolute) {
            return Err(IssuerSettingsError::Resource { name: name() });
        }
        if let Some(lookup) = &self.group_lookup {
            for (key, url) in
                [("endpoint", &lookup.endpoint), ("token_endpoint", &lookup.token_endpoint)]
            {
                fetch::safe_url(url).map_err(|source| IssuerSettingsError::GroupLookup {
                    name: name(),
                    key,
                    source,
                })?;
            }
        }
        let empty = [
            ("name", self.name.is_empty()),
            ("client_id", self.client_id.is_empty()),
            ("algorithms", self.algorithms.is_empty()),
            ("audience", self.audience.iter().any(String::is_empty)),
            ("groups_claim", self.groups_claim.is_empty()),
            ("logins", self.logins.is_empty()),
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

/// Whether an authorization code may be sent to a URI: `http` to this machine's loopback (RFC 8252,
/// section 7.3), with a path that a stranger's request does not hit by chance, and nothing after it.
pub fn is_loopback_redirect(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|url| {
        url.scheme() == "http"
            && matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"))
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    })
}
