//! Vault and OpenBao: secrets of KV version 2 engines, read with a token that is got by JWT or
//! AppRole login.
//!
//! Implements the client side of `POST /v1/auth/{mount}/login` and `GET /v1/{mount}/data/{path}`.
//! The login's own secret is read anew for every login, as projected tokens are rotated. What is
//! kept of a login is its token, for two thirds of its lease; a token that the server does not know
//! any more is replaced by a new login, once in ten seconds at most.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::kept::{Fetch, Fetched, Kept, Life};
use super::{SecretSource, Why, ask, of_object};
use crate::types::Secret;

/// No lease is taken to be longer.
const LONGEST: Duration = Duration::from_secs(32 * 24 * 3600);
/// How long a login is kept whose lease says that it has no end.
const ENDLESS: Duration = Duration::from_secs(3600);

/// A server that keeps secrets.
#[derive(Debug)]
pub struct Vault {
    server: Arc<Server>,
    login: Arc<Kept<Login>>,
}

/// Where it is.
#[derive(Debug)]
struct Server {
    address: Url,
    headers: HeaderMap,
    http: reqwest::Client,
}

/// How the gateway makes itself known to it.
#[derive(Debug)]
pub enum Auth {
    /// With a JWT of the platform.
    Jwt {
        /// Where the auth method is mounted.
        mount: String,
        /// Its role.
        role: String,
        /// The JWT.
        token: SecretSource,
    },
    /// With a role's id and a secret.
    AppRole {
        /// Where the auth method is mounted.
        mount: String,
        /// The role's id.
        role_id: String,
        /// The role's secret.
        secret_id: SecretSource,
    },
}

/// One field of one secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    mount: String,
    path: Vec<String>,
    field: String,
}

impl std::str::FromStr for Address {
    type Err = &'static str;

    /// Reads `mount/path#field`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "a secret of the vault is written \"vault:mount/path#field\"";
        let (path, field) = text.rsplit_once('#').ok_or(SHAPE)?;
        let mut parts = path.split('/').map(str::to_owned);
        let mount = parts.next().unwrap_or_default();
        let path: Vec<String> = parts.collect();
        let odd = |part: &String| part.is_empty() || part == "." || part == "..";
        if odd(&mount) || path.is_empty() || path.iter().any(odd) || field.is_empty() {
            return Err(SHAPE);
        }
        Ok(Self { mount, path, field: field.to_owned() })
    }
}

impl Vault {
    /// A server at an address. `http` must follow no redirects.
    pub fn new(
        address: Url,
        namespace: Option<HeaderValue>,
        http: reqwest::Client,
        auth: Auth,
    ) -> Self {
        // Its own protection against requests that somebody was tricked into making.
        let mut headers = HeaderMap::new();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = namespace {
            headers.insert("x-vault-namespace", namespace);
        }
        let server = Arc::new(Server { address, headers, http });
        let login = Kept::new(Login { server: Arc::clone(&server), auth });
        Self { server, login }
    }

    /// One field of the newest version of a secret.
    pub(super) async fn read(&self, address: &Address) -> Result<Secret, Why> {
        #[derive(Deserialize)]
        struct Read {
            data: Version,
        }
        #[derive(Deserialize)]
        struct Version {
            /// Nothing where the newest version is deleted.
            data: Option<BTreeMap<String, Value>>,
        }
        let mut path = vec!["v1", &address.mount, "data"];
        path.extend(address.path.iter().map(String::as_str));
        let token = self.login.get().await?;
        let (mut status, mut body) =
            self.server.ask(Method::GET, &path, Some(token.clone()), None).await?;
        // The token may have been revoked, or the server have begun anew.
        if status == StatusCode::FORBIDDEN && self.login.renew(&token).await {
            let token = self.login.get().await?;
            (status, body) = self.server.ask(Method::GET, &path, Some(token), None).await?;
        }
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let why = "the vault knows no such secret, or its newest version is deleted";
                return Err(Why::Missing(why.to_owned()));
            }
            StatusCode::FORBIDDEN => {
                let why = "the vault's policies do not let this server read it (HTTP 403)";
                return Err(Why::Refused(why.to_owned()));
            }
            other => return Err(unavailable(other)),
        }
        let read: Read = ask::read(&body)?;
        let Some(fields) = read.data.data else {
            return Err(Why::Missing("its newest version is deleted".to_owned()));
        };
        of_object(&fields, &address.field)
    }
}

impl Server {
    async fn ask(
        &self,
        method: Method,
        path: &[&str],
        token: Option<HeaderValue>,
        body: Option<Value>,
    ) -> Result<(StatusCode, bytes::Bytes), Why> {
        let mut url = self.address.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => segments.pop_if_empty().extend(path),
            Err(()) => return Err(Why::Unavailable("the vault's address is odd".to_owned())),
        };
        let mut headers = self.headers.clone();
        if let Some(token) = token {
            headers.insert("x-vault-token", token);
        }
        let mut request = self.http.request(method, url).headers(headers);
        if let Some(body) = body {
            request = request.json(&body);
        }
        ask::send(request).await
    }
}

fn unavailable(status: StatusCode) -> Why {
    let said = match status.as_u16() {
        // 501 before it is initialised, 503 while it is sealed, 472 and 473 on standbys.
        501 | 503 => "the vault is sealed or not ready",
        429 | 472 | 473 => "the vault is a standby or busy",
        _ => "the vault does not give it",
    };
    Why::Unavailable(format!("{said} (HTTP {})", status.as_u16()))
}

/// The gateway's login.
#[derive(Debug)]
struct Login {
    server: Arc<Server>,
    auth: Auth,
}

impl Fetch for Login {
    type Value = HeaderValue;
    type Error = Why;

    fn fetch(&self, _anew: bool) -> Fetched<'_, Self> {
        Box::pin(self.make())
    }

    fn same(one: &HeaderValue, other: &HeaderValue) -> bool {
        one == other
    }

    fn name(&self) -> &'static str {
        "the login at the vault"
    }
}

impl Login {
    async fn make(&self) -> Result<(HeaderValue, Life), Why> {
        #[derive(Deserialize)]
        struct LoggedIn {
            auth: Lease,
        }
        #[derive(Deserialize)]
        struct Lease {
            client_token: Secret,
            #[serde(default)]
            lease_duration: u64,
        }
        let own = |error: super::SecretError| Why::Unavailable(error.to_string());
        let (mount, body) = match &self.auth {
            Auth::Jwt { mount, role, token } => {
                let jwt = token.fetch().await.map_err(own)?;
                (mount, json!({ "role": role, "jwt": jwt.expose() }))
            }
            Auth::AppRole { mount, role_id, secret_id } => {
                let secret = secret_id.fetch().await.map_err(own)?;
                (mount, json!({ "role_id": role_id, "secret_id": secret.expose() }))
            }
        };
        let mut path = vec!["v1", "auth"];
        path.extend(mount.split('/'));
        path.push("login");
        let (status, body) = self.server.ask(Method::POST, &path, None, Some(body)).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN => {
                let why = format!("the vault refuses this server's login (HTTP {status})");
                return Err(Why::Refused(why));
            }
            other => return Err(unavailable(other)),
        }
        let lease = ask::read::<LoggedIn>(&body)?.auth;
        let mut token = HeaderValue::from_str(lease.client_token.expose())
            .map_err(|_| Why::Unavailable("the vault's token is no header".to_owned()))?;
        token.set_sensitive(true);
        let hard = match lease.lease_duration {
            0 => ENDLESS,
            seconds => Duration::from_secs(seconds).min(LONGEST) * 2 / 3,
        };
        Ok((token, Life { soft: Some(hard / 2), hard: Some(hard) }))
    }
}
