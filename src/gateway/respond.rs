//! The only writer to clients. It takes what is on record, and nothing else:
//!
//! ```
//! use axum::{body::Body, http::Response};
//! use mcpx::{audit::Durable, gateway::records::Outbound, gateway::respond::{Reply, write}};
//! fn answer(outbound: Durable<Outbound>) -> Response<Body> {
//!     write(Reply::Whole(outbound))
//! }
//! ```
//!
//! The same without the proof that the record is on disk does not compile:
//!
//! ```compile_fail
//! use axum::{body::Body, http::Response};
//! use mcpx::{audit::Durable, gateway::records::Outbound, gateway::respond::{Reply, write}};
//! fn answer(outbound: Outbound) -> Response<Body> {
//!     write(Reply::Whole(outbound))
//! }
//! ```
//!
//! Nor does an answer that did not go through masking, because nothing outside the gateway can
//! make an [`Outbound`].

use std::collections::VecDeque;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use tokio::sync::mpsc;

use super::records::{Denied, OutEvent, Outbound, Refused, Resumed, Waiting};
use super::refusal::rpc;
use crate::audit::Durable;
use crate::mcp::{headers, sse};
use crate::policy::Permit;

/// One piece of a stream. Copies of it are the same piece, for the same client.
#[derive(Clone)]
pub enum Piece {
    /// A recorded event.
    Event(Arc<Durable<OutEvent>>),
    /// A sign of life, which says nothing.
    KeepAlive,
    /// A whole answer, sent as an event because the stream had begun before it was known.
    Whole(Arc<Durable<Outbound>>),
    /// A policy's no, likewise.
    Denied(Arc<Durable<Denied>>),
    /// A refusal of one message of a batch.
    Refused(Arc<Durable<Refused>>),
    /// The stream ends here without an end: what should follow could not be recorded.
    Broken,
    /// An id of ours and nothing else, by which the client can take the stream up.
    Primer(String),
    /// A piece under an id of ours.
    Placed(String, Box<Self>),
}

impl Piece {
    /// How many bytes it is to keep, about.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Event(event) => event.get().frame.len(),
            Self::Whole(whole) => whole.get().body.as_ref().map_or(0, Bytes::len),
            Self::Denied(denied) => denied.get().answer.as_ref().map_or(0, Bytes::len),
            Self::Refused(refused) => refused.get().refusal.message.len(),
            Self::Placed(_, piece) => piece.len(),
            Self::KeepAlive | Self::Broken | Self::Primer(_) => 0,
        }
    }

    /// Whether it is an event with an id of the server's own.
    pub(super) fn has_id(&self) -> bool {
        let Self::Event(event) = self else { return false };
        let mut lines = event.get().frame.split(|byte| *byte == b'\n');
        lines.any(|line| line.starts_with(b"id:"))
    }

    /// The piece under an id of ours, unless it has one of the server's own.
    pub(super) fn under(self, id: impl FnOnce() -> Option<String>) -> Self {
        if self.has_id() {
            return self;
        }
        match id() {
            Some(id) => Self::Placed(id, Box::new(self)),
            None => self,
        }
    }
}

/// What a stream is read from: what was kept of it, then what comes.
pub struct Pieces {
    kept: VecDeque<Piece>,
    live: mpsc::Receiver<Piece>,
}

impl Pieces {
    pub(super) fn after(kept: VecDeque<Piece>, live: mpsc::Receiver<Piece>) -> Self {
        Self { kept, live }
    }

    pub(super) async fn next(&mut self) -> Option<Piece> {
        match self.kept.pop_front() {
            Some(piece) => Some(piece),
            None => self.live.recv().await,
        }
    }
}

impl From<mpsc::Receiver<Piece>> for Pieces {
    fn from(live: mpsc::Receiver<Piece>) -> Self {
        Self { kept: VecDeque::new(), live }
    }
}

/// What allows a stream to begin.
pub enum Opening {
    /// A record of the upstream's own head, of which something goes on to the client.
    Recorded(Box<Durable<Outbound>>),
    /// The call's record. The head is the gateway's, and says no more than that there was a call;
    /// at most the client's own session id stands in it again.
    Forwarded(Arc<Durable<Permit>>, Option<HeaderValue>),
    /// The record of a stream's being taken up again.
    Resumed(Box<Durable<Resumed>>),
    /// The record of a wait.
    Waiting(Box<Durable<Waiting>>),
}

/// What a client gets.
pub enum Reply {
    /// A whole answer.
    Whole(Durable<Outbound>),
    /// A stream: its head, then recorded events.
    Stream(Opening, Pieces),
    /// The answers to a batch, in a stream whose head says nothing of any of them.
    Batch(Pieces),
    /// A policy's no.
    Denied(Durable<Denied>),
    /// A refusal before there was a call.
    Refused(Durable<Refused>),
    /// Nothing: the client has left, and nobody reads it.
    Left,
    /// That nothing can be recorded. Says nothing of the call or its answer.
    Unrecorded {
        /// Whether the call itself had been forwarded, so that its outcome is unknown.
        forwarded: bool,
    },
}

impl Reply {
    /// Whether it tells of success, as far as its status does.
    pub(super) fn is_success(&self) -> bool {
        match self {
            Self::Whole(outbound) => outbound.get().status.is_success(),
            Self::Stream(Opening::Recorded(outbound), _) => outbound.get().status.is_success(),
            Self::Denied(denied) => denied.get().status.is_success(),
            Self::Stream(..) | Self::Batch(_) => true,
            Self::Refused(_) | Self::Left | Self::Unrecorded { .. } => false,
        }
    }
}

/// Writes a reply.
pub fn write(reply: Reply) -> Response<Body> {
    match reply {
        Reply::Whole(outbound) => {
            let outbound = outbound.into_inner();
            let body = outbound.body.map_or_else(Body::empty, Body::from);
            response(outbound.status, outbound.headers, body)
        }
        Reply::Stream(Opening::Recorded(outbound), pieces) => {
            let outbound = outbound.into_inner();
            response(outbound.status, outbound.headers, stream_body(pieces))
        }
        Reply::Stream(Opening::Forwarded(_, session), pieces) => own_stream(session, pieces),
        Reply::Stream(Opening::Resumed(_) | Opening::Waiting(_), pieces) | Reply::Batch(pieces) => {
            own_stream(None, pieces)
        }
        Reply::Denied(denied) => {
            let denied = denied.into_inner();
            match denied.answer {
                Some(answer) => json(denied.status, answer),
                None => response(denied.status, HeaderMap::new(), Body::empty()),
            }
        }
        Reply::Refused(refused) => {
            let Refused { refusal, id, .. } = refused.get();
            // A refusal quotes keys and places of a message, never its values, and is masked.
            let mut response = json(refusal.status, refusal.to_message(id.as_ref(), None));
            if refusal.status == StatusCode::UNAUTHORIZED {
                let error =
                    if refusal.nonce.is_some() { "use_dpop_nonce" } else { "invalid_token" };
                let challenge = format!(
                    "DPoP error=\"{error}\", error_description=\"{}\", algs=\"EdDSA ES256\"",
                    refusal.code
                );
                if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
            }
            if let Some(nonce) =
                refusal.nonce.as_deref().and_then(|n| HeaderValue::from_str(n).ok())
            {
                response.headers_mut().insert("dpop-nonce", nonce);
            }
            if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = HeaderValue::from_static("POST, GET, DELETE");
                response.headers_mut().insert("allow", allowed);
            }
            response
        }
        Reply::Left => response(StatusCode::NO_CONTENT, HeaderMap::new(), Body::empty()),
        Reply::Unrecorded { forwarded } => {
            let code = rpc::FAILED_CLOSED;
            let what = if forwarded {
                "the answer was withheld; whether the call took effect is unknown"
            } else {
                "without a record the call was refused and not forwarded"
            };
            let message = format!(
                r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"the audit log cannot be written: {what}","data":{{"mcpx":{{"code":"audit_unavailable","forwarded":{forwarded}}}}}}}}}"#
            );
            json(StatusCode::SERVICE_UNAVAILABLE, Bytes::from(message))
        }
    }
}

/// A stream under a head of the gateway's own.
fn own_stream(session: Option<HeaderValue>, pieces: Pieces) -> Response<Body> {
    let mut head = HeaderMap::new();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(headers::EVENT_STREAM));
    head.insert("x-accel-buffering", HeaderValue::from_static("no"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-transform"));
    if let Some(session) = session {
        head.insert(headers::SESSION_ID, session);
    }
    response(StatusCode::OK, head, stream_body(pieces))
}

fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let head = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(headers::JSON))]);
    response(status, head, Body::from(body))
}

fn response(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // What an answer holds depends on who asked. A proxy that rewrote what it may not rewrite
    // would hold back events.
    let kept = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let as_it_is =
        kept.flat_map(|value| value.split(',')).any(|word| word.trim() == "no-transform");
    let control = if as_it_is { "no-store, no-transform" } else { "no-store" };
    *response.headers_mut() = headers;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(control));
    response
}

fn stream_body(pieces: Pieces) -> Body {
    Body::from_stream(stream::unfold(pieces, async |mut pieces| {
        let piece = pieces.next().await?;
        Some((written(&piece), pieces))
    }))
}

fn written(piece: &Piece) -> std::io::Result<Bytes> {
    Ok(match piece {
        Piece::Event(event) => event.get().frame.clone(),
        Piece::KeepAlive => sse::comment(""),
        Piece::Whole(outbound) => framed(outbound.get().body.as_ref()),
        Piece::Denied(denied) => framed(denied.get().answer.as_ref()),
        Piece::Refused(refused) => {
            let Refused { refusal, id, .. } = refused.get();
            framed(Some(&refusal.to_message(id.as_ref(), None)))
        }
        Piece::Primer(id) => Bytes::from(format!("retry: {RETRY}\nid: {id}\ndata: \n\n")),
        Piece::Placed(id, piece) => {
            let mut bytes = BytesMut::from(format!("id: {id}\n").as_bytes());
            bytes.extend_from_slice(&written(piece)?);
            bytes.freeze()
        }
        Piece::Broken => return Err(std::io::Error::other("the audit log cannot be written")),
    })
}

/// After how many milliseconds a client that is cut off should come back.
const RETRY: u32 = 1000;

fn framed(message: Option<&Bytes>) -> Bytes {
    let text = message.and_then(|message| std::str::from_utf8(message).ok());
    text.map_or_else(|| sse::comment(""), |text| sse::encode(None, None, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_keeps_an_answer_and_proxies_leave_streams_alone() {
        let cases = [
            (None, "no-store"),
            (Some("public, max-age=60"), "no-store"),
            (Some("no-cache, no-transform"), "no-store, no-transform"),
            (Some("no-transform"), "no-store, no-transform"),
        ];
        for (given, expected) in cases {
            let head = given.map(|value| (CACHE_CONTROL, HeaderValue::from_static(value)));
            let head = HeaderMap::from_iter(head);
            let response = response(StatusCode::OK, head, Body::empty());
            assert_eq!(response.headers()[CACHE_CONTROL], expected, "{given:?}");
        }
    }
}
