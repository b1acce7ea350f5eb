//! `[vault]`, `[aws]`, `[azure]` and what is written as `env:…`, `file:…`, `vault:…`: where secrets
//! come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use toml::Spanned;
use url::Url;

use super::ConfigError;
use super::file::Place;
use crate::identity::fetch::is_loopback;
use crate::types::Secret;
use crate::upstream::secret::aws::{Aws, Keys};
use crate::upstream::secret::azure::Azure;
use crate::upstream::secret::kept::Kept;
use crate::upstream::secret::vault::{Auth, Vault};
use crate::upstream::secret::{self, SecretSource, ask};
use crate::upstream::token::{ClientAuth, TokenEndpoint};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultTable {
    address: Spanned<Url>,
    namespace: Option<Spanned<String>>,
    ca: Option<Spanned<PathBuf>>,
    jwt: Option<JwtTable>,
    approle: Option<AppRoleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JwtTable {
    #[serde(default = "jwt")]
    mount: String,
    role: String,
    token: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppRoleTable {
    #[serde(default = "approle")]
    mount: String,
    role_id: String,
    secret_id: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AwsTable {
    region: Spanned<String>,
    endpoint: Option<Spanned<Url>>,
    access_key_id: Spanned<String>,
    secret_access_key: Spanned<String>,
    session_token: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureTable {
    vault: Spanned<Url>,
    tenant: Spanned<String>,
    client_id: String,
    client_secret: Option<Spanned<String>>,
    client_assertion: Option<Spanned<String>>,
    authority: Option<Spanned<Url>>,
}

fn jwt() -> String {
    "jwt".to_owned()
}

fn approle() -> String {
    "approle".to_owned()
}

/// Where secrets may come from.
pub(super) struct Sources<'a> {
    base: &'a Path,
    place: &'a Place<'a>,
    vault: Option<Arc<Vault>>,
    aws: Option<Arc<Aws>>,
    azure: Option<Arc<Azure>>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(
        base: &'a Path,
        place: &'a Place<'a>,
        vault: Option<Spanned<VaultTable>>,
        aws: Option<Spanned<AwsTable>>,
        azure: Option<Spanned<AzureTable>>,
    ) -> Result<Self, ConfigError> {
        let mut sources = Self { base, place, vault: None, aws: None, azure: None };
        // What these need themselves comes from here, not from one another.
        sources.vault = vault.map(|table| sources.vault(&table)).transpose()?;
        let vault = sources.vault.take();
        sources.aws = aws.map(|table| sources.aws(&table)).transpose()?;
        let aws = sources.aws.take();
        sources.azure = azure.map(|table| sources.azure(&table)).transpose()?;
        Ok(Self { vault, aws, ..sources })
    }

    pub(super) fn place(&self) -> &Place<'a> {
        self.place
    }

    /// The source that a text names. What is on this machine is looked at now, so that a mistake
    /// is told of at the start; nobody is asked over the network.
    pub(super) fn source(&self, text: &Spanned<String>) -> Result<SecretSource, ConfigError> {
        let at = text.span().start;
        let text = text.get_ref();
        let wrong = |what: String| self.place.error(at, what);
        let missing = |table: &str| {
            wrong(format!("{text:?} needs a table [{table}] that says where that is"))
        };
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let place = match scheme {
            "env" => {
                #[expect(clippy::disallowed_methods, reason = "config reads the environment")]
                let value = std::env::var(rest).map_err(|_| {
                    wrong(format!("the environment variable {rest} is not set, or not text"))
                })?;
                secret::Place::Fixed(Secret::new(value))
            }
            "file" => secret::Place::File(self.base.join(rest)),
            "credential" => secret::Place::File(self.credential(rest).map_err(wrong)?),
            "vault" => {
                let address = rest.parse().map_err(|what: &str| wrong(what.to_owned()))?;
                let vault = self.vault.as_ref().ok_or_else(|| missing("vault"))?;
                secret::Place::Vault(Arc::clone(vault), address)
            }
            "aws" => {
                let address = rest.parse().map_err(|what: &str| wrong(what.to_owned()))?;
                let aws = self.aws.as_ref().ok_or_else(|| missing("aws"))?;
                secret::Place::Aws(Arc::clone(aws), address)
            }
            "azure" => {
                let address = rest.parse().map_err(|what: &str| wrong(what.to_owned()))?;
                let azure = self.azure.as_ref().ok_or_else(|| missing("azure"))?;
                secret::Place::Azure(Arc::clone(azure), address)
            }
            _ => {
                let what = "a secret comes from \"env:NAME\", \"file:PATH\", \
                            \"credential:NAME\", \"vault:MOUNT/PATH#FIELD\", \"aws:ID\" or \
                            \"azure:NAME\"";
                return Err(wrong(what.to_owned()));
            }
        };
        let source = SecretSource::new(text, place);
        source.read_now().map_err(|error| wrong(error.to_string()))?;
        Ok(source)
    }

    /// A source that is on this machine.
    fn local(&self, text: &Spanned<String>) -> Result<SecretSource, ConfigError> {
        let source = self.source(text)?;
        if source.is_remote() {
            let what = "this is needed to reach that very place, so it cannot come from there";
            return Err(self.place.error(text.span().start, what));
        }
        Ok(source)
    }

    /// A file that systemd's `LoadCredential=` and its kin put there for this service alone.
    fn credential(&self, name: &str) -> Result<PathBuf, String> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err("a credential of systemd is a plain name".to_owned());
        }
        #[expect(clippy::disallowed_methods, reason = "config reads the environment")]
        let directory = std::env::var("CREDENTIALS_DIRECTORY").map_err(|_| {
            "CREDENTIALS_DIRECTORY is not set; systemd sets it for a service with \
             LoadCredential= or LoadCredentialEncrypted="
                .to_owned()
        })?;
        Ok(Path::new(&directory).join(name))
    }

    /// A URL to which secrets are sent.
    pub(super) fn safe(&self, url: &Spanned<Url>, what: &str) -> Result<Url, ConfigError> {
        let at = url.span().start;
        let url = url.get_ref();
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(url)) {
            return Err(self.place.error(at, format!("{what} must be https, or http on loopback")));
        }
        if url.host().is_none() || !url.username().is_empty() || url.password().is_some() {
            return Err(self.place.error(at, format!("{what} must be a URL without a password")));
        }
        Ok(url.clone())
    }

    /// A client for such URLs.
    pub(super) fn http(
        &self,
        ca: Option<&Spanned<PathBuf>>,
    ) -> Result<reqwest::Client, ConfigError> {
        let at = ca.map_or(0, |ca| ca.span().start);
        let pem = match ca {
            Some(ca) => Some(super::read(&self.base.join(ca.get_ref()))?),
            None => None,
        };
        ask::client(pem.as_deref().map(str::as_bytes))
            .map_err(|error| self.place.error_chain(at, &error))
    }

    fn vault(&self, table: &Spanned<VaultTable>) -> Result<Arc<Vault>, ConfigError> {
        let at = table.span().start;
        let table = table.get_ref();
        let address = self.safe(&table.address, "the vault's address")?;
        let namespace = match &table.namespace {
            None => None,
            Some(name) => Some(HeaderValue::from_str(name.get_ref()).map_err(|_| {
                self.place.error(name.span().start, "a namespace has no such characters")
            })?),
        };
        let auth = match (&table.jwt, &table.approle) {
            (Some(jwt), None) => Auth::Jwt {
                mount: jwt.mount.clone(),
                role: jwt.role.clone(),
                token: self.local(&jwt.token)?,
            },
            (None, Some(role)) => Auth::AppRole {
                mount: role.mount.clone(),
                role_id: role.role_id.clone(),
                secret_id: self.local(&role.secret_id)?,
            },
            _ => {
                let what = "the vault needs either [vault.jwt] or [vault.approle], to log in";
                return Err(self.place.error(at, what));
            }
        };
        let http = self.http(table.ca.as_ref())?;
        Ok(Arc::new(Vault::new(address, namespace, http, auth)))
    }

    fn aws(&self, table: &Spanned<AwsTable>) -> Result<Arc<Aws>, ConfigError> {
        let table = table.get_ref();
        let region = table.region.get_ref();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if region.is_empty() || !region.bytes().all(plain) {
            let what = format!("{region:?} is no region, such as \"eu-central-1\"");
            return Err(self.place.error(table.region.span().start, what));
        }
        let endpoint = match &table.endpoint {
            Some(given) => self.safe(given, "the endpoint")?,
            None => {
                let suffix =
                    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                let url = format!("https://secretsmanager.{region}.{suffix}/");
                let at = table.region.span().start;
                url.parse()
                    .map_err(|error| self.place.error_chain(at, &error as &url::ParseError))?
            }
        };
        let kept = |text| Ok::<_, ConfigError>(Kept::new(self.local(text)?));
        let keys = Keys {
            id: kept(&table.access_key_id)?,
            secret: kept(&table.secret_access_key)?,
            session: table.session_token.as_ref().map(kept).transpose()?,
        };
        Ok(Arc::new(Aws::new(region.clone(), endpoint, keys, self.http(None)?)))
    }

    fn azure(&self, table: &Spanned<AzureTable>) -> Result<Arc<Azure>, ConfigError> {
        let at = table.span().start;
        let table = table.get_ref();
        let vault = self.safe(&table.vault, "the Key Vault's URL")?;
        let authority = match &table.authority {
            Some(given) => self.safe(given, "the authority")?,
            None => Url::parse("https://login.microsoftonline.com/")
                .map_err(|error| self.place.error_chain(at, &error))?,
        };
        let mut endpoint = authority;
        if let Ok(mut segments) = endpoint.path_segments_mut() {
            segments.pop_if_empty().extend([table.tenant.get_ref(), "oauth2", "v2.0", "token"]);
        }
        let auth = match (&table.client_secret, &table.client_assertion) {
            (Some(secret), None) => ClientAuth::Post(Kept::new(self.local(secret)?)),
            (None, Some(assertion)) => ClientAuth::Assertion(self.local(assertion)?),
            _ => {
                let what = "[azure] needs either client_secret or client_assertion";
                return Err(self.place.error(at, what));
            }
        };
        let http = self.http(None)?;
        let endpoint = TokenEndpoint::new(endpoint, table.client_id.clone(), auth, http.clone());
        Ok(Arc::new(Azure::new(vault, endpoint, http)))
    }
}
