//! What a local MCP client is told when its message cannot be carried: one shape for the local
//! port and for stdio, so that a client always gets an answer and never hangs.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::mcp::{DecodeError, Id};

/// Why a message could not be carried, in words that a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// A word for programs: the server's own where it gave one.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// The HTTP status for clients on the local port.
    pub status: StatusCode,
}

impl Problem {
    /// A problem with its status for the local port.
    pub fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, status }
    }

    /// A request was sent and has no answer; `message` says how that came.
    pub(super) fn outcome_unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "outcome_unknown", message)
            .hint("run `mcpx sessions` to see whether the call was made")
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Reads the error that a gateway or control server answered with: its own
    /// `{"error":{"code","message","hint"}}`, or a JSON-RPC error with the same in `data.mcpx`.
    pub fn of_answer(status: StatusCode, body: &[u8]) -> Self {
        let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let error = value.get("error");
        let text = |place: Option<&serde_json::Value>, key: &str| {
            place.and_then(|p| p.get(key)).and_then(|v| v.as_str()).map(str::to_owned)
        };
        let data = error.and_then(|error| error.get("data")?.get("mcpx"));
        let code = text(error, "code").or_else(|| text(data, "code"));
        let usual = match status {
            StatusCode::UNAUTHORIZED => "login_needed",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => "unreachable",
            _ => "failure",
        };
        Self {
            code: code.unwrap_or_else(|| usual.to_owned()),
            message: text(error, "message")
                .unwrap_or_else(|| format!("the gateway answered HTTP {status}")),
            hint: text(error, "hint").or_else(|| text(data, "hint")),
            status,
        }
    }

    /// This problem as a JSON-RPC error for the request `id`, or for nobody in particular.
    pub fn to_json_rpc(&self, id: Option<&Id>) -> String {
        // Most clients show the message only, so what to do next stands there as well.
        let message = match &self.hint {
            Some(hint) => format!("{} ({hint})", self.message),
            None => self.message.clone(),
        };
        json_rpc_error(id, number(&self.code), &message, &self.code, self.hint.as_deref(), None)
    }
}

/// A stream that should have brought an answer came to its end without one.
pub(super) const STREAM_ENDED: &str =
    "the server's stream ended before its answer; the call may have been made";
/// The way to the gateway broke before an answer.
pub(super) const STREAM_BROKE: &str =
    "the connection to the gateway broke before the answer; the call may have been made";

/// The JSON-RPC error code for one of our words, in the gateway's numbers for the same kinds of
/// trouble. All lie outside the ranges that JSON-RPC and MCP reserve.
fn number(code: &str) -> i64 {
    match code {
        "policy_denied" | "forbidden" => -31003,
        "needs_approval" => -31005,
        "login_needed" => -31004,
        "grant_expired" | "grant_revoked" | "grant_not_begun" => -31006,
        "unreachable" | "outcome_unknown" => -31007,
        code if code.starts_with("token_") || code == "grant_unknown" => -31004,
        code if code.starts_with("approval_") => -31005,
        _ => -31000,
    }
}

/// What a client is told whose message is none; for nobody in particular.
pub(super) fn malformed(error: &DecodeError) -> String {
    json_rpc_error(None, error.code(), &error.to_string(), "malformed_message", None, Some(error))
}

/// A JSON-RPC error message on one line.
fn json_rpc_error(
    id: Option<&Id>,
    number: i64,
    message: &str,
    code: &str,
    hint: Option<&str>,
    fault: Option<&DecodeError>,
) -> String {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: Option<&'a Id>,
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        code: i64,
        message: &'a str,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        mcpx: Ours<'a>,
    }
    #[derive(Serialize)]
    struct Ours<'a> {
        code: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        byte: Option<usize>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pointer: Option<&'a str>,
    }
    let byte = fault.map(|fault| fault.at);
    let pointer = fault.and_then(|fault| fault.pointer.as_deref());
    let mcpx = Ours { code, hint, byte, pointer };
    let error = Error { code: number, message, data: Data { mcpx } };
    // Texts and a number always serialize; the fallback only keeps the types honest.
    serde_json::to_string(&Response { jsonrpc: "2.0", id, error }).unwrap_or_default()
}

/// A server's error object, given to the request that it answers.
pub(super) fn json_rpc_error_for(id: &Id, error: &str) -> Option<String> {
    #[derive(Serialize)]
    struct Response<'a> {
        jsonrpc: &'static str,
        id: &'a Id,
        error: &'a RawValue,
    }
    let error = serde_json::from_str(error).ok()?;
    serde_json::to_string(&Response { jsonrpc: "2.0", id, error }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_of_error_are_read() {
        let api = Problem::of_answer(
            StatusCode::UNAUTHORIZED,
            br#"{"error":{"code":"grant_expired","message":"over","hint":"again"}}"#,
        );
        assert_eq!((api.code.as_str(), api.message.as_str()), ("grant_expired", "over"));
        assert_eq!(api.hint.as_deref(), Some("again"));
        let rpc = Problem::of_answer(
            StatusCode::OK,
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":-3,"message":"no","data":{"mcpx":{"code":"policy_denied"}}}}"#,
        );
        assert_eq!((rpc.code.as_str(), rpc.message.as_str()), ("policy_denied", "no"));
        let html = Problem::of_answer(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(html.code, "unreachable");
    }

    #[test]
    fn the_answer_keeps_the_type_of_the_id() {
        let text = Problem::new(StatusCode::BAD_GATEWAY, "unreachable", "a\nb")
            .to_json_rpc(Some(&Id::from_text("7")));
        assert_eq!(
            text,
            r#"{"jsonrpc":"2.0","id":"7","error":{"code":-31007,"message":"a\nb","data":{"mcpx":{"code":"unreachable"}}}}"#
        );
        assert!(Problem::new(StatusCode::OK, "x", "y").to_json_rpc(None).contains("\"id\":null"));
    }
}
