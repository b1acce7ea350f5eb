//! The shape of `mcpx.toml`, and how places in it are named. Unknown keys are errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use toml::Spanned;
use url::Url;

use super::ConfigError;
use super::connection::ConnectionTable;
use super::oauth::OAuthTable;
use super::saml::SamlTable;
use super::secrets::{AwsTable, AzureTable, VaultTable};
use super::trust::TrustTable;
use crate::control::issuer::LocalIssuerSettings;
use crate::identity::IssuerSettings;
use crate::identity::fetch::is_loopback;
use crate::mask;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) server: Server,
    #[serde(default)]
    pub(super) issuer: Vec<Spanned<IssuerSettings>>,
    pub(super) local_issuer: Option<LocalIssuerSettings>,
    pub(super) saml: Option<SamlTable>,
    #[serde(default)]
    pub(super) trust: BTreeMap<String, Spanned<TrustTable>>,
    #[serde(default)]
    pub(super) policy: Policy,
    pub(super) masking: Option<Spanned<mask::Rules>>,
    #[serde(default)]
    pub(super) grants: Grants,
    #[serde(default)]
    pub(super) approvals: Approvals,
    #[serde(default)]
    pub(super) roles: Roles,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) streams: Streams,
    pub(super) oauth: Option<Spanned<OAuthTable>>,
    #[serde(default)]
    pub(super) connection: Vec<Spanned<ConnectionTable>>,
    pub(super) vault: Option<Spanned<VaultTable>>,
    pub(super) aws: Option<Spanned<AwsTable>>,
    pub(super) azure: Option<Spanned<AzureTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: Spanned<SocketAddr>,
    pub(super) public_url: Option<Spanned<Url>>,
    pub(super) data_dir: PathBuf,
    pub(super) tls: Option<Tls>,
    #[serde(default)]
    pub(super) client_certificates_from: Vec<Spanned<String>>,
    pub(super) dpop_nonce: Option<Spanned<Span>>,
    #[serde(default = "drain")]
    pub(super) drain: Span,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    #[serde(default = "yes")]
    pub(super) client_certificates: bool,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) dir: PathBuf,
}

impl Default for Policy {
    fn default() -> Self {
        Self { dir: "policies".into() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Grants {
    pub(super) ttl: Spanned<Span>,
    pub(super) max: Span,
    pub(super) max_jit: Span,
}

impl Default for Grants {
    fn default() -> Self {
        let ttl = Spanned::new(0..0, Span::minutes(15));
        Self { ttl, max: Span::minutes(12 * 60), max_jit: Span::minutes(8 * 60) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Approvals {
    pub(super) wait: Span,
    pub(super) expire: Span,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { wait: Span::minutes(5), expire: Span::minutes(60) }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Roles {
    pub(super) auditors: Vec<String>,
    pub(super) operators: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) message_bytes: usize,
    pub(super) event_bytes: Option<usize>,
    pub(super) depth: usize,
    pub(super) upstream_first_byte: Span,
    pub(super) call_timeout: Span,
    pub(super) head_timeout: Span,
    pub(super) body_timeout: Span,
    pub(super) keep_alive: Span,
}

impl Default for Limits {
    fn default() -> Self {
        let limits = crate::mcp::Limits::default();
        Self {
            message_bytes: limits.bytes,
            event_bytes: None,
            depth: limits.depth,
            upstream_first_byte: Span::minutes(5),
            call_timeout: Span::minutes(60),
            head_timeout: Span(Duration::from_secs(90)),
            body_timeout: Span(Duration::from_secs(60)),
            keep_alive: Span(Duration::from_secs(15)),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Streams {
    pub(super) per_session: usize,
    pub(super) total: usize,
    pub(super) stalled: Span,
    pub(super) keep_events: usize,
    pub(super) keep_bytes: usize,
    pub(super) keep_for: Span,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            per_session: 1024,
            total: 16_384,
            stalled: Span::minutes(1),
            keep_events: 256,
            keep_bytes: 1024 * 1024,
            keep_for: Span::minutes(5),
        }
    }
}

fn drain() -> Span {
    Span(Duration::from_secs(10))
}

/// A span of time, written like `15m`, `1h 30m` or `90s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    const fn minutes(minutes: u64) -> Self {
        Self(Duration::from_secs(minutes * 60))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span: jiff::SignedDuration = text.parse().map_err(|_| {
            serde::de::Error::custom(format_args!(
                "{text:?} is no span of time; write it like \"15m\", \"90s\" or \"1h 30m\""
            ))
        })?;
        let span = Duration::try_from(span).ok().filter(|span| !span.is_zero());
        span.map(Self)
            .ok_or_else(|| serde::de::Error::custom("a span of time must be longer than nothing"))
    }
}

/// Names places in one file.
pub(super) struct Place<'a> {
    file: String,
    text: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn new(path: &Path, text: &'a str) -> Self {
        Self { file: path.display().to_string(), text }
    }

    /// A complaint about what begins at a byte of the file.
    pub(super) fn error(&self, at: usize, what: impl Into<String>) -> ConfigError {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        ConfigError::At { file: self.file.clone(), line, column, what: what.into() }
    }

    /// [`Self::error`] with an error and its causes.
    pub(super) fn error_chain(&self, at: usize, error: &dyn std::error::Error) -> ConfigError {
        let mut what = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            what.push_str(": ");
            what.push_str(&inner.to_string());
            source = inner.source();
        }
        self.error(at, what)
    }

    /// The public URL, without a slash at its end.
    pub(super) fn public_url(&self, url: &Spanned<Url>) -> Result<String, ConfigError> {
        let at = url.span().start;
        let url = url.get_ref();
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(url)) {
            return Err(self.error(at, "the public URL must be https, or http on loopback"));
        }
        if url.query().is_some() || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
            return Err(self.error(at, "the public URL must have no path, query or fragment"));
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}
