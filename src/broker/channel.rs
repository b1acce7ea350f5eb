//! One authorised way to one connection at the gateway. Every request carries a grant token, and
//! shows what it is bound to: by a fresh proof for just this request (RFC 9449), or by the
//! certificate of the connection that it is sent on (RFC 8705).
//!
//! A POST is sent a second time only after the gateway itself said that it did not accept the
//! grant, which it says before it forwards anything. After any other failure the call may have
//! been made, and the caller is told so.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use bytes::{Bytes, BytesMut};
use url::Url;

use super::grant::{ExchangeError, GrantSource, GrantToken};
use super::login::LoginError;
use super::problem::Problem;
use crate::identity::fetch;

/// A way to one connection.
pub struct Channel {
    http: reqwest::Client,
    url: Url,
    source: GrantSource,
}

/// A request could not be carried.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// There is no grant to send it with.
    #[error(transparent)]
    Grant(#[from] ExchangeError),
    /// The gateway was not reached; nothing was sent.
    #[error("the gateway {gateway} is not reached")]
    Unreachable {
        /// Its URL.
        gateway: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke after the request was sent.
    #[error("the connection to the gateway {gateway} broke; the call may have been made")]
    Broken {
        /// Its URL.
        gateway: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl Channel {
    /// A channel to `url`, authorised by `source`.
    ///
    /// # Errors
    /// [`ChannelError::Client`] when the TLS stack cannot be set up.
    pub fn new(url: Url, source: GrantSource) -> Result<Self, ChannelError> {
        let identity = source.identity().map_err(ChannelError::Client)?;
        Ok(Self { http: streaming_client(&url, identity.as_ref())?, url, source })
    }

    /// Where requests go.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The grant that requests are sent under, asked for if there is none.
    ///
    /// # Errors
    /// [`ChannelError::Grant`].
    pub async fn grant(&self) -> Result<GrantToken, ChannelError> {
        Ok(self.source.grant().await?)
    }

    /// Keeps a grant that is in use alive, for as long as this is polled: streams on which nobody
    /// sends anything must not end with it.
    pub async fn keep(&self) {
        self.source.keep().await;
    }

    /// Sends one request and gives the response with its body still streaming. Dropping either
    /// the future or the response closes the stream at the gateway.
    ///
    /// # Errors
    /// [`ChannelError`]; an HTTP error status is a response, not an error.
    pub async fn send(
        &self,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, ChannelError> {
        self.send_to(&self.url, method, headers, body).await
    }

    /// [`Channel::send`] to a URL below this channel's, for the API.
    pub(super) async fn send_to(
        &self,
        url: &Url,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, ChannelError> {
        let grant = self.source.grant().await?;
        let response = self.send_with(url, &grant, method.clone(), headers.clone(), body.clone());
        let response = response.await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let (response, refusal) = self.read_refusal(response).await?;
        if self.source.learn(&refusal.code, response.headers(), &grant.token) {
            tracing::debug!(code = refusal.code, "the gateway wants it in another way");
        } else if is_renewable(&refusal.code) {
            tracing::debug!(code = refusal.code, "the gateway wants another grant");
            self.source.forget(&grant.token);
        } else {
            return Ok(response);
        }
        let grant = self.source.grant().await?;
        self.send_with(url, &grant, method, headers, body).await
    }

    async fn send_with(
        &self,
        url: &Url,
        grant: &GrantToken,
        method: Method,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, ChannelError> {
        let authorization = self.source.authorize(method.as_str(), url, &grant.token)?;
        let proof = authorization.proof.as_deref();
        let bearer = (header::AUTHORIZATION, authorization.authorization.expose());
        let proof = proof.map(|proof| (header::HeaderName::from_static("dpop"), proof));
        for (name, value) in std::iter::once(bearer).chain(proof) {
            // Tokens and proofs are base64url and dots; a server that sent anything else gets a
            // request without it, and refuses.
            if let Ok(mut value) = HeaderValue::from_str(value) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let mut request = self.http.request(method, url.clone()).headers(headers);
        if !body.is_empty() {
            request = request.body(body);
        }
        let gateway = || self.url.origin().ascii_serialization();
        request.send().await.map_err(|source| {
            let source = source.without_url();
            if source.is_connect() {
                ChannelError::Unreachable { gateway: gateway(), source }
            } else {
                ChannelError::Broken { gateway: gateway(), source }
            }
        })
    }

    /// Reads a refusal's body to learn its reason, and puts the response together again.
    async fn read_refusal(
        &self,
        mut response: reqwest::Response,
    ) -> Result<(reqwest::Response, Problem), ChannelError> {
        let mut body = BytesMut::new();
        while body.len() < REFUSAL_BYTES {
            let chunk = response.chunk().await.map_err(|source| ChannelError::Broken {
                gateway: self.url.origin().ascii_serialization(),
                source: source.without_url(),
            })?;
            let Some(chunk) = chunk else { break };
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        let problem = Problem::of_answer(response.status(), &body);
        let mut rebuilt = axum::http::Response::new(body);
        *rebuilt.status_mut() = response.status();
        *rebuilt.headers_mut() = std::mem::take(response.headers_mut());
        rebuilt.headers_mut().remove(header::CONTENT_LENGTH);
        rebuilt.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok((rebuilt.into(), problem))
    }
}

impl ChannelError {
    /// What a local client is told.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Grant(error) => exchange_problem(error),
            Self::Unreachable { .. } => {
                Problem::new(StatusCode::BAD_GATEWAY, "unreachable", self.chain())
                    .hint("check the network and try again; nothing was sent")
            }
            Self::Broken { .. } => {
                Problem::new(StatusCode::BAD_GATEWAY, "outcome_unknown", self.chain())
                    .hint("run `mcpx sessions` to see whether the call was made")
            }
            Self::Client(_) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failure", self.chain())
            }
        }
    }

    fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// What a refused or failed token exchange means to whoever wanted to make a call.
pub fn exchange_problem(error: &ExchangeError) -> Problem {
    match error {
        ExchangeError::Refused { error: name, code, hint, .. } => {
            let (status, usual) = match name.as_str() {
                "invalid_grant" | "invalid_token" => (StatusCode::FORBIDDEN, "login_needed"),
                "invalid_target" => (StatusCode::NOT_FOUND, "not_found"),
                _ => (StatusCode::FORBIDDEN, "forbidden"),
            };
            let code = code.as_deref().unwrap_or(usual);
            let problem = Problem::new(status, code, chain(error));
            match hint {
                Some(hint) => problem.hint(hint),
                None if code == "login_needed" => problem.hint("run `mcpx login`"),
                None => problem,
            }
        }
        error if error.is_retryable() => {
            Problem::new(StatusCode::BAD_GATEWAY, "unreachable", chain(error))
                .hint("check the network and try again; nothing was sent")
        }
        ExchangeError::Login(login) if login.needs_login() => {
            Problem::new(StatusCode::FORBIDDEN, "login_needed", chain(error))
                .hint("run `mcpx login`")
        }
        ExchangeError::Login(LoginError::Workload(_)) => {
            Problem::new(StatusCode::FORBIDDEN, "workload_token", chain(error))
        }
        _ => Problem::new(StatusCode::BAD_GATEWAY, "failure", chain(error)),
    }
}

/// Whether a refusal is about the token and not about the grant: a revoked grant is never asked
/// for again behind the user's back.
fn is_renewable(code: &str) -> bool {
    matches!(code, "grant_expired" | "grant_unknown") || code.starts_with("token_")
}

/// A client without a deadline for the whole exchange, since streams stay open for hours, and
/// without redirects, which would carry a token elsewhere.
fn streaming_client(
    url: &Url,
    identity: Option<&reqwest::Identity>,
) -> Result<reqwest::Client, ChannelError> {
    let builder = || {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(concat!("mcpx/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(20));
        let builder = match identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        };
        if fetch::is_loopback(url) { builder.no_proxy() } else { builder }
    };
    // Without CA certificates on the system, plain loopback must still work.
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .map_err(ChannelError::Client)
}

/// A refusal longer than this is cut off; its reason stands at the beginning.
const REFUSAL_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revoked_grant_is_not_asked_for_again() {
        assert!(is_renewable("grant_expired") && is_renewable("token_key_unknown"));
        assert!(!is_renewable("grant_revoked") && !is_renewable("login_needed"));
    }
}
