//! What is called: one strict message, one of the two acts of the transport without one, or a
//! batch of messages.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};

use super::Gateway;
use super::authenticate::Caller;
use super::batch::Element;
use super::records::{self, Refused};
use super::refusal::Refusal;
use crate::mcp::modern::{self, Mirrored};
use crate::mcp::{Era, Kind, Message, Origin, batch, headers, mirror};
use crate::policy::{Act, Call, Direction, Target, Way};
use crate::types::CallId;

/// What one HTTP request holds.
pub(super) enum Decoded {
    /// One call.
    Call(Box<Call>),
    /// A 2025-03-26 batch.
    Batch(Vec<Element>),
}

impl Gateway {
    pub(super) async fn decode(
        &self,
        caller: &Caller,
        head: &Parts,
        body: Body,
    ) -> Result<Decoded, Refused> {
        let refused = |refusal| caller.refused(refusal);
        let act = match head.method {
            Method::GET => Act::Listen,
            Method::DELETE => Act::End,
            _ => {
                let limits = &self.settings.limits;
                let bytes = read(body, limits.bytes).await.map_err(refused)?;
                if batch::is_batch(&bytes) {
                    let elements = self.elements(caller, head, &bytes).map_err(refused)?;
                    return Ok(Decoded::Batch(elements));
                }
                let message = Message::decode(bytes, Origin::Client, limits);
                Act::Message(message.map_err(|error| refused(Refusal::from(&error)))?)
            }
        };
        let call = self.checked(caller, head, act).map_err(|refused| *refused)?;
        Ok(Decoded::Call(Box::new(call)))
    }

    /// The call of an act, with what the request's head says of it checked.
    pub(super) fn checked(
        &self,
        caller: &Caller,
        head: &Parts,
        act: Act,
    ) -> Result<Call, Box<Refused>> {
        // What is refused from here on was read, so that its answer can name it.
        let id = match &act {
            Act::Message(message) => match message.kind() {
                Kind::Request { id, .. } => Some(id.clone()),
                Kind::Notification { .. } | Kind::Response { .. } => None,
            },
            Act::Listen | Act::End => None,
        };
        let way = caller.way(Direction::ClientToServer, caller.era(&act));
        let call = self.call(caller, way, act).and_then(|call| {
            check_mirrored_headers(&head.headers, &call)?;
            self.check_modern(caller, &head.headers, &call)?;
            Ok(call)
        });
        call.map_err(|refusal| Box::new(Refused { id, ..caller.refused(refusal) }))
    }

    /// What a Streamable HTTP server checks itself, the gateway checks for every other.
    fn check_modern(&self, caller: &Caller, given: &HeaderMap, call: &Call) -> Result<(), Refusal> {
        let Some(message) = call.message() else { return Ok(()) };
        if !caller.upstream.is_pipe() || call.era == Era::Legacy {
            return Ok(());
        }
        let header = |name| given.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let given = Mirrored {
            version: header(headers::PROTOCOL_VERSION),
            method: header(headers::METHOD),
            name: header(headers::NAME),
        };
        modern::check(given, message).map_err(|error| Refusal::from(&error))
    }

    /// The headers `Mcp-Param-…` of a client as records may show them.
    fn params(&self, given: &HeaderMap, way: Way) -> Vec<(String, String)> {
        if way.direction == Direction::ServerToClient {
            return Vec::new();
        }
        let params =
            given.iter().filter(|(name, _)| name.as_str().starts_with(headers::PARAM_PREFIX));
        let shown = params.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            let value = headers::decode_value(&value).unwrap_or(std::borrow::Cow::Borrowed(&value));
            let name = records::recordable(name.as_str(), &self.masker);
            (name, records::recordable(&value, &self.masker))
        });
        shown.collect()
    }

    /// Makes the call of an act, with the masked form that records and approvers may see.
    pub(super) fn call(&self, caller: &Caller, way: Way, act: Act) -> Result<Call, Refusal> {
        let shown = match &act {
            Act::Message(message) => self
                .masker
                .message(message.raw())
                .map_err(|error| {
                    tracing::warn!(%error, "a message could not be masked");
                    Refusal::failed_closed("unmaskable", "the message cannot be masked")
                })?
                .bytes()
                .clone(),
            Act::Listen | Act::End => Bytes::new(),
        };
        let id = CallId::generate()
            .map_err(|_| Refusal::failed_closed("no_randomness", "no call id can be made"))?;
        let mut call = Call::new(
            id,
            caller.grant.session.clone(),
            Arc::clone(&caller.grant.subject),
            caller.grant.connection.clone(),
            way,
            act,
        )
        .map_err(|error| Refusal::from(&error))?;
        call.source = caller.source;
        call.extra = self.params(&caller.headers, way);
        call.shown = shown;
        Ok(call)
    }
}

async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let whole = Limited::new(body, limit).collect().await;
    Ok(whole.map_err(|_too_long_or_broken| Refusal::body(limit))?.to_bytes())
}

/// A mirrored header that is there must say what the body says: intermediaries decide by the
/// header, servers by the body (MCP 2026-07-28 `basic/transports/streamable-http`).
fn check_mirrored_headers(given: &HeaderMap, call: &Call) -> Result<(), Refusal> {
    let Some(message) = call.message() else { return Ok(()) };
    // Which version it is, the server checks; but of two, it may well check the other one.
    let mut versions = given.get_all(headers::PROTOCOL_VERSION).iter();
    let version = versions.next();
    if versions.next().is_some() || version.is_some_and(|value| value.as_bytes().contains(&b',')) {
        return Err(Refusal::header_mismatch(headers::PROTOCOL_VERSION));
    }
    let named = match call.target() {
        Target::Connection => None,
        Target::Tool(name) | Target::Prompt(name) | Target::Resource(name) => Some(name.as_str()),
    };
    for (header, expected) in [(headers::METHOD, message.method()), (headers::NAME, named)] {
        for value in given.get_all(header) {
            let value = value.to_str().ok().and_then(|value| headers::decode_value(value).ok());
            // A name where the body names nothing that we know of is not ours to judge.
            let Some(expected) = expected else { continue };
            if value.as_deref() != Some(expected) {
                return Err(Refusal::header_mismatch(header));
            }
        }
    }
    Ok(())
}

/// The headers that repeat a tool's arguments say what the body says, as far as the tool's pinned
/// definition tells which they are. Asked once policy has spoken, so that nobody learns from it of
/// a tool that is hidden from them.
pub(super) fn check_params(given: &HeaderMap, call: &Call) -> Result<(), Refusal> {
    if call.era == Era::Legacy {
        return Ok(());
    }
    let values = |name: &str| given.get_all(name).iter().map(|value| value.to_str().ok()).collect();
    mirror::check(&call.mirrored, call.arguments(), values)
        .map_err(|mirror::Mismatch(header)| Refusal::header_mismatch(&header))
}
