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

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use super::records::{Denied, OutEvent, Outbound, Refused, Waiting};
use super::refusal::rpc;
use crate::audit::Durable;
use crate::mcp::{headers, sse};

/// One piece of a stream.
pub enum Piece {
    /// A recorded event.
    Event(Durable<OutEvent>),
    /// A sign of life, which says nothing.
    KeepAlive,
    /// A whole answer, sent as an event because the stream had begun before it was known.
    Whole(Durable<Outbound>),
    /// A policy's no, likewise.
    Denied(Durable<Denied>),
    /// A refusal of one message of a batch.
    Refused(Durable<Refused>),
    /// The stream ends here without an end: what should follow could not be recorded.
    Broken,
}

/// What a client gets.
pub enum Reply {
    /// A whole answer.
    Whole(Durable<Outbound>),
    /// A stream: its recorded head, then recorded events.
    Stream(Durable<Outbound>, mpsc::Receiver<Piece>),
    /// A stream that begins by waiting for a person.
    Held(Durable<Waiting>, mpsc::Receiver<Piece>),
    /// The answers to a batch, in a stream whose head says nothing of any of them.
    Batch(mpsc::Receiver<Piece>),
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
            Self::Whole(outbound) | Self::Stream(outbound, _) => outbound.get().status.is_success(),
            Self::Denied(denied) => denied.get().status.is_success(),
            Self::Held(..) | Self::Batch(_) => true,
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
        Reply::Stream(outbound, pieces) => {
            let outbound = outbound.into_inner();
            response(outbound.status, outbound.headers, stream_body(pieces))
        }
        Reply::Held(_, pieces) | Reply::Batch(pieces) => {
            let mut head = HeaderMap::new();
            head.insert(CONTENT_TYPE, HeaderValue::from_static(headers::EVENT_STREAM));
            head.insert("x-accel-buffering", HeaderValue::from_static("no"));
            head.insert(CACHE_CONTROL, HeaderValue::from_static("no-transform"));
            response(StatusCode::OK, head, stream_body(pieces))
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
                let challenge = format!(
                    "DPoP error=\"invalid_token\", error_description=\"{}\", algs=\"ES256\"",
                    refusal.code
                );
                if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                }
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

fn stream_body(pieces: mpsc::Receiver<Piece>) -> Body {
    Body::from_stream(stream::unfold(pieces, async |mut pieces| {
        let bytes = match pieces.recv().await? {
            Piece::Event(event) => Ok(event.into_inner().frame),
            Piece::KeepAlive => Ok(sse::comment("")),
            Piece::Whole(outbound) => Ok(framed(outbound.into_inner().body.as_ref())),
            Piece::Denied(denied) => Ok(framed(denied.into_inner().answer.as_ref())),
            Piece::Refused(refused) => {
                let Refused { refusal, id, .. } = refused.get();
                Ok(framed(Some(&refusal.to_message(id.as_ref(), None))))
            }
            Piece::Broken => Err(std::io::Error::other("the audit log cannot be written")),
        };
        Some((bytes, pieces))
    }))
}

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
