//! What the bench's MCP server answers, over whichever transport: both eras, no work.

use std::cell::{Cell, OnceCell};
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::Payload;

/// The version that makes a request a modern one.
pub const MODERN: &str = "2026-07-28";

pub struct Answers {
    /// The results, by tool, each made once.
    results: Vec<(Payload, OnceCell<String>)>,
    /// How many tool calls were answered.
    pub calls: Cell<u64>,
}

/// What to send for one message.
pub enum Answer {
    /// It was a notification.
    Nothing,
    /// The answer to `initialize`, which opens a session.
    Session(String),
    Message(String),
    /// The same, as an event.
    Event(String),
    Unknown,
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Default, Deserialize)]
struct Params<'a> {
    name: Option<&'a str>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<&'a str>,
}

impl Default for Answers {
    fn default() -> Self {
        let results = Payload::ALL.map(|payload| (payload, OnceCell::new())).into();
        Self { results, calls: Cell::new(0) }
    }
}

impl Answers {
    /// Answers one message; `tools` is how many there are to list. The flag says whether the
    /// message is of the modern era.
    pub fn to(&self, message: &[u8], tools: usize) -> (Answer, bool) {
        let Ok(asked) = serde_json::from_slice::<Asked<'_>>(message) else {
            return (Answer::Unknown, false);
        };
        let params = asked.params.unwrap_or_default();
        let modern = params.meta.and_then(|meta| meta.version) == Some(MODERN);
        let Some(id) = asked.id else { return (Answer::Nothing, modern) };
        let answer = match asked.method {
            "initialize" => Answer::Session(envelope(id, INITIALIZED)),
            "tools/call" => {
                let known = self.results.iter().find(|(tool, _)| Some(tool.tool()) == params.name);
                let Some((payload, result)) = known else { return (Answer::Unknown, modern) };
                self.calls.set(self.calls.get() + 1);
                let message =
                    envelope(id, &for_era(result.get_or_init(|| payload.result()), modern));
                if payload.is_stream() { Answer::Event(message) } else { Answer::Message(message) }
            }
            "tools/list" => Answer::Message(envelope(id, &for_era(&list(tools), modern))),
            _ => Answer::Unknown,
        };
        (answer, modern)
    }
}

/// Modern results name their type.
pub fn for_era(result: &str, modern: bool) -> std::borrow::Cow<'_, str> {
    match result.strip_prefix('{').filter(|_| modern) {
        Some(rest) => format!(r#"{{"resultType":"complete",{rest}"#).into(),
        None => result.into(),
    }
}

/// An answer, as [`super::client`] expects it.
pub fn envelope(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// The result of `tools/list` for so many tools.
pub fn list(tools: usize) -> String {
    let mut result = String::from(r#"{"tools":["#);
    for number in 0..tools {
        let comma = if number == 0 { "" } else { "," };
        let written = write!(
            result,
            r#"{comma}{{"name":"report_{number:04}","title":"Report {number}","description":"Makes report {number} of the rows that match the query, newest first, and says how many there were before the limit was applied.","inputSchema":{{"type":"object","properties":{{"query":{{"type":"string","description":"what to look for"}},"limit":{{"type":"integer","minimum":1,"maximum":500}},"since":{{"type":"string","format":"date-time"}}}},"required":["query"]}}}}"#
        );
        written.expect("a string takes everything");
    }
    result.push_str("]}");
    result
}

const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}"#;
