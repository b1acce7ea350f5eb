//! The headers that a modern request repeats from its body, so that what stands between client
//! and server can route without reading it. Over stdio there are no headers; here they are made.
//!
//! Pure. Implements MCP 2026-07-28 `basic/transports/streamable-http`: `MCP-Protocol-Version`,
//! `Mcp-Method`, `Mcp-Name`, and `Mcp-Param-*` as tools declare them with `x-mcp-header`.

use std::collections::HashMap;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::mcp::{Message, headers};

/// One argument of a tool that requests repeat as a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirrored {
    header: HeaderName,
    /// The keys that lead to it inside `arguments`.
    path: Vec<String>,
}

/// What tools repeat, as the lists that have passed declare it.
#[derive(Debug, Default)]
pub(super) struct Tools {
    by_name: HashMap<String, Vec<Mirrored>>,
}

impl Tools {
    /// What a tool repeats; nothing for one that was not listed.
    pub(super) fn of(&self, tool: &str) -> &[Mirrored] {
        self.by_name.get(tool).map_or(&[], Vec::as_slice)
    }

    /// Takes in a `tools/list` result. A tool listed again is what it is now.
    pub(super) fn note(&mut self, result: &str) {
        if self.by_name.is_empty() && !result.contains(KEYWORD) {
            return;
        }
        for (name, mirrored) in declared(result) {
            if mirrored.is_empty() {
                self.by_name.remove(&name);
            } else if self.by_name.len() < MOST_TOOLS || self.by_name.contains_key(&name) {
                self.by_name.insert(name, mirrored);
            } else {
                tracing::warn!("more tools than {MOST_TOOLS} repeat arguments as headers");
                return;
            }
        }
    }
}

/// The modern version that a message declares; none in the legacy era.
pub(super) fn version(message: &Message) -> Option<String> {
    let params = message.params_value()?;
    Some(params.get("_meta")?.get(headers::META_PROTOCOL_VERSION)?.as_str()?.to_owned())
}

/// The headers for a modern message. `tools` tells what the tool called repeats.
pub(super) fn request_headers<'a>(
    message: &Message,
    version: &str,
    tools: impl FnOnce(&str) -> &'a [Mirrored],
) -> HeaderMap {
    let mut map = HeaderMap::new();
    set(&mut map, HeaderName::from_static(headers::PROTOCOL_VERSION), version);
    let Some(method) = message.method() else { return map };
    set(&mut map, HeaderName::from_static(headers::METHOD), method);
    let params = message.params_value().unwrap_or_default();
    let name = match method {
        "tools/call" | "prompts/get" => params.get("name"),
        "resources/read" => params.get("uri"),
        _ => None,
    };
    let Some(name) = name.and_then(Value::as_str) else { return map };
    set(&mut map, HeaderName::from_static(headers::NAME), name);
    if method == "tools/call" {
        for mirrored in tools(name) {
            let mut value = params.get("arguments");
            for key in &mirrored.path {
                value = value.and_then(|v| v.get(key));
            }
            let text = match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(flag)) => flag.to_string(),
                Some(Value::Number(number)) => number.to_string(),
                _ => continue,
            };
            set(&mut map, mirrored.header.clone(), &text);
        }
    }
    map
}

/// What each tool of a `tools/list` result repeats.
fn declared(result: &str) -> Vec<(String, Vec<Mirrored>)> {
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    let tools = result.get("tools").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let read = |tool: &Value| {
        let name = tool.get("name")?.as_str()?.to_owned();
        let mut found = Vec::new();
        if let Some(schema) = tool.get("inputSchema") {
            collect(schema, &mut Vec::new(), &mut found);
        }
        Some((name, found))
    };
    tools.iter().filter_map(read).collect()
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirrored>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        if found.len() == MOST_HEADERS {
            return;
        }
        path.push(key.clone());
        let declared = property.get(KEYWORD).and_then(Value::as_str).unwrap_or_default();
        let header = HeaderName::try_from(format!("{}{declared}", headers::PARAM_PREFIX));
        if let (false, Ok(header)) = (declared.is_empty(), header) {
            found.push(Mirrored { header, path: path.clone() });
        }
        collect(property, path, found);
        path.pop();
    }
}

fn set(map: &mut HeaderMap, name: HeaderName, text: &str) {
    // Encoded values are printable ASCII, which every header can hold.
    if let Ok(value) = HeaderValue::from_str(&headers::encode_value(text)) {
        map.insert(name, value);
    }
}

const KEYWORD: &str = "x-mcp-header";
/// How many tools with such arguments are kept, and how many headers each may have: what a server
/// lists stays in memory as long as the client does.
const MOST_TOOLS: usize = 4096;
const MOST_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::{Limits, Origin};

    fn message(text: &str) -> Message {
        Message::decode(text.to_owned().into(), Origin::Client, &Limits::default()).unwrap()
    }

    const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

    #[test]
    fn the_era_is_read_from_the_body() {
        let modern = message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}}}}"#
        ));
        assert_eq!(version(&modern).as_deref(), Some("2026-07-28"));
        let legacy = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{}}"#);
        assert_eq!(version(&legacy), None);
    }

    #[test]
    fn names_and_declared_arguments_become_headers() {
        let list = r#"{"tools":[{"name":"q","inputSchema":{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "at":{"type":"object","properties":{"zone":{"type":"integer","x-mcp-header":"Zone"}}},
            "off":{"type":"string","x-mcp-header":"Off"},
            "bad":{"type":"string","x-mcp-header":"no good\r\nX: y"},
            "plain":{"type":"string"}}}},{"name":"none","inputSchema":{}}]}"#;
        let mut tools = Tools::default();
        tools.note(list);
        assert_eq!(tools.by_name.len(), 1);
        let call = message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{{META},"name":"q","arguments":{{"region":"Zürich","at":{{"zone":7}},"off":null}}}}}}"#
        ));
        let map = request_headers(&call, "2026-07-28", |tool| tools.of(tool));
        assert_eq!(map["mcp-method"], "tools/call");
        assert_eq!(map["mcp-name"], "q");
        assert_eq!(map["mcp-param-region"], "=?base64?WsO8cmljaA==?=");
        assert_eq!(map["mcp-param-zone"], "7");
        assert_eq!(map.len(), 5, "absent and null arguments have no header: {map:?}");
        tools.note(r#"{"tools":[{"name":"q","inputSchema":{"type":"object"}},{"name":"q2"}]}"#);
        assert!(tools.by_name.is_empty(), "the tool was listed again without headers");
    }

    #[test]
    fn what_a_server_lists_is_kept_within_bounds() {
        let mut tools = Tools::default();
        let argument =
            |n: usize| (format!("a{n}"), serde_json::json!({"x-mcp-header": format!("H{n}")}));
        let properties: serde_json::Map<_, _> = (0..MOST_HEADERS + 9).map(argument).collect();
        let one = |name: String| serde_json::json!({"name": name, "inputSchema": {"properties": {"a": {"x-mcp-header": "A"}}}});
        let listed: Vec<_> = (0..MOST_TOOLS + 9).map(|n| one(format!("t{n}"))).collect();
        tools.note(&serde_json::json!({"tools": listed}).to_string());
        assert_eq!(tools.by_name.len(), MOST_TOOLS);
        let wide = serde_json::json!({"name": "t0", "inputSchema": {"properties": properties}});
        tools.note(&serde_json::json!({"tools": [wide]}).to_string());
        assert_eq!(tools.of("t0").len(), MOST_HEADERS);
    }

    #[test]
    fn resources_are_named_by_their_uri() {
        let read = message(&format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{{{META},"uri":"test://x"}}}}"#
        ));
        assert_eq!(request_headers(&read, "2026-07-28", |_| &[])["mcp-name"], "test://x");
    }
}
