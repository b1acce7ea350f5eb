//! Asking whoever keeps secrets or gives tokens, over HTTP.
//!
//! Redirects are not followed and no proxy is used, every request has a deadline, answers are cut
//! off at a size, and what is said of a failure is ours: never the other side's words.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use serde::de::DeserializeOwned;

use super::Why;

/// How long one request may take, from the first byte sent to the last received.
const DEADLINE: Duration = Duration::from_secs(10);
const CONNECTING: Duration = Duration::from_secs(5);
/// The largest answer.
const LARGEST: usize = 1024 * 1024;

/// A client for such requests; with `ca`, PEM certificates, it trusts nobody else.
///
/// Where the system has no CA certificates, it is built without any, as loopback may be all that
/// is asked.
///
/// # Errors
/// The certificates cannot be read, or TLS cannot be set up.
pub fn client(ca: Option<&[u8]>) -> Result<reqwest::Client, reqwest::Error> {
    let builder = || {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .user_agent(concat!("mcpx/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECTING)
            .timeout(DEADLINE)
    };
    match ca {
        Some(pem) => {
            let trusted = reqwest::Certificate::from_pem_bundle(pem)?;
            builder().tls_certs_only(trusted).build()
        }
        None => builder().build().or_else(|error| {
            tracing::warn!(%error, "no usable CA certificates: only loopback http will work");
            builder().tls_certs_only([]).build()
        }),
    }
}

/// Sends a request and reads the whole answer, whatever its status.
pub(crate) async fn send(request: reqwest::RequestBuilder) -> Result<(StatusCode, Bytes), Why> {
    let mut response = request.send().await.map_err(|error| gone(&error))?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| gone(&error))? {
        if body.len() + chunk.len() > LARGEST {
            return Err(Why::Unavailable(format!("the answer is larger than {LARGEST} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.status(), body.freeze()))
}

/// Reads an answer. What does not parse is not quoted: it may hold the secret.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Why> {
    serde_json::from_slice(body)
        .map_err(|_| Why::Unavailable("the answer is not the expected JSON".to_owned()))
}

/// What went wrong, without the URL.
fn gone(error: &reqwest::Error) -> Why {
    if error.is_timeout() {
        return Why::Unavailable(format!("no answer within {} s", DEADLINE.as_secs()));
    }
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    Why::Unavailable(source.to_string())
}
