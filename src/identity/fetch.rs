//! HTTP to issuers and control servers: one way to build a client and to read an answer.
//!
//! Redirects are never followed (a redirect can point inside the network), every request has a
//! deadline, answers are cut off at a size, and only `https` or loopback `http` is spoken.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use url::{Host, Url};

/// The largest answer that is read from an issuer or a control server.
pub const MAX_ANSWER: usize = 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A URL that must not be used, or an exchange that failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The text is no absolute URL.
    #[error("{url:?} is not a URL")]
    NotUrl {
        /// The text.
        url: String,
        /// Why it does not parse.
        #[source]
        source: url::ParseError,
    },
    /// The URL would send secrets in the clear.
    #[error("{0} is neither https nor http on loopback")]
    Insecure(String),
    /// The HTTP client could not be built.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
    /// The other side did not answer in time, or at all.
    #[error("no answer")]
    Network(#[source] reqwest::Error),
    /// The answer is larger than anything that belongs there.
    #[error("the answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    /// The answer has another status than 200.
    #[error("the answer has HTTP status {0}")]
    Status(u16),
    /// The answer is not the JSON that belongs there.
    #[error("the answer is not the expected JSON")]
    Json(#[source] serde_json::Error),
}

impl FetchError {
    /// The error and its causes on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            text.push_str(": ");
            text.push_str(&inner.to_string());
            cause = inner.source();
        }
        text
    }
}

/// Which way requests leave the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight to the address: what servers do, so that nothing in their environment redirects
    /// them.
    Direct,
    /// Through the proxy that the user's environment names: what laptops behind one need.
    SystemProxy,
}

/// A client for one of the two routes.
///
/// Where the system has no CA certificates (minimal container images), the client is built
/// without any: loopback `http` works, every `https` fails its handshake. Building one would
/// otherwise fail even for loopback.
///
/// # Errors
/// [`FetchError::Client`] when the TLS stack cannot be set up.
pub fn client(route: Route) -> Result<reqwest::Client, FetchError> {
    client_as(route, None)
}

/// [`client`], which shows a certificate to servers that ask for one.
///
/// # Errors
/// As [`client`].
pub fn client_as(
    route: Route,
    identity: Option<&reqwest::Identity>,
) -> Result<reqwest::Client, FetchError> {
    let builder = || {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("mcpx/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT);
        let builder = match identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        };
        match route {
            Route::Direct => builder.no_proxy(),
            Route::SystemProxy => builder,
        }
    };
    builder().build().or_else(|error| {
        tracing::warn!(%error, "no usable CA certificates: only loopback http will work");
        builder().tls_certs_only([]).build().map_err(FetchError::Client)
    })
}

/// The client for a URL on the laptop side: loopback is reached directly, the rest through the
/// user's proxy if there is one.
///
/// # Errors
/// [`FetchError::Client`] when the TLS stack cannot be set up.
pub fn client_for(url: &Url) -> Result<reqwest::Client, FetchError> {
    client_for_as(url, None)
}

/// [`client_for`], which shows a certificate to servers that ask for one.
///
/// # Errors
/// As [`client_for`].
pub fn client_for_as(
    url: &Url,
    identity: Option<&reqwest::Identity>,
) -> Result<reqwest::Client, FetchError> {
    client_as(if is_loopback(url) { Route::Direct } else { Route::SystemProxy }, identity)
}

/// Whether the URL's host is this machine's loopback by its spelling (names are not resolved).
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Parses a URL and refuses it unless it is `https`, or `http` on loopback.
///
/// # Errors
/// [`FetchError::NotUrl`] or [`FetchError::Insecure`].
pub fn safe_url(text: &str) -> Result<Url, FetchError> {
    let url =
        Url::parse(text).map_err(|source| FetchError::NotUrl { url: text.to_owned(), source })?;
    let plain = url.username().is_empty() && url.password().is_none();
    match url.scheme() {
        "https" if plain && url.host().is_some() => Ok(url),
        "http" if plain && is_loopback(&url) => Ok(url),
        _ => Err(FetchError::Insecure(text.to_owned())),
    }
}

/// Reads an answer's body, up to [`MAX_ANSWER`].
///
/// # Errors
/// [`FetchError::TooLarge`] or [`FetchError::Network`].
pub async fn read_body(mut response: reqwest::Response) -> Result<Bytes, FetchError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(FetchError::Network)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Gets a JSON document.
///
/// # Errors
/// [`FetchError`]: the URL is unsafe, nobody answers, or the answer is not the document.
pub async fn get_json<T: serde::de::DeserializeOwned>(
    http: &reqwest::Client,
    url: &str,
) -> Result<T, FetchError> {
    let url = safe_url(url)?;
    let request = http.get(url).header(reqwest::header::ACCEPT, "application/json");
    let response = request.send().await.map_err(FetchError::Network)?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let body = read_body(response).await?;
    serde_json::from_slice(&body).map_err(FetchError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_loopback() {
        for good in
            ["https://id.example", "http://127.0.0.1:9/x", "http://[::1]/", "http://localhost:1"]
        {
            assert!(safe_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://id.example",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://127.0.0.1@evil.example/",
            "https://user:pw@id.example/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "id.example",
            "",
        ] {
            assert!(safe_url(bad).is_err(), "{bad}");
        }
    }
}
