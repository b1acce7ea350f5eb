//! `mcpx.toml` and the environment, checked, as settings.
//!
//! Reads files and environment variables and changes nothing. Every complaint names the file, and
//! line and column where there are any. What is written here reaches the rest of the program only
//! as the settings types of the modules concerned.

mod connection;
mod credential;
mod file;
mod masking;
mod oauth;
mod possession;
mod saml;
mod secrets;
mod trust;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::connection::{ConnectionSettings, Reach};
use self::file::{File, Place};
pub use self::masking::Masking;
pub use self::trust::Trust;
use crate::control::issuer::LocalIssuerSettings;
use crate::control::issuer::saml::SamlSettings;
use crate::identity::IssuerSettings;
use crate::identity::trust::Rule;
use crate::policy::{PolicyError, PolicySet, Source};
use crate::types::{hex, sha256};
use crate::{control, gateway, mask, mcp, upstream};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{file}:{line}:{column}: {what}")]
    At {
        /// The file.
        file: String,
        /// 1-based line.
        line: usize,
        /// 1-based column, in characters.
        column: usize,
        /// What is wrong there.
        what: String,
    },
    /// A policy file is wrong.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// Certificate and key for TLS, both PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whether clients are asked for a certificate, to bind tokens to.
    pub client_certificates: bool,
}

/// A checked configuration.
pub struct Settings {
    /// The file it came from.
    pub file: PathBuf,
    /// SHA-256 of that file, in hexadecimal.
    pub hash: String,
    /// Where to listen.
    pub listen: SocketAddr,
    /// How clients reach the server; by default the address that it listens on.
    pub public_url: Option<String>,
    /// Where state and log are kept.
    pub data_dir: PathBuf,
    /// TLS, without which only loopback is listened on.
    pub tls: Option<TlsFiles>,
    /// How the holder of a token proves it.
    pub possession: crate::identity::possession::Settings,
    /// The trusted issuers.
    pub issuers: Vec<IssuerSettings>,
    /// Whose jobs come in with their own token.
    pub trust: Vec<Rule>,
    /// The built-in issuer.
    pub local_issuer: Option<LocalIssuerSettings>,
    /// People who log in at a SAML identity provider.
    pub saml: Option<SamlSettings>,
    /// The folder with policies.
    pub policy_dir: PathBuf,
    /// The policies, parsed.
    pub policies: PolicySet,
    /// What is masked.
    pub masker: std::sync::Arc<mask::Masker>,
    /// Grants and roles.
    pub control: control::Settings,
    /// How long a request for approval stays open.
    pub approval_expire: Duration,
    /// The data path.
    pub gateway: gateway::Settings,
    /// MCP's own OAuth, if it is on.
    pub oauth: Option<gateway::oauth::Settings>,
    /// How long a request's head may be on its way.
    pub head_timeout: Duration,
    /// Bounds on upstreams.
    pub upstream: upstream::Bounds,
    /// The registered MCP servers.
    pub connections: Vec<ConnectionSettings>,
}

impl Settings {
    /// Reads and checks a configuration file and everything that it names.
    ///
    /// # Errors
    /// [`ConfigError`], naming the place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let place = Place::new(path, &text);
        let file: File = toml::from_str(&text).map_err(|error| {
            place.error(error.span().map_or(0, |span| span.start), error.message())
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let in_base = |relative: &Path| base.join(relative);

        let tls = file.server.tls.as_ref().map(|tls| TlsFiles {
            certificate: in_base(&tls.certificate),
            key: in_base(&tls.key),
            client_certificates: tls.client_certificates,
        });
        let possession = possession::check(&file.server, &place)?;
        let listen = *file.server.listen.get_ref();
        if tls.is_none() && !listen.ip().is_loopback() {
            let what = "plain HTTP is served on loopback only; add [server.tls] with certificate \
                        and key";
            return Err(place.error(file.server.listen.span().start, what));
        }
        let public_url =
            file.server.public_url.as_ref().map(|url| place.public_url(url)).transpose()?;
        let saml_key = file.saml.as_ref().and_then(|saml| saml.key()).map(in_base);
        let saml = file.saml.map(|table| saml::check(table, base, &place)).transpose()?;
        if file.issuer.is_empty() && file.local_issuer.is_none() && saml.is_none() {
            let what = "at least one [[issuer]], [saml], or [local_issuer] with users, is needed";
            return Err(place.error(0, what));
        }
        let mut issuers = Vec::new();
        for issuer in file.issuer {
            let at = issuer.span().start;
            let mut issuer = issuer.into_inner();
            if let Some(lookup) = &mut issuer.group_lookup {
                lookup.client_secret_file = in_base(&lookup.client_secret_file);
                // Read when it is needed; one that is not there now is a mistake to be told of now.
                read(&lookup.client_secret_file)?;
            }
            issuer.check().map_err(|error| place.error_chain(at, &error))?;
            issuers.push(issuer);
        }
        let trust = trust::check(file.trust, base, &place)?;
        for issuer in &mut issuers {
            issuer.signs_for_jobs |= trust.iter().any(|rule| rule.issuer == issuer.url);
        }
        let masking_at = file.masking.as_ref().map_or(0, |rules| rules.span().start);
        let rules = file.masking.map(toml::Spanned::into_inner).unwrap_or_default();
        let masker =
            mask::Masker::new(&rules).map_err(|error| place.error_chain(masking_at, &error))?;

        let (ttl_at, grant_ttl) = (file.grants.ttl.span().start, file.grants.ttl.get_ref().0);
        if grant_ttl > LONGEST_TTL {
            return Err(place.error(ttl_at, "a grant token lives for at most \"15m\""));
        }

        let policy_dir = in_base(&file.policy.dir);
        let policies = PolicySet::parse(&policy_sources(&policy_dir)?)?;
        let limits =
            mcp::Limits { bytes: file.limits.message_bytes, depth: file.limits.depth.min(127) };
        let bounds = upstream::Bounds {
            message_bytes: limits.bytes,
            event_bytes: file.limits.event_bytes.unwrap_or(limits.bytes + EVENT_FIELDS),
            first_byte: file.limits.upstream_first_byte.0,
        };
        // What no sandboxed child may read, by its real path.
        let mut secret = vec![connection::real(&in_base(&file.server.data_dir))];
        secret.push(connection::real(path));
        secret.extend(tls.as_ref().map(|tls| connection::real(&tls.key)));
        secret.extend(saml_key.as_deref().map(connection::real));
        let oauth = oauth::check(file.oauth, &issuers, &file.connection, &place)?;
        let lookups = issuers.iter().filter_map(|issuer| issuer.group_lookup.as_ref());
        secret.extend(lookups.map(|lookup| connection::real(&lookup.client_secret_file)));
        let sources = secrets::Sources::new(base, &place, file.vault, file.aws, file.azure)?;
        let known = issuers.len() + usize::from(file.local_issuer.is_some() || saml.is_some());
        let connections = connection::check(file.connection, base, &secret, &sources, known)?;
        Ok(Self {
            file: path.to_owned(),
            hash: hex(&sha256(text.as_bytes())),
            listen,
            public_url,
            data_dir: in_base(&file.server.data_dir),
            tls,
            possession,
            issuers,
            trust,
            local_issuer: file.local_issuer,
            saml,
            policy_dir,
            policies,
            masker: std::sync::Arc::new(masker),
            control: control::Settings {
                grant_ttl,
                grant_max: file.grants.max.0,
                grant_max_jit: file.grants.max_jit.0,
                auditors: file.roles.auditors,
                operators: file.roles.operators,
            },
            approval_expire: file.approvals.expire.0,
            gateway: gateway::Settings {
                limits,
                approval_wait: file.approvals.wait.0,
                keep_alive: file.limits.keep_alive.0,
                drain: file.server.drain.0,
                call_timeout: file.limits.call_timeout.0,
                body_timeout: file.limits.body_timeout.0,
                streams: gateway::Streams {
                    per_session: file.streams.per_session,
                    total: file.streams.total,
                    stalled: file.streams.stalled.0,
                    keeping: gateway::shelf::Keeping {
                        events: file.streams.keep_events,
                        bytes: file.streams.keep_bytes,
                        time: file.streams.keep_for.0,
                    },
                },
            },
            oauth,
            head_timeout: file.limits.head_timeout.0,
            upstream: bounds,
            connections,
        })
    }
}

/// A grant token's longest life: for so long somebody can go on whom the issuer knows no more.
const LONGEST_TTL: Duration = Duration::from_secs(15 * 60);

/// What an event may have besides the longest message, unless configured.
const EVENT_FIELDS: usize = 64 * 1024;

/// The policy files of a folder, by name: every `*.cedar` in it.
///
/// # Errors
/// [`ConfigError::Read`] for a folder or file that cannot be read.
pub fn policy_sources(dir: &Path) -> Result<Vec<Source>, ConfigError> {
    let unreadable = |source| ConfigError::Read { path: dir.display().to_string(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "cedar") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(Source { name, text: read(path)? })
        })
        .collect()
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests;
