//! The local port that MCP clients on this machine talk to.
//!
//! Loopback only. Whoever calls must know a secret, in the path or as a bearer token, and must
//! not be a browser: the `Host` header is checked against DNS rebinding, the `Origin` header
//! against web pages, and no CORS header is ever sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

use crate::types::{RandomError, Secret};

/// A bound port and its secret.
pub struct Local {
    listener: TcpListener,
    address: SocketAddr,
    secret: Secret,
}

/// The port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The port is taken or not allowed.
    #[error("cannot listen on 127.0.0.1:{port}")]
    Bind {
        /// The port asked for; 0 means any.
        port: u16,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// No secret could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The listener broke.
    #[error("the local port broke")]
    Serve(#[source] std::io::Error),
}

/// Why a request on the local port was turned away. The answer never says which secret would
/// have been right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` names something else than this port on loopback: DNS rebinding.
    Host,
    /// A web page asks.
    Origin,
    /// Not the path of this port's connection, or the wrong secret in it.
    NotFound,
    /// `/mcp` without the right bearer token.
    Secret,
}

impl Local {
    /// Binds a port on loopback; 0 takes a free one.
    ///
    /// # Errors
    /// [`LocalError::Bind`] or [`LocalError::Random`].
    pub async fn bind(port: u16) -> Result<Self, LocalError> {
        let failed = |source| LocalError::Bind { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, secret: Secret::generate()? })
    }

    /// The URL with the secret in its path. Whoever has it can use the connection.
    pub fn url(&self) -> String {
        format!("http://{}/{}/mcp", self.address, self.secret.expose())
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The check that every request has to pass.
    pub fn gate(&self) -> Gate {
        Gate { port: self.port(), secret: self.secret.clone() }
    }

    /// Serves until `stop`, then lets what is under way finish for a moment.
    ///
    /// # Errors
    /// [`LocalError::Serve`] when the listener breaks.
    pub async fn serve(
        self,
        router: axum::Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), LocalError> {
        let listener = self.listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
        });
        let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
        let stop = async move {
            stop.await;
            drop(stopping);
        };
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop).into_future();
        let deadline = async move {
            // Ends when the sender is dropped, which is what is waited for.
            let _stopped = stopped.await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served.map_err(LocalError::Serve),
            () = deadline => Ok(()),
        }
    }
}

/// Decides who may use a local port.
#[derive(Clone)]
pub struct Gate {
    port: u16,
    secret: Secret,
}

impl Gate {
    /// Lets a request in, or says why not.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if self.is_here(host.as_bytes()) => {}
            _ => return Err(Refusal::Host),
        }
        // `GET http://evil.example/…` would override the Host header.
        if uri.authority().is_some_and(|a| !self.is_here(a.as_str().as_bytes())) {
            return Err(Refusal::Host);
        }
        // Only browsers ask whether they may ask.
        if method == Method::OPTIONS {
            return Err(Refusal::Origin);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let here = |origin: &HeaderValue| {
            origin.as_bytes().strip_prefix(b"http://").is_some_and(|host| self.is_here(host))
        };
        match (origins.next(), origins.next()) {
            (None, None) => {}
            (Some(origin), None) if here(origin) => {}
            _ => return Err(Refusal::Origin),
        }
        let path = uri.path();
        if path == "/mcp" {
            let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
            let token = bearer
                .and_then(|v| v.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            return match token {
                Some((_, token)) if self.secret.matches(token.trim()) => Ok(()),
                _ => Err(Refusal::Secret),
            };
        }
        match path.strip_prefix('/').and_then(|p| p.strip_suffix("/mcp")) {
            Some(secret) if self.secret.matches(secret) => Ok(()),
            _ => Err(Refusal::NotFound),
        }
    }

    fn is_here(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        host.rsplit_once(':').is_some_and(|(name, port)| {
            port == self.port.to_string()
                && matches!(name.to_ascii_lowercase().as_str(), "127.0.0.1" | "localhost" | "[::1]")
        })
    }
}

/// How long streams may still run after the stop signal.
const DRAIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate { port: 4100, secret: Secret::new("s3cret") }
    }

    fn admit(path: &str, pairs: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        gate().admit(&Method::POST, &path.parse().unwrap(), &headers)
    }

    #[test]
    fn the_secret_opens_in_path_or_header() {
        for host in ["127.0.0.1:4100", "localhost:4100", "LOCALHOST:4100", "[::1]:4100"] {
            assert_eq!(admit("/s3cret/mcp", &[("host", host)]), Ok(()));
        }
        let host = ("host", "127.0.0.1:4100");
        assert_eq!(admit("/mcp", &[host, ("authorization", "Bearer s3cret")]), Ok(()));
        assert_eq!(admit("/s3cret/mcp", &[host, ("origin", "http://localhost:4100")]), Ok(()));
    }

    #[test]
    fn browsers_and_strangers_stay_outside() {
        let host = ("host", "127.0.0.1:4100");
        type Case<'a> = (&'a str, &'a [(&'static str, &'a str)], Refusal);
        let cases: &[Case<'_>] = &[
            ("/s3cret/mcp", &[], Refusal::Host),
            ("/s3cret/mcp", &[("host", "evil.example")], Refusal::Host),
            ("/s3cret/mcp", &[("host", "evil.example:4100")], Refusal::Host),
            ("/s3cret/mcp", &[("host", "127.0.0.1")], Refusal::Host),
            ("/s3cret/mcp", &[("host", "127.0.0.1:4101")], Refusal::Host),
            ("/s3cret/mcp", &[host, ("host", "127.0.0.1:4100")], Refusal::Host),
            ("/s3cret/mcp", &[("host", "localhost:+4100")], Refusal::Host),
            ("/s3cret/mcp", &[("host", "localhost.:4100")], Refusal::Host),
            (
                "/s3cret/mcp",
                &[host, ("origin", "http://127.0.0.1:4100"), ("origin", "http://127.0.0.1:4100")],
                Refusal::Origin,
            ),
            ("http://evil.example/s3cret/mcp", &[host], Refusal::Host),
            ("/s3cret/mcp", &[host, ("origin", "https://evil.example")], Refusal::Origin),
            ("/s3cret/mcp", &[host, ("origin", "null")], Refusal::Origin),
            ("/s3cret/mcp", &[host, ("origin", "http://127.0.0.1:9999")], Refusal::Origin),
            (
                "/s3cret/mcp",
                &[host, ("origin", "http://localhost:4100.evil.example")],
                Refusal::Origin,
            ),
            ("/wrong/mcp", &[host], Refusal::NotFound),
            ("//mcp", &[host], Refusal::NotFound),
            ("/s3cret/mcp/", &[host], Refusal::NotFound),
            ("/.well-known/oauth-protected-resource", &[host], Refusal::NotFound),
            ("/mcp", &[host], Refusal::Secret),
            ("/mcp", &[host, ("authorization", "Bearer s3cre")], Refusal::Secret),
            ("/mcp", &[host, ("authorization", "Basic s3cret")], Refusal::Secret),
        ];
        for (path, headers, refusal) in cases {
            assert_eq!(admit(path, headers), Err(*refusal), "{path} {headers:?}");
        }
    }
}
