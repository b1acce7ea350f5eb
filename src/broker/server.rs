//! What a control server says about itself at `/.well-known/mcpx`.

use serde::{Deserialize, Serialize};
use url::Url;

use crate::identity::fetch::{self, FetchError};
use crate::identity::oidc::{LoginKind, is_loopback_redirect};

/// Where a server describes itself, below its URL.
pub const WELL_KNOWN: &str = "/.well-known/mcpx";

/// The only version of the description that exists.
const VERSION: u32 = 1;

/// A control server's description of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Version of this document: 1.
    pub version: u32,
    /// The server's public URL.
    pub server: Url,
    /// Who it lets people log in with; the first is the default.
    pub issuers: Vec<IssuerInfo>,
    /// Where identity tokens are exchanged for grant tokens.
    pub token_endpoint: Url,
    /// The base of its API.
    pub api: Url,
    /// The verifier key of its audit log, as C2SP signed notes write it.
    pub log_key: String,
    /// Whether it binds tokens to TLS client certificates (RFC 8705), for whoever shows one.
    #[serde(default, rename = "tls_client_certificate_bound_access_tokens")]
    pub certificates: bool,
}

/// An issuer that a server trusts, as its clients need to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerInfo {
    /// What people call it.
    pub name: String,
    /// Its URL, exactly as in its tokens' `iss`: a text, because a parsed URL may gain a slash.
    pub url: String,
    /// The public client that brokers are there.
    pub client_id: String,
    /// The scopes to ask for, besides `openid`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The ways to log in there that the server's operator has set up: `browser`, `device`, or what
    /// later versions know. None said means device, as servers said nothing before there were two.
    #[serde(default)]
    pub logins: Vec<String>,
    /// Where the issuer sends a browser back to; without a port, to any.
    #[serde(default)]
    pub redirect_uri: Option<String>,
    /// The `resource` (RFC 8707) to name to the issuer, if any.
    #[serde(default)]
    pub resource: Option<String>,
    /// What the issuer demands of public clients as if it were a secret.
    #[serde(default)]
    pub client_secret: Option<String>,
    /// The claim that lists groups, to show them to their owner.
    #[serde(default)]
    pub groups_claim: Option<String>,
}

impl IssuerInfo {
    /// Whether the server's operator has set this way to log in up.
    pub fn offers(&self, kind: LoginKind) -> bool {
        let name = match kind {
            LoginKind::Browser => "browser",
            LoginKind::Device => "device",
        };
        self.logins.iter().any(|login| login == name)
            || (self.logins.is_empty() && kind == LoginKind::Device)
    }
}

/// A server's description could not be had or must not be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It does not answer, or with something else.
    #[error("{server} does not answer as an mcpx server")]
    Fetch {
        /// The server asked.
        server: String,
        /// What went wrong.
        #[source]
        source: FetchError,
    },
    /// It speaks a later version.
    #[error(
        "{server} describes itself in version {found}, and this mcpx knows {VERSION}; update mcpx"
    )]
    Version {
        /// The server asked.
        server: String,
        /// The version it answered.
        found: u32,
    },
    /// It names a URL that must not be used.
    #[error("{server} names an unsafe {what}")]
    Unsafe {
        /// The server asked.
        server: String,
        /// Which of its URLs.
        what: &'static str,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// It would send this login's tokens to another origin.
    #[error("{server} names a {what} on another host ({found}); use the server's public URL")]
    OtherOrigin {
        /// The server asked.
        server: String,
        /// Which of its URLs.
        what: &'static str,
        /// The URL it named.
        found: String,
    },
    /// It would send an authorization code to another machine.
    #[error(
        "{server} names {found:?} as the address that browsers come back to, which is not on this machine's loopback"
    )]
    Redirect {
        /// The server asked.
        server: String,
        /// The address it named.
        found: String,
    },
    /// Nobody can log in there.
    #[error("{server} names no issuer{}", name.as_ref().map(|n| format!(" called {n:?}")).unwrap_or_default())]
    NoIssuer {
        /// The server asked.
        server: String,
        /// The issuer's name, if one was asked for.
        name: Option<String>,
    },
}

impl ServerError {
    /// Whether the same request may work later: nobody answered.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Fetch { source: FetchError::Network(_), .. })
    }
}

impl ServerInfo {
    /// The issuer of that name, or the first.
    ///
    /// # Errors
    /// [`ServerError::NoIssuer`].
    pub fn issuer(&self, name: Option<&str>) -> Result<&IssuerInfo, ServerError> {
        self.issuers.iter().find(|issuer| name.is_none_or(|name| issuer.name == name)).ok_or_else(
            || ServerError::NoIssuer {
                server: self.server.to_string(),
                name: name.map(str::to_owned),
            },
        )
    }

    /// The audience of grants for the API: its URL without a trailing slash.
    pub fn api_resource(&self) -> &str {
        self.api.as_str().trim_end_matches('/')
    }
}

/// Asks a server who it is. `server_url` may carry a path or trailing slash; `https`, or `http`
/// on loopback.
///
/// # Errors
/// [`ServerError`].
pub async fn fetch(server_url: &str) -> Result<ServerInfo, ServerError> {
    let named = || server_url.to_owned();
    let failed = |source| ServerError::Fetch { server: named(), source };
    let base = server_url.trim_end_matches('/');
    let base_url = fetch::safe_url(base).map_err(|source| ServerError::Unsafe {
        server: named(),
        what: "URL",
        source,
    })?;
    let http = fetch::client_for(&base_url).map_err(failed)?;
    let info: ServerInfo =
        fetch::get_json(&http, &format!("{base}{WELL_KNOWN}")).await.map_err(failed)?;
    check(server_url, &base_url, info)
}

/// The answer decides where tokens are sent: everything must stay with the server that was asked.
fn check(server: &str, asked: &Url, info: ServerInfo) -> Result<ServerInfo, ServerError> {
    if info.version != VERSION {
        return Err(ServerError::Version { server: server.to_owned(), found: info.version });
    }
    let urls =
        [("server", &info.server), ("token endpoint", &info.token_endpoint), ("API", &info.api)];
    for (what, url) in urls {
        if url.origin() != asked.origin() {
            return Err(ServerError::OtherOrigin {
                server: server.to_owned(),
                what,
                found: url.to_string(),
            });
        }
    }
    for issuer in &info.issuers {
        fetch::safe_url(&issuer.url).map_err(|source| ServerError::Unsafe {
            server: server.to_owned(),
            what: "issuer",
            source,
        })?;
        if let Some(uri) = issuer.redirect_uri.as_ref().filter(|uri| !is_loopback_redirect(uri)) {
            return Err(ServerError::Redirect { server: server.to_owned(), found: uri.clone() });
        }
    }
    info.issuer(None)?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::get};
    use serde_json::{Value, json};

    use super::*;

    /// Serves a description made of the server's own URL.
    async fn serve(describe: impl FnOnce(&str) -> Value) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let description = describe(&url);
        let answer = get(move || async move { Json(description) });
        let router = Router::new().route(WELL_KNOWN, answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn description(url: &str) -> Value {
        json!({
            "version": 1, "server": url, "token_endpoint": format!("{url}/oauth/token"),
            "api": format!("{url}/api"), "log_key": "mcpx+1+x", "future": true,
            "issuers": [
                {"name": "a", "url": "https://a.example/", "client_id": "c", "scopes": ["openid"],
                 "logins": ["browser", "something new"], "redirect_uri": "http://127.0.0.1/back"},
                {"name": "b", "url": "https://b.example", "client_id": "c"},
            ],
        })
    }

    #[tokio::test]
    async fn reads_a_description() {
        let url = serve(description).await;
        let info = fetch(&format!("{url}/")).await.unwrap();
        assert_eq!(info.issuer(None).unwrap().url, "https://a.example/");
        assert_eq!(info.issuer(Some("b")).unwrap().url, "https://b.example");
        assert!(matches!(info.issuer(Some("c")), Err(ServerError::NoIssuer { .. })));
        assert_eq!(info.api_resource(), format!("{url}/api"));
        let issuer = info.issuer(Some("b")).unwrap();
        assert!(issuer.offers(LoginKind::Device) && !issuer.offers(LoginKind::Browser));
        let issuer = info.issuer(None).unwrap();
        assert!(!issuer.offers(LoginKind::Device) && issuer.offers(LoginKind::Browser));
        // What is stored reads back.
        let text = serde_json::to_string(&info).unwrap();
        assert_eq!(serde_json::from_str::<ServerInfo>(&text).unwrap(), info);
    }

    #[tokio::test]
    async fn refuses_descriptions_that_lead_away() {
        let redirects = |uri: &str| {
            let issuer = json!({"name": "a", "url": "https://a.example", "client_id": "c",
                                "redirect_uri": uri});
            ("issuers", json!([issuer]))
        };
        let changes: [(&str, Value); 13] = [
            redirects("https://evil.example/callback"),
            redirects("http://evil.example/callback"),
            redirects("http://127.0.0.1.evil.example/callback"),
            redirects("http://127.0.0.1@evil.example/callback"),
            redirects("https://127.0.0.1/callback"),
            redirects("mcpx:callback"),
            ("server", json!("https://evil.example")),
            ("token_endpoint", json!("https://evil.example/oauth/token")),
            ("api", json!("https://evil.example/api")),
            ("version", json!(2)),
            ("issuers", json!([])),
            ("issuers", json!([{"name": "a", "url": "http://a.example", "client_id": "c"}])),
            ("token_endpoint", json!("/oauth/token")),
        ];
        for (name, value) in changes {
            let url = serve(|url| {
                let mut description = description(url);
                description[name] = value.clone();
                description
            });
            let error = fetch(&url.await).await.unwrap_err();
            assert!(!error.is_network(), "{name} {value}: {error}");
        }
    }

    #[tokio::test]
    async fn asks_no_unsafe_server_and_tells_outages_apart() {
        for url in ["http://mcpx.example", "ftp://127.0.0.1", "mcpx.example", ""] {
            assert!(matches!(fetch(url).await, Err(ServerError::Unsafe { .. })), "{url}");
        }
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(fetch(&format!("http://{closed}")).await.unwrap_err().is_network());
    }
}
