//! What an HTTP server of the modern era asks of a request, and how it answers errors: for MCP
//! servers that speak stdio and have the gateway for their HTTP.
//!
//! A server on stdio takes the era from the first message that it reads, and keeps it. One
//! request without its envelope would turn a process that others share into a legacy one, so
//! nothing incomplete may reach it. Never looks at a message of the legacy era. Implements MCP
//! 2026-07-28 `basic/transports/streamable-http` (request metadata) and `basic/versioning`.

use serde::Deserialize;

use super::{Kind, Message, headers};

/// The versions before 2026-07-28. Any other that is named is the modern era's to refuse.
const LEGACY_VERSIONS: &[&str] = &["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// The two eras of MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: a handshake, and protocol sessions.
    Legacy,
    /// From 2026-07-28 on: every request speaks for itself.
    Modern,
}

impl Era {
    /// The era of what a client sends: what names a legacy protocol session is legacy, and else
    /// what is sent says it by its version.
    pub fn of(version_header: Option<&str>, in_session: bool, message: Option<&Message>) -> Self {
        let named = |version: &str| !LEGACY_VERSIONS.contains(&version);
        let modern = match message {
            Some(message) => is_modern(version_header, message),
            None => version_header.is_some_and(named),
        };
        if modern && !in_session { Self::Modern } else { Self::Legacy }
    }
}

/// The mirrored headers of a request, decoded; `None` where one is missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mirrored<'a> {
    /// `MCP-Protocol-Version`.
    pub version: Option<&'a str>,
    /// `Mcp-Method`.
    pub method: Option<&'a str>,
    /// `Mcp-Name`.
    pub name: Option<&'a str>,
}

/// A modern request that its server must not see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incomplete {
    /// The envelope lacks a field that every request has.
    #[error("the request needs \"params._meta\" with {0:?}")]
    Envelope(&'static str),
    /// A header is missing, or says something else than the body.
    #[error("the header {0} is not what the body says")]
    Header(&'static str),
    /// `initialize` belongs to the legacy era.
    #[error("the protocol from 2026-07-28 on has no method \"initialize\"")]
    Handshake,
}

/// The legacy version that the answer to an `initialize` settles on.
pub fn negotiated(answer: &Message) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Settled {
        #[serde(rename = "protocolVersion")]
        version: String,
    }
    let result = answer.result().filter(|result| result.starts_with('{'))?;
    let settled: Settled = serde_json::from_str(result).ok()?;
    legacy_version(&settled.version)
}

/// The legacy version of this name.
pub fn legacy_version(name: &str) -> Option<&'static str> {
    LEGACY_VERSIONS.iter().find(|known| **known == name).copied()
}

/// Whether a message outside any legacy session belongs to the modern era: its body or its header
/// names a version, and not a legacy one.
pub fn is_modern(version_header: Option<&str>, message: &Message) -> bool {
    version_header.is_some_and(|version| !LEGACY_VERSIONS.contains(&version))
        || envelope(message).is_some_and(|meta| meta.version.is_some())
}

/// Checks a modern message before a server on stdio reads it. Notifications have no envelope.
///
/// # Errors
/// [`Incomplete`].
pub fn check(given: Mirrored<'_>, message: &Message) -> Result<(), Incomplete> {
    let Kind::Request { method, .. } = message.kind() else { return Ok(()) };
    let meta = envelope(message).unwrap_or_default();
    let Some(version) = meta.version.as_ref().and_then(serde_json::Value::as_str) else {
        return Err(Incomplete::Envelope(headers::META_PROTOCOL_VERSION));
    };
    if !meta.client_capabilities.is_some_and(|value| value.is_object()) {
        return Err(Incomplete::Envelope(headers::META_CLIENT_CAPABILITIES));
    }
    if given.version != Some(version) {
        return Err(Incomplete::Header(headers::PROTOCOL_VERSION));
    }
    if given.method != Some(method) {
        return Err(Incomplete::Header(headers::METHOD));
    }
    let named = matches!(method.as_str(), "tools/call" | "prompts/get" | "resources/read");
    if named && given.name.is_none() {
        return Err(Incomplete::Header(headers::NAME));
    }
    if method == "initialize" {
        return Err(Incomplete::Handshake);
    }
    Ok(())
}

/// The HTTP status under which a modern server sends an answer: what it says of errors, 200 for
/// everything else.
pub fn status_of(answer: &Message) -> u16 {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    let error = answer.error().and_then(|error| serde_json::from_str::<Error>(error).ok());
    match error.map(|error| error.code) {
        Some(-32601) => 404,
        Some(-32700 | -32600 | -32602 | -32022..=-32020) => 400,
        _ => 200,
    }
}

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<serde_json::Value>,
    #[serde(default, rename = "io.modelcontextprotocol/clientCapabilities")]
    client_capabilities: Option<serde_json::Value>,
}

fn envelope(message: &Message) -> Option<Envelope> {
    #[derive(Deserialize)]
    struct Params {
        #[serde(rename = "_meta")]
        meta: Envelope,
    }
    // A struct would take an array by position.
    let params = message.params().filter(|params| params.starts_with('{'))?;
    serde_json::from_str::<Params>(params).ok().map(|params| params.meta)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::mcp::{Limits, Origin};

    const VERSION: &str = "2026-07-28";

    fn message(value: &Value, origin: Origin) -> Message {
        Message::decode(Bytes::from(value.to_string()), origin, &Limits::default()).unwrap()
    }

    fn request(method: &str, meta: &Value) -> Message {
        let params = json!({"name": "x", "uri": "x:y", "_meta": meta});
        let value = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        message(&value, Origin::Client)
    }

    fn whole() -> Value {
        json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        })
    }

    #[test]
    fn a_version_tells_the_era() {
        let bare = request("tools/list", &json!({"progressToken": 1}));
        let enveloped = request("tools/list", &whole());
        let cases = [
            (None, &bare, false),
            (Some("2025-11-25"), &bare, false),
            (Some("2024-11-05"), &bare, false),
            (Some(VERSION), &bare, true),
            (Some("2999-01-01"), &bare, true),
            (None, &enveloped, true),
            (Some("2025-11-25"), &enveloped, true),
        ];
        for (header, message, modern) in cases {
            assert_eq!(is_modern(header, message), modern, "{header:?} {message:?}");
        }
    }

    #[test]
    fn nothing_incomplete_reaches_a_server() {
        let version = "io.modelcontextprotocol/protocolVersion";
        let given = |method| Mirrored { version: Some(VERSION), method: Some(method), name: None };
        let named = |method| Mirrored { name: Some("x"), ..given(method) };
        let without = |key: &str| {
            let mut meta = whole();
            meta.as_object_mut().unwrap().remove(key);
            meta
        };
        let with = |key: &str, value: Value| {
            let mut meta = whole();
            meta[key] = value;
            meta
        };
        let capabilities = headers::META_CLIENT_CAPABILITIES;
        let list = "tools/list";
        let cases = [
            (list, whole(), given(list), Ok(())),
            ("tools/call", whole(), named("tools/call"), Ok(())),
            ("unknown/method", whole(), given("unknown/method"), Ok(())),
            (list, json!({}), given(list), Err(Incomplete::Envelope(version))),
            (list, json!("text"), given(list), Err(Incomplete::Envelope(version))),
            (list, without(version), given(list), Err(Incomplete::Envelope(version))),
            (list, with(version, json!(7)), given(list), Err(Incomplete::Envelope(version))),
            (list, without(capabilities), given(list), Err(Incomplete::Envelope(capabilities))),
            (
                list,
                with(capabilities, json!([])),
                given(list),
                Err(Incomplete::Envelope(capabilities)),
            ),
            (
                list,
                with(version, json!("2999-01-01")),
                given(list),
                Err(Incomplete::Header(headers::PROTOCOL_VERSION)),
            ),
            (
                list,
                whole(),
                Mirrored { version: None, ..given(list) },
                Err(Incomplete::Header(headers::PROTOCOL_VERSION)),
            ),
            (list, whole(), given("tools/call"), Err(Incomplete::Header(headers::METHOD))),
            (
                list,
                whole(),
                Mirrored { method: None, ..given(list) },
                Err(Incomplete::Header(headers::METHOD)),
            ),
            ("prompts/get", whole(), given("prompts/get"), Err(Incomplete::Header(headers::NAME))),
            ("initialize", whole(), given("initialize"), Err(Incomplete::Handshake)),
        ];
        for (method, meta, given, expected) in cases {
            assert_eq!(
                check(given, &request(method, &meta)),
                expected,
                "{method} {meta} {given:?}"
            );
        }
        let told = json!({"jsonrpc": "2.0", "method": "notifications/x"});
        assert_eq!(check(Mirrored::default(), &message(&told, Origin::Client)), Ok(()));
    }

    #[test]
    fn errors_have_statuses_of_their_own() {
        let error = |code: i64| {
            let error = json!({"code": code, "message": "no"});
            message(&json!({"jsonrpc": "2.0", "id": 1, "error": error}), Origin::Server)
        };
        for (code, status) in
            [(-32601, 404), (-32602, 400), (-32020, 400), (-32022, 400), (-32603, 200), (7, 200)]
        {
            assert_eq!(status_of(&error(code)), status, "{code}");
        }
        let result = json!({"jsonrpc": "2.0", "id": 1, "result": {"code": -32601}});
        assert_eq!(status_of(&message(&result, Origin::Server)), 200);
    }
}
