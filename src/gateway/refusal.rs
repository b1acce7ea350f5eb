//! What the gateway says in its own name: every refusal, with its codes.
//!
//! A refusal is told twice from the same fields: as a JSON-RPC error with `data.mcpx` for
//! programs, and by its message and hint for people. The JSON-RPC codes lie outside the range
//! that JSON-RPC and MCP reserve (-32768 to -32000), except where the protocol itself defines the
//! case.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::ports::{Ended, PortError};
use super::seal::UnknownSession;
use super::slots::Full;
use crate::audit::{Outcome, RefusalStage};
use crate::identity::TokenError;
use crate::identity::possession::PossessionError;
use crate::mcp::batch;
use crate::mcp::modern::Incomplete;
use crate::mcp::{DecodeError, Fault, Id};
use crate::policy::call::NoTarget;
use crate::policy::{Call, Denial};
use crate::types::{ApprovalId, CallId, ConnectionName};
use crate::upstream::UpstreamError;

/// The gateway's own JSON-RPC error codes.
pub mod rpc {
    /// No valid grant.
    pub const UNAUTHENTICATED: i64 = -31004;
    /// Policy says no.
    pub const DENIED: i64 = -31003;
    /// A person said no, or has not said yes in time.
    pub const APPROVAL: i64 = -31005;
    /// The grant is over.
    pub const GRANT_ENDED: i64 = -31006;
    /// The MCP server failed.
    pub const UPSTREAM: i64 = -31007;
    /// What must be recorded or masked could not be.
    pub const FAILED_CLOSED: i64 = -31008;
    /// A configured limit on number or time.
    pub const LIMIT: i64 = -31009;
    /// MCP 2026-07-28: a mirrored header is not what the body says.
    pub const HEADER_MISMATCH: i64 = -32020;
    /// JSON-RPC: invalid request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// JSON-RPC: no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// JSON-RPC: invalid params.
    pub const INVALID_PARAMS: i64 = -32602;
}

/// A refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The JSON-RPC error code.
    pub rpc: i64,
    /// The stable word for programs.
    pub code: &'static str,
    /// How far the caller came.
    pub stage: RefusalStage,
    /// One sentence for people.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The rules that refused.
    pub rules: Vec<String>,
    /// The approval that is missing.
    pub approval: Option<ApprovalId>,
    /// In how many seconds trying again may help.
    pub retry_after: Option<u64>,
    /// Where in a message the fault is: the byte, and a JSON pointer.
    pub place: Option<(usize, Option<String>)>,
    /// The nonce that the next proof must have.
    pub nonce: Option<String>,
}

impl Refusal {
    fn new(
        status: StatusCode,
        rpc: i64,
        code: &'static str,
        stage: RefusalStage,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            rpc,
            code,
            stage,
            message: message.into(),
            hint: None,
            rules: Vec::new(),
            approval: None,
            retry_after: None,
            place: None,
            nonce: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn unauthenticated(code: &'static str, message: impl Into<String>) -> Self {
        let stage = RefusalStage::Authenticate;
        Self::new(StatusCode::UNAUTHORIZED, rpc::UNAUTHENTICATED, code, stage, message)
    }

    /// No token, or not in the form of RFC 9449 or RFC 6750.
    pub fn no_token() -> Self {
        Self::unauthenticated("token_missing", "a grant token bound to a key is needed")
            .hint("connect through `mcpx connect NAME`, which gets one")
    }

    /// The grant named by a token is not known here.
    pub fn unknown_grant() -> Self {
        Self::unauthenticated("grant_unknown", "the grant of this token is not known here")
            .hint("run `mcpx connect NAME` again")
    }

    /// The grant is over.
    pub fn ended(ended: Ended) -> Self {
        let (code, message) = match ended {
            Ended::Expired => ("grant_expired", "the grant has expired"),
            Ended::Revoked => ("grant_revoked", "the grant has been revoked"),
        };
        let mut refusal = Self::unauthenticated(code, message)
            .hint("run `mcpx connect NAME` again to ask for a new one");
        refusal.rpc = rpc::GRANT_ENDED;
        refusal
    }

    /// There is no such connection.
    pub fn no_connection(name: &str) -> Self {
        let message = format!("there is no connection named {name:?}");
        let stage = RefusalStage::Route;
        Self::new(StatusCode::NOT_FOUND, rpc::INVALID_REQUEST, "connection_unknown", stage, message)
            .hint("`mcpx ls` lists the connections that you may use")
    }

    /// A web page of somebody else asks.
    pub fn foreign_origin() -> Self {
        let stage = RefusalStage::Route;
        let message = "web pages of another origin may not use this server";
        Self::new(StatusCode::FORBIDDEN, rpc::INVALID_REQUEST, "foreign_origin", stage, message)
    }

    /// A method other than POST, GET and DELETE.
    pub fn method_not_allowed() -> Self {
        let stage = RefusalStage::Route;
        let message = "MCP uses POST, GET and DELETE";
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, rpc::INVALID_REQUEST, "method_not_allowed", stage, message)
    }

    /// The request's body broke off or is over the bound.
    pub fn body(limit: usize) -> Self {
        let message = format!("the request's body broke off or has more than {limit} bytes");
        let stage = RefusalStage::Limit;
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, rpc::INVALID_REQUEST, "too_large", stage, message)
    }

    /// The request's body did not arrive in time.
    pub fn slow_body(after: Duration) -> Self {
        let message = format!("the request's body did not arrive within {} s", after.as_secs());
        let stage = RefusalStage::Limit;
        let status = StatusCode::REQUEST_TIMEOUT;
        Self::new(status, rpc::INVALID_REQUEST, "body_timeout", stage, message)
    }

    /// As many streams are open as may be; nothing was forwarded.
    pub fn full(full: Full) -> Self {
        let (status, code, message) = match full {
            Full::Session { limit } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_streams",
                format!("this session has {limit} calls and streams open, the most it may have"),
            ),
            Full::All { limit } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "server_full",
                format!("the gateway has {limit} calls and streams open, the most it takes"),
            ),
        };
        Self::new(status, rpc::LIMIT, code, RefusalStage::Limit, message)
            .hint("nothing was forwarded; close a stream or try again later")
    }

    /// What came after the client's `Last-Event-ID` is not kept.
    pub fn stream_gone() -> Self {
        let message = "what followed this Last-Event-ID is not kept any more";
        let stage = RefusalStage::Route;
        Self::new(StatusCode::GONE, rpc::INVALID_REQUEST, "stream_gone", stage, message)
            .hint("`mcpx sessions` shows whether the call was made")
    }

    /// The MCP server said nothing for too long; whether the call took effect is unknown.
    pub fn call_timed_out(connection: &ConnectionName, after: Duration) -> Self {
        let message = format!(
            "connection {connection}: the MCP server said nothing for {} s; whether the call took \
             effect is unknown",
            after.as_secs()
        );
        let mut refusal = Self::upstream("call_timeout", message);
        refusal.status = StatusCode::GATEWAY_TIMEOUT;
        refusal
    }

    /// A mirrored header of the modern era differs from the body.
    pub fn header_mismatch(header: &str) -> Self {
        let message = format!("the header {header} is not what the body says");
        let stage = RefusalStage::Decode;
        Self::new(StatusCode::BAD_REQUEST, rpc::HEADER_MISMATCH, "header_mismatch", stage, message)
    }

    /// A batch where there are none: outside a session of the one version that has them.
    pub fn no_batches() -> Self {
        Self::from(&DecodeError::at(0, Fault::Batch)).hint(format!(
            "only sessions that were initialized with {} have batches",
            batch::VERSION
        ))
    }

    /// A batch of a client that takes no event stream, in which its answers would come.
    pub fn batch_needs_stream() -> Self {
        let stage = RefusalStage::Decode;
        let message = "the answers to a batch come as an event stream";
        let status = StatusCode::NOT_ACCEPTABLE;
        Self::new(status, rpc::INVALID_REQUEST, "malformed_message", stage, message)
            .hint("send \"Accept: application/json, text/event-stream\", as MCP asks")
    }

    /// The server stops; what the call did at the MCP server is unknown.
    pub fn stopping() -> Self {
        let stage = RefusalStage::Route;
        let message = "the gateway stops; whether the call took effect is unknown";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, rpc::FAILED_CLOSED, "server_stopping", stage, message)
    }

    /// The tool or prompt is in quarantine.
    pub fn quarantined(call: &Call, denial: &Denial) -> Self {
        let mut refusal = Self::from(denial);
        refusal.code = "tool_quarantined";
        refusal.hint(format!("an operator sees why with `mcpx tools diff {}`", call.connection))
    }

    /// A person said no.
    pub fn rejected(approval: ApprovalId, reason: Option<&str>, rules: &[String]) -> Self {
        let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let message = format!("the approver denied this call{why}");
        let mut refusal = Self::approval("approval_denied", approval, message);
        refusal.rules = rules.to_vec();
        refusal
    }

    /// Nobody has said yes in time; the request stays open.
    pub fn pending(approval: ApprovalId, groups: &[String], rules: &[String]) -> Self {
        let from = groups.join(" or ");
        let message = format!("this call waits for approval {approval} by somebody of {from}");
        let hint =
            format!("ask them to run `mcpx approve {approval}`, then make the same call again");
        let mut refusal = Self::approval("approval_pending", approval, message).hint(hint);
        refusal.rules = rules.to_vec();
        refusal
    }

    /// The request for approval lapsed.
    pub fn approval_expired(approval: ApprovalId) -> Self {
        let message = format!("nobody decided on approval {approval} in time");
        Self::approval("approval_expired", approval, message)
            .hint("make the call again to ask again")
    }

    /// Another call, the same to the letter, used the approval first.
    pub fn approval_taken(approval: ApprovalId) -> Self {
        let message = format!("approval {approval} was used by another call, equal to this one");
        Self::approval("approval_used", approval, message).hint("make the call again to ask again")
    }

    fn approval(code: &'static str, approval: ApprovalId, message: String) -> Self {
        let mut refusal =
            Self::new(StatusCode::OK, rpc::APPROVAL, code, RefusalStage::Route, message);
        refusal.approval = Some(approval);
        refusal
    }

    /// The MCP server answered with what the strict decoder refuses.
    pub fn upstream_malformed(connection: &ConnectionName, error: &DecodeError) -> Self {
        let message =
            format!("connection {connection}: the MCP server sent an unusable message: {error}");
        let code = match error.fault {
            Fault::TooLarge { .. } => "upstream_too_large",
            Fault::TooDeep { .. } => "upstream_too_deep",
            _ => "upstream_malformed",
        };
        let place = Some((error.at, error.pointer.clone()));
        Self { place, ..Self::upstream(code, message) }
    }

    /// The MCP server answered a request that was not made here.
    pub fn answers_another(connection: &ConnectionName) -> Self {
        let message = format!("connection {connection}: the MCP server answered another request");
        Self::upstream("upstream_malformed", message)
    }

    fn upstream(code: &'static str, message: impl Into<String>) -> Self {
        let stage = RefusalStage::Route;
        Self::new(StatusCode::BAD_GATEWAY, rpc::UPSTREAM, code, stage, message)
    }

    /// What must happen before anything leaves could not happen.
    pub fn failed_closed(code: &'static str, message: impl Into<String>) -> Self {
        let stage = RefusalStage::Route;
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, rpc::FAILED_CLOSED, code, stage, message)
            .hint("nothing was let through; the operator finds the cause in the server's log")
    }

    /// How a call ends whose answer is refused so.
    pub(super) fn outcome(&self) -> Outcome {
        if self.rpc == rpc::DENIED { Outcome::Denied } else { Outcome::UpstreamFailed }
    }

    /// The refusal as a JSON-RPC error answering `id`.
    pub fn to_message(&self, id: Option<&Id>, call: Option<&CallId>) -> Bytes {
        let mut mcpx = Map::new();
        mcpx.insert("code".to_owned(), json!(self.code));
        if !self.rules.is_empty() {
            mcpx.insert("rules".to_owned(), json!(self.rules));
        }
        if let Some(approval) = &self.approval {
            mcpx.insert("approval".to_owned(), json!(approval));
        }
        if let Some(call) = call {
            mcpx.insert("call".to_owned(), json!(call));
        }
        if let Some((at, pointer)) = &self.place {
            mcpx.insert("byte".to_owned(), json!(at));
            if let Some(pointer) = pointer {
                mcpx.insert("pointer".to_owned(), json!(pointer));
            }
        }
        if let Some(hint) = &self.hint {
            mcpx.insert("hint".to_owned(), json!(hint));
        }
        if let Some(seconds) = self.retry_after {
            mcpx.insert("retry_after".to_owned(), json!(seconds));
        }
        let mut message = self.message.clone();
        if let Some(hint) = &self.hint {
            message.push_str(" (");
            message.push_str(hint);
            message.push(')');
        }
        let error = json!({ "code": self.rpc, "message": message, "data": { "mcpx": Value::Object(mcpx) } });
        let id = id.map_or("null", Id::as_json);
        Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
    }

    /// The refusal as a tool's result with `isError`, which reaches the model and not only the
    /// client: for a call that may pass later.
    pub fn to_tool_result(&self, id: &Id) -> Bytes {
        let mut text = self.message.clone();
        if let Some(hint) = &self.hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        let meta = json!({ "code": self.code, "approval": self.approval, "rules": self.rules });
        // `resultType` is required in the modern era and unknown, so ignored, in the legacy one.
        let result = json!({
            "content": [{ "type": "text", "text": text }],
            "isError": true,
            "resultType": "complete",
            "_meta": { "mcpx": meta },
        });
        Bytes::from(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.as_json()))
    }
}

impl From<&TokenError> for Refusal {
    fn from(error: &TokenError) -> Self {
        let hint = match error {
            TokenError::Expired { .. } => "run `mcpx connect NAME` again",
            TokenError::WrongAudience { .. } => "each connection needs a grant of its own",
            _ => "connect through `mcpx connect NAME`",
        };
        let code = match error {
            TokenError::Expired { .. } => "grant_expired",
            other => other.code(),
        };
        Self::unauthenticated(code, error.to_string()).hint(hint)
    }
}

impl Refusal {
    /// The request does not show what its token is bound to. A nonce goes along where it is all
    /// that was missing.
    pub fn possession(error: &PossessionError, nonce: Option<String>) -> Self {
        let refusal = Self::unauthenticated(error.code(), error.to_string());
        let nonce = nonce.filter(|_| refusal.code == "use_dpop_nonce");
        Self { nonce, ..refusal }
    }
}

impl From<&DecodeError> for Refusal {
    fn from(error: &DecodeError) -> Self {
        let (status, stage, code) = match error.fault {
            Fault::TooLarge { .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, RefusalStage::Limit, "too_large")
            }
            Fault::TooDeep { .. } => (StatusCode::BAD_REQUEST, RefusalStage::Limit, "too_deep"),
            _ => (StatusCode::BAD_REQUEST, RefusalStage::Decode, "malformed_message"),
        };
        let place = Some((error.at, error.pointer.clone()));
        Self { place, ..Self::new(status, error.code(), code, stage, error.to_string()) }
    }
}

impl From<&NoTarget> for Refusal {
    fn from(error: &NoTarget) -> Self {
        let stage = RefusalStage::Decode;
        let status = StatusCode::BAD_REQUEST;
        Self::new(status, rpc::INVALID_PARAMS, "malformed_message", stage, error.to_string())
    }
}

impl From<&Incomplete> for Refusal {
    fn from(error: &Incomplete) -> Self {
        let (status, rpc, code) = match error {
            Incomplete::Envelope(_) => {
                (StatusCode::BAD_REQUEST, rpc::INVALID_PARAMS, "malformed_message")
            }
            Incomplete::Header(name) => return Self::header_mismatch(name),
            Incomplete::Handshake => {
                (StatusCode::NOT_FOUND, rpc::METHOD_NOT_FOUND, "malformed_message")
            }
        };
        Self::new(status, rpc, code, RefusalStage::Decode, error.to_string())
    }
}

impl From<&Denial> for Refusal {
    fn from(denial: &Denial) -> Self {
        let stage = RefusalStage::Route;
        let mut refusal =
            Self::new(StatusCode::OK, rpc::DENIED, "policy_denied", stage, &denial.reason);
        refusal.rules.clone_from(&denial.rules);
        if denial.is_scope() {
            refusal.code = "grant_scope";
            return refusal.hint("ask for another grant with `mcpx request NAME --tool TOOL`");
        }
        refusal
    }
}

impl From<UnknownSession> for Refusal {
    fn from(error: UnknownSession) -> Self {
        let stage = RefusalStage::Route;
        let status = StatusCode::NOT_FOUND;
        Self::new(status, rpc::INVALID_REQUEST, "session_unknown", stage, error.to_string())
    }
}

impl Refusal {
    /// The MCP server of a connection failed. Says which connection and how, and not where that
    /// server is: its address and path are the operator's business.
    pub fn upstream_failed(connection: &ConnectionName, error: &UpstreamError) -> Self {
        let message = format!("connection {connection}: {error}");
        let mut refusal = Self::upstream(error.code(), message);
        refusal.retry_after = error.retry_after();
        if refusal.code == "upstream_consent" {
            refusal.hint = Some(format!("run `mcpx authorize {connection}`, then try again"));
        }
        (refusal.status, refusal.rpc) = match error {
            UpstreamError::SessionGone => (StatusCode::NOT_FOUND, rpc::INVALID_REQUEST),
            UpstreamError::SessionNeeded
            | UpstreamError::IdInUse
            | UpstreamError::HandshakeDiffers
            | UpstreamError::TooManyWatched
            | UpstreamError::NotAsked => (StatusCode::BAD_REQUEST, rpc::INVALID_REQUEST),
            UpstreamError::NotOffered => (StatusCode::METHOD_NOT_ALLOWED, rpc::INVALID_REQUEST),
            UpstreamError::TooManyChildren { .. }
            | UpstreamError::TooManyOfYours { .. }
            | UpstreamError::TooManyStreams { .. }
            | UpstreamError::BackingOff { .. }
            | UpstreamError::TooSlow => (StatusCode::SERVICE_UNAVAILABLE, rpc::UPSTREAM),
            UpstreamError::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, rpc::UPSTREAM),
            _ => (refusal.status, refusal.rpc),
        };
        refusal
    }
}

impl From<&PortError> for Refusal {
    fn from(error: &PortError) -> Self {
        // What went wrong inside stays inside.
        tracing::error!(%error, "the control server failed the data path");
        Self::failed_closed("control_unavailable", "the control server cannot decide now")
    }
}

/// A name for the connection in a path, or the refusal that it is none.
pub(super) fn connection_name(text: &str) -> Result<ConnectionName, Refusal> {
    text.parse().map_err(|_| Refusal::no_connection(&text.chars().take(64).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Message, Origin};

    #[test]
    fn each_bound_on_a_message_has_a_code_of_its_own() {
        let limits = Limits { bytes: 200, depth: 5 };
        let with = |params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"x","params":{params}}}"#);
            let error = Message::decode(text.into(), Origin::Client, &limits).unwrap_err();
            let upstream = Refusal::upstream_malformed(&"crm".parse().unwrap(), &error);
            (Refusal::from(&error).code, upstream.code)
        };
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(200));
        assert_eq!(with(&long), ("too_large", "upstream_too_large"));
        assert_eq!(with(r#"{"a":[[[[[[1]]]]]]}"#), ("too_deep", "upstream_too_deep"));
        assert_eq!(with("{"), ("malformed_message", "upstream_malformed"));
    }
}
