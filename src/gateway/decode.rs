//! What is called: one strict message, or one of the two acts of the transport without one.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;

use super::Gateway;
use super::authenticate::Caller;
use super::records::Refused;
use super::refusal::Refusal;
use crate::mcp::modern::{self, Mirrored};
use crate::mcp::{Kind, Message, Origin, headers};
use crate::policy::{Act, Call, Direction, Target};
use crate::types::CallId;

impl Gateway {
    pub(super) async fn decode(
        &self,
        caller: &Caller,
        head: &Parts,
        body: Body,
    ) -> Result<Call, Refused> {
        let act = self.act(head, body).await.map_err(|refusal| caller.refused(refusal))?;
        // What is refused from here on was read, so that its answer can name it.
        let id = match &act {
            Act::Message(message) => match message.kind() {
                Kind::Request { id, .. } => Some(id.clone()),
                Kind::Notification { .. } | Kind::Response { .. } => None,
            },
            Act::Listen | Act::End => None,
        };
        let call = self.call(caller, Direction::ClientToServer, act).and_then(|call| {
            check_mirrored_headers(&head.headers, &call)?;
            self.check_modern(caller, &head.headers, &call)?;
            Ok(call)
        });
        call.map_err(|refusal| Refused { id, ..caller.refused(refusal) })
    }

    async fn act(&self, head: &Parts, body: Body) -> Result<Act, Refusal> {
        match head.method {
            Method::GET => return Ok(Act::Listen),
            Method::DELETE => return Ok(Act::End),
            _ => {}
        }
        let limit = self.settings.limits.bytes;
        let bytes = Limited::new(body, limit)
            .collect()
            .await
            .map_err(|_too_long_or_broken| Refusal::body(limit))?
            .to_bytes();
        let message = Message::decode(bytes, Origin::Client, &self.settings.limits)
            .map_err(|error| Refusal::from(&error))?;
        Ok(Act::Message(message))
    }

    /// What a Streamable HTTP server checks itself, the gateway checks for every other.
    fn check_modern(&self, caller: &Caller, given: &HeaderMap, call: &Call) -> Result<(), Refusal> {
        let Some(message) = call.message() else { return Ok(()) };
        if !caller.upstream.is_pipe() || caller.protocol_session.is_some() {
            return Ok(());
        }
        let header = |name| given.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let given = Mirrored {
            version: header(headers::PROTOCOL_VERSION),
            method: header(headers::METHOD),
            name: header(headers::NAME),
        };
        if !modern::is_modern(given.version, message) {
            return Ok(());
        }
        modern::check(given, message).map_err(|error| Refusal::from(&error))
    }

    /// Makes the call of an act, with the masked form that records and approvers may see.
    pub(super) fn call(
        &self,
        caller: &Caller,
        direction: Direction,
        act: Act,
    ) -> Result<Call, Refusal> {
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
            direction,
            act,
        )
        .map_err(|error| Refusal::from(&error))?;
        call.source = caller.source;
        call.shown = shown;
        Ok(call)
    }
}

/// A mirrored header that is there must say what the body says: intermediaries decide by the
/// header, servers by the body (MCP 2026-07-28 `basic/transports/streamable-http`).
fn check_mirrored_headers(given: &HeaderMap, call: &Call) -> Result<(), Refusal> {
    let Some(message) = call.message() else { return Ok(()) };
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
    // Which argument a header repeats is in the tool's schema, which the gateway does not keep; but
    // a value that no argument has was neither judged nor recorded.
    for (header, value) in given {
        if header.as_str().starts_with(headers::PARAM_PREFIX) {
            let value = value.to_str().ok().and_then(|value| headers::decode_value(value).ok());
            let repeats =
                value.is_some_and(|value| call.arguments().is_some_and(|a| holds(a, &value)));
            if !repeats {
                return Err(Refusal::header_mismatch(header.as_str()));
            }
        }
    }
    Ok(())
}

/// Whether some value in the arguments is written so.
fn holds(arguments: &Value, text: &str) -> bool {
    match arguments {
        Value::Null => false,
        Value::Bool(flag) => text == if *flag { "true" } else { "false" },
        Value::Number(number) => {
            number.to_string() == text
                || (text.parse().ok().is_some_and(|other: f64| number.as_f64() == Some(other)))
        }
        Value::String(string) => string == text,
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(members) => members.values().any(|member| holds(member, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_repeats_an_argument_or_is_refused() {
        let arguments =
            serde_json::json!({"region": "eu", "at": {"zone": 7, "dry": false}, "x": 1.5});
        for good in ["eu", "7", "7.0", "false", "1.5"] {
            assert!(holds(&arguments, good), "{good}");
        }
        for bad in ["us", "EU", "8", "true", "", "null"] {
            assert!(!holds(&arguments, bad), "{bad}");
        }
    }
}
