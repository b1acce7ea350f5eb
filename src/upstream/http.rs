//! An MCP server over Streamable HTTP: POST, GET and DELETE on one URL.
//!
//! Redirects are not followed and no proxy is used: the credential goes to the configured server
//! and nowhere else. Implements the client side of MCP `basic/transports` (2025-03-26 to
//! 2025-11-25) and `basic/transports/streamable-http` (2026-07-28).

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};

use super::credential::{self, Credential};
use super::{Answer, Body, Bounds, EventSource, Events, Route, UpstreamError};
use crate::audit::Durable;
use crate::mcp::headers;
use crate::mcp::sse::{Decoder, Event};
use crate::policy::{Act, Permit};

/// One MCP server at one URL.
#[derive(Debug)]
pub struct HttpUpstream {
    url: Url,
    credential: Option<Credential>,
    client: reqwest::Client,
    bounds: Bounds,
}

impl HttpUpstream {
    /// An upstream at a URL. `client` must follow no redirects.
    pub fn new(
        url: Url,
        credential: Option<Credential>,
        client: reqwest::Client,
        bounds: Bounds,
    ) -> Self {
        Self { url, credential, client, bounds }
    }

    /// A client as [`Self::new`] needs it, to be shared by all upstreams.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn client(bounds: Bounds) -> Result<reqwest::Client, reqwest::Error> {
        reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(bounds.first_byte.min(std::time::Duration::from_secs(10)))
            .tcp_nodelay(true)
            .build()
    }

    pub(super) async fn forward(
        &self,
        permit: &Durable<Permit>,
        route: &Route,
        caller: &HeaderMap,
    ) -> Result<Answer, UpstreamError> {
        let Some(credential) = &self.credential else {
            let response = self.send(permit, route, caller, None).await?;
            return self.answer(response).await;
        };
        let subject = &permit.get().call().subject;
        let value = credential.value(subject).await?;
        let header = credential.header_name();
        let sent = self.send(permit, route, caller, Some((header, value.clone()))).await?;
        if sent.status() != StatusCode::UNAUTHORIZED {
            return self.answer(sent).await;
        }
        // A server that says 401 has not acted. What was rotated is sent once more, as it is now.
        let renewed = credential.renew(subject, &value).await;
        // Where there is none any more, that is the error to tell.
        let value = credential.value(subject).await?;
        if !renewed {
            return self.answer(sent).await;
        }
        let response = self.send(permit, route, caller, Some((header, value))).await?;
        self.answer(response).await
    }

    async fn send(
        &self,
        permit: &Durable<Permit>,
        route: &Route,
        caller: &HeaderMap,
        credential: Option<(&HeaderName, HeaderValue)>,
    ) -> Result<reqwest::Response, UpstreamError> {
        let method = match permit.get().call().act {
            Act::Message(_) => Method::POST,
            Act::Listen => Method::GET,
            Act::End => Method::DELETE,
        };
        let mut request = self.client.request(method, self.url.clone());
        let mut passed = passed_headers(caller);
        if let Some(id) = &route.protocol_session {
            let id = HeaderValue::from_str(id).map_err(|_| UpstreamError::SessionGone)?;
            passed.insert(headers::SESSION_ID, id);
        }
        if let Some((header, value)) = credential {
            passed.insert(header.clone(), value);
        }
        if let Some(message) = permit.get().call().message() {
            passed.insert(CONTENT_TYPE, HeaderValue::from_static(headers::JSON));
            request = request.body(message.raw().clone());
        }
        let sending = request.headers(passed).send();
        match tokio::time::timeout(self.bounds.first_byte, sending).await {
            Err(_) => Err(UpstreamError::TimedOut { after: self.bounds.first_byte }),
            Ok(Err(error)) => Err(broken(&error)),
            Ok(Ok(response)) => Ok(response),
        }
    }

    async fn answer(&self, response: reqwest::Response) -> Result<Answer, UpstreamError> {
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let credential = credential::name(self.credential.as_ref());
            return Err(UpstreamError::CredentialRefused { status: status.as_u16(), credential });
        }
        let content_type = media_type(response.headers());
        let mut answer_headers = returned_headers(response.headers());
        let body = match content_type.as_deref() {
            Some(headers::EVENT_STREAM) => Body::Stream(Events {
                ahead: VecDeque::new(),
                source: EventSource::Http(Box::new(EventStream::of(
                    response,
                    self.bounds.event_bytes,
                ))),
            }),
            kind => {
                let bytes = self.whole_body(response).await?;
                let blank = bytes.iter().all(u8::is_ascii_whitespace);
                match kind {
                    Some(headers::JSON) if !blank => Body::Message(bytes),
                    // Statuses with nothing or only words behind them speak for themselves.
                    _ if blank || status == StatusCode::ACCEPTED => Body::Empty,
                    _ if matches!(
                        status,
                        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND
                    ) =>
                    {
                        Body::Empty
                    }
                    other => {
                        return Err(UpstreamError::NotMcp {
                            status: status.as_u16(),
                            content_type: told(other).to_owned(),
                        });
                    }
                }
            }
        };
        // Our own words: a parameter such as `charset=utf-16` could make a client read other text
        // than was masked.
        let kind = match &body {
            Body::Empty => None,
            Body::Message(_) | Body::Decoded(_) => Some(headers::JSON),
            Body::Stream(_) => Some(headers::EVENT_STREAM),
        };
        if let Some(kind) = kind {
            answer_headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Ok(Answer { status, headers: answer_headers, body })
    }

    async fn whole_body(&self, response: reqwest::Response) -> Result<Bytes, UpstreamError> {
        let limit = self.bounds.message_bytes;
        // A buffer that grows by doubling holds a long body three times while it does.
        let said = response.content_length().and_then(|said| usize::try_from(said).ok());
        let said = said.unwrap_or(0).min(limit);
        let mut stream = response.bytes_stream();
        let mut whole: Option<Bytes> = None;
        let mut more = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| broken(&error))?;
            if whole.as_ref().map_or(more.len(), Bytes::len) + chunk.len() > limit {
                return Err(UpstreamError::TooLarge { limit });
            }
            // Most bodies are one chunk, which is then passed on without a copy.
            match whole.take() {
                None if more.is_empty() => whole = Some(chunk),
                None => more.extend_from_slice(&chunk),
                Some(first) => {
                    more.reserve(said);
                    more.extend_from_slice(&first);
                    more.extend_from_slice(&chunk);
                }
            }
        }
        Ok(whole.unwrap_or_else(|| more.freeze()))
    }
}

pub(super) fn passed_headers(caller: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::new();
    for (name, value) in caller {
        // The session id that the caller knows is sealed; the route holds the real one.
        if headers::is_forwarded_request(name.as_str()) && name != headers::SESSION_ID {
            passed.append(name.clone(), value.clone());
        }
    }
    if !passed.contains_key(ACCEPT) {
        passed.insert(ACCEPT, HeaderValue::from_static(headers::ACCEPT_BOTH));
    }
    passed
}

/// What of a server's headers goes on. No header is masked or recorded, so none passes whose
/// value could be the server's data: only the session id, which the gateway seals, and two whose
/// values are checked.
fn returned_headers(upstream: &HeaderMap) -> HeaderMap {
    let mut returned = HeaderMap::new();
    if let Some(id) = upstream.get(headers::SESSION_ID) {
        returned.insert(headers::SESSION_ID, id.clone());
    }
    if upstream.get(headers::X_ACCEL_BUFFERING).is_some_and(|value| value == "no") {
        returned.insert(headers::X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    let seconds = upstream.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(seconds @ 0..=86_400u32) = seconds {
        returned.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    returned
}

/// The media type of a body, in lower case and without parameters.
pub(super) fn media_type(upstream: &HeaderMap) -> Option<String> {
    let value = upstream.get(CONTENT_TYPE).and_then(|value| value.to_str().ok())?;
    Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
}

/// A content type that is no MCP, as logs and errors may name it: one that is well known, since
/// its text is the server's choice.
pub(super) fn told(content_type: Option<&str>) -> &'static str {
    const KNOWN: [&str; 8] = [
        "text/html",
        "text/plain",
        "text/xml",
        "text/json",
        "application/xml",
        "application/xhtml+xml",
        "application/problem+json",
        "application/octet-stream",
    ];
    match content_type {
        None => "no content type",
        Some(given) => {
            KNOWN.into_iter().find(|known| *known == given).unwrap_or("another content type")
        }
    }
}

/// What went wrong, without the URL, which may hold what nobody should see.
pub(super) fn broken(error: &reqwest::Error) -> UpstreamError {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    let why = source.to_string();
    if error.is_connect() || error.is_builder() {
        UpstreamError::Unreachable { why }
    } else {
        UpstreamError::BrokeOff { why }
    }
}

/// The events of one HTTP response.
pub(super) struct EventStream {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    decoder: Decoder,
    limit: usize,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

impl EventStream {
    /// The events of a response, each of at most `limit` bytes.
    pub(super) fn of(response: reqwest::Response, limit: usize) -> Self {
        let bytes = Box::pin(response.bytes_stream());
        Self { bytes, decoder: Decoder::new(limit), limit }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Event, UpstreamError>> {
        loop {
            if let Some(event) = self.decoder.next() {
                return Some(Ok(event));
            }
            match self.bytes.next().await? {
                Err(error) => return Some(Err(broken(&error))),
                Ok(chunk) => {
                    if self.decoder.push(&chunk).is_err() {
                        return Some(Err(UpstreamError::EventTooLarge { limit: self.limit }));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_carries_a_servers_data() {
        let mut given = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json; charset=utf-16; x=078-05-1120"),
            ("x-customer", "078-05-1120"),
            ("location", "https://x/078-05-1120"),
            ("content-disposition", "attachment; filename=078-05-1120"),
            ("mcp-note", "078-05-1120"),
            ("etag", "078-05-1120"),
            ("x-accel-buffering", "078-05-1120"),
            ("retry-after", "078051120"),
            ("cache-control", "x=078-05-1120"),
        ] {
            given.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(returned_headers(&given), HeaderMap::new());
        given.insert("retry-after", HeaderValue::from_static("30"));
        given.insert("x-accel-buffering", HeaderValue::from_static("no"));
        given.insert("mcp-session-id", HeaderValue::from_static("s"));
        let returned = returned_headers(&given);
        assert_eq!(returned.len(), 3, "{returned:?}");
        assert_eq!(told(Some("x/078-05-1120")), "another content type");
    }
}
