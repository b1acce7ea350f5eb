//! What two honest parsers could read differently, or one could choke on: each either refused,
//! with where it is, or passed on byte for byte. One table for every transport and both directions.

/// What must become of a message.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// It reaches the other side as it is.
    Passed,
    /// It reaches nobody; the refusal says this, and names this place.
    Refused {
        /// A part of its message.
        says: &'static str,
        /// The JSON pointer in its data; `None` where nothing could be read so far.
        pointer: Option<&'static str>,
    },
}

/// One message.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub what: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What must become of it.
    pub fate: Fate,
}

impl Row {
    /// Whether it can stand on one line, as stdio needs it.
    pub fn is_one_line(&self) -> bool {
        !self.bytes.contains(&b'\n') && !self.bytes.trim_ascii().is_empty()
    }
}

fn row(what: &'static str, bytes: impl Into<Vec<u8>>, fate: Fate) -> Row {
    Row { what, bytes: bytes.into(), fate }
}

pub(super) fn refused(
    what: &'static str,
    bytes: impl Into<Vec<u8>>,
    says: &'static str,
    pointer: Option<&'static str>,
) -> Row {
    row(what, bytes, Fate::Refused { says, pointer })
}

pub(super) fn passed(what: &'static str, bytes: impl Into<Vec<u8>>) -> Row {
    row(what, bytes, Fate::Passed)
}

pub(super) fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// Bytes of which the middle is no text.
pub(super) fn raw(start: &str, middle: &[u8], end: &str) -> Vec<u8> {
    [start.as_bytes(), middle, end.as_bytes()].concat()
}

/// The bound that the sites of these stories set.
pub const MESSAGE_BYTES: usize = 65_536;

pub(super) const TWICE: &str = "duplicate key";
pub(super) const UNSURE: &str = "ambiguous key";
pub(super) const BROKEN: &str = "malformed JSON";
pub(super) const ID: &str = "\"id\" must be";

fn result(result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)
}

/// What a hostile server may answer to the request 1. What must be refused holds `SMUGGLED`.
pub fn of_servers() -> Vec<Row> {
    let at = Some;
    let good = result("{}");
    vec![
        refused("a key twice", result(r#"{"a":"x","a":"SMUGGLED"}"#), TWICE, at("/result/a")),
        refused(
            "a result twice",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"result":{"a":"SMUGGLED"}}"#,
            TWICE,
            at("/result"),
        ),
        refused(
            "a result twice by escapes",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"\u0072esult":{"a":"SMUGGLED"}}"#,
            TWICE,
            at("/result"),
        ),
        refused(
            "a result by another case",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"Result":{"a":"SMUGGLED"}}"#,
            UNSURE,
            at("/Result"),
        ),
        refused(
            "a result with a NUL",
            r#"{"jsonrpc":"2.0","id":1,"result":{},"result\u0000":{"a":"SMUGGLED"}}"#,
            UNSURE,
            at("/result\0"),
        ),
        refused(
            "result and error",
            r#"{"jsonrpc":"2.0","id":1,"result":{"a":"SMUGGLED"},"error":{"code":1,"message":"x"}}"#,
            "exactly one",
            at(""),
        ),
        refused(
            "result and method",
            r#"{"jsonrpc":"2.0","id":1,"result":{"a":"SMUGGLED"},"method":"roots/list"}"#,
            "cannot stand beside",
            at("/method"),
        ),
        refused(
            "a byte order mark",
            format!("\u{feff}{}", result(r#"{"a":"SMUGGLED"}"#)),
            "one JSON object",
            None,
        ),
        refused("a batch", format!("[{}]", result(r#"{"a":"SMUGGLED"}"#)), "batches", None),
        refused("a struct as an array", r#"["jsonrpc","2.0",1,{"a":"SMUGGLED"}]"#, "batches", None),
        refused(
            "text behind the message",
            format!(r#"{good} {{"a":"SMUGGLED"}}"#),
            "text follows",
            at(""),
        ),
        refused(
            "two messages",
            format!("{good}{}", result(r#"{"a":"SMUGGLED"}"#)),
            "text follows",
            at(""),
        ),
        refused(
            "an id that is no integer",
            r#"{"jsonrpc":"2.0","id":1.0,"result":{"a":"SMUGGLED"}}"#,
            ID,
            at("/id"),
        ),
        refused(
            "an infinite id",
            r#"{"jsonrpc":"2.0","id":1e400,"result":{"a":"SMUGGLED"}}"#,
            ID,
            at("/id"),
        ),
        refused("half a surrogate", result(r#"{"a":"SMUGGLED \ud800"}"#), BROKEN, at("/result/a")),
        refused(
            "bytes that are no text",
            raw(r#"{"jsonrpc":"2.0","id":1,"result":{"a":"SMUGGLED "#, b"\xff", "\"}}"),
            "UTF-8",
            None,
        ),
        refused(
            "very deep",
            result(&format!(r#"{{"a":"SMUGGLED","b":{}}}"#, nested(5000))),
            "nested deeper",
            None,
        ),
        refused(
            "a control character",
            result("{\"a\":\"SMUGGLED \u{1}\"}"),
            BROKEN,
            at("/result/a"),
        ),
        passed("an empty result", good),
        passed(
            "numbers beyond doubles",
            result(r#"{"a":1e400,"b":[-1E+999,123456789012345678901234567890],"c":1.50}"#),
        ),
        passed(
            "escaped keys and odd characters",
            result("{\"\\u0061\":\"\\ud83d\\ude00 \\u0000 \u{2028}\",\"B\":1,\"b\":2}"),
        ),
        passed(
            "unknown members",
            r#"{"jsonrpc":"2.0","id":1,"result":{"a":1},"x-new":[null,true]}"#,
        ),
        passed("blanks", r#"{ "jsonrpc" : "2.0" , "id" : 1 , "result" : { "a" : [ ] } }"#),
        passed("as deep as may be", result(&nested(99))),
    ]
}
