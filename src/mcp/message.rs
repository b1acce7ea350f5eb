//! One JSON-RPC message, decoded strictly, with its bytes kept.
//!
//! There is one decoder for every transport and both directions, so no second way to read a
//! message exists. It refuses whatever two honest parsers could read differently: duplicate keys
//! at any depth, keys that differ only by case or stray blanks where servers decode loosely,
//! anything but an object at the top, invalid UTF-8, lone surrogates, null and fractional ids. The
//! pass that does so is [`super::strict`]; how a batch falls into messages, [`super::batch`].
//!
//! Implements JSON-RPC 2.0 as narrowed by MCP `basic/index` (ids are strings or integers, never
//! null).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json;
use super::strict::{self, DecodeError, Fault, Member, Parts};

/// Bounds on one message.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Limits {
    /// The longest message, in bytes.
    pub bytes: usize,
    /// The deepest nesting of arrays and objects; at most 127.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 * 1024 * 1024, depth: 100 }
    }
}

/// Which side wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The MCP client: untrusted, decoded most strictly.
    Client,
    /// The MCP server. May send an error response whose id is null, as JSON-RPC 2.0 section 5
    /// demands when it could not read the request's id.
    Server,
}

/// A JSON-RPC id with its JSON type kept: `7` and `"7"` are two ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Id(Box<str>);

impl Id {
    /// The id as JSON text, quotes included; as it was sent, save for needless escapes.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// An id made by us.
    pub fn from_text(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string().into())
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wants an answer with the same id.
    Request {
        /// The sender's id.
        id: Id,
        /// What is asked.
        method: String,
    },
    /// Wants no answer.
    Notification {
        /// What is told.
        method: String,
    },
    /// Answers a request of the other side.
    Response {
        /// The id that is answered; `None` only for a server's error to an unreadable request.
        id: Option<Id>,
        /// Whether it carries `error` in place of `result`.
        is_error: bool,
    },
}

/// One decoded message: its bytes as they arrived, and where in them its parts stand.
#[derive(Clone, Debug)]
pub struct Message {
    raw: Bytes,
    kind: Kind,
    params: Option<Range<usize>>,
    result: Option<Range<usize>>,
    error: Option<Range<usize>>,
    members: Arc<[Member]>,
}

impl Message {
    /// Decodes one message.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that two parsers could read differently, see the module's
    /// head. Nothing of a refused message is kept.
    pub fn decode(raw: Bytes, origin: Origin, limits: &Limits) -> Result<Self, DecodeError> {
        if raw.len() > limits.bytes {
            let fault = Fault::TooLarge { found: raw.len(), limit: limits.bytes };
            return Err(DecodeError::at(limits.bytes, fault));
        }
        let text = std::str::from_utf8(&raw)
            .map_err(|error| DecodeError::at(error.valid_up_to(), Fault::NotUtf8))?;
        let start = text.len() - text.trim_start_matches(BLANKS).len();
        match text.as_bytes().get(start) {
            Some(b'{') => {}
            Some(b'[') => return Err(DecodeError::at(start, Fault::Batch)),
            _ => return Err(DecodeError::at(start, Fault::NotAnObject)),
        }
        let parts = strict::scan(text, origin, limits.depth)?;
        let kind = Envelope { text, parts: &parts }.kind(origin)?;
        let Parts { params, result, error, members, .. } = parts;
        Ok(Self { kind, params, result, error, members: members.into(), raw })
    }

    /// The bytes as they arrived.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// What the message is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The method, unless this is a response.
    pub fn method(&self) -> Option<&str> {
        match &self.kind {
            Kind::Request { method, .. } | Kind::Notification { method } => Some(method),
            Kind::Response { .. } => None,
        }
    }

    /// The id, unless this is a notification (or a server's error without one).
    pub fn id(&self) -> Option<&Id> {
        match &self.kind {
            Kind::Request { id, .. } => Some(id),
            Kind::Response { id, .. } => id.as_ref(),
            Kind::Notification { .. } => None,
        }
    }

    /// The JSON text of `params`.
    pub fn params(&self) -> Option<&str> {
        self.part(self.params.clone())
    }

    /// The JSON text of `result`.
    pub fn result(&self) -> Option<&str> {
        self.part(self.result.clone())
    }

    /// The JSON text of a member of `result`, if that is an object which has one of this name.
    pub fn result_member(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| {
            let key = self.part(Some(member.key.clone())).unwrap_or_default();
            if member.escaped {
                json::unescape(key).is_some_and(|said| said.text() == name)
            } else {
                key == name
            }
        })?;
        self.part(Some(member.value.clone()))
    }

    /// The JSON text of `error`.
    pub fn error(&self) -> Option<&str> {
        self.part(self.error.clone())
    }

    /// `params` as a value, for deciding; never for forwarding.
    pub fn params_value(&self) -> Option<serde_json::Value> {
        serde_json::from_str(self.params()?).ok()
    }

    fn part(&self, range: Option<Range<usize>>) -> Option<&str> {
        std::str::from_utf8(self.raw.get(range?)?).ok()
    }
}

/// What may stand around JSON values (RFC 8259, section 2).
pub(super) const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// Methods that name what they reach, which policies decide by.
const TARGETED: &[&str] = &[
    "tools/call",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
];

/// Whether a method is a name and nothing else. Methods are protocol and are never masked, in
/// messages or on record, so none may be somebody's number, address or sentence; and a lax server
/// would read `tools/call\0` as a method that policies decide by.
fn is_plain(method: &str) -> bool {
    const LONGEST: usize = 128;
    const MOST_DIGITS: usize = 4;
    (1..=LONGEST).contains(&method.len())
        && method.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.$-".contains(&b))
        && method.bytes().filter(u8::is_ascii_digit).count() <= MOST_DIGITS
}

/// Whether a lax server could read a method as one with a target: `Tools/Call`.
fn passes_for_another(method: &str) -> bool {
    TARGETED.iter().any(|known| *known != method && known.eq_ignore_ascii_case(method))
}

/// A message's text and where its parts stand.
struct Envelope<'a> {
    text: &'a str,
    parts: &'a Parts,
}

impl Envelope<'_> {
    fn kind(&self, origin: Origin) -> Result<Kind, DecodeError> {
        let Parts { jsonrpc, id, method, params, result, error, .. } = self.parts;
        if self.string(jsonrpc.as_ref()).as_deref() != Some("2.0") {
            return self.bad("/jsonrpc", jsonrpc.as_ref(), "\"jsonrpc\" must be \"2.0\"");
        }
        if method.is_some() && (result.is_some() || error.is_some()) {
            let why = "\"method\" cannot stand beside \"result\" or \"error\"";
            return self.bad("/method", method.as_ref(), why);
        }
        let read = id.as_ref().map(|id| self.id(id));
        if method.is_some() {
            let method = self.method(origin)?;
            if params.as_ref().is_some_and(|params| !self.raw(params).starts_with(['{', '['])) {
                let why = "\"params\" must be an object or an array";
                return self.bad("/params", params.as_ref(), why);
            }
            return Ok(match read {
                None => Kind::Notification { method },
                Some(id) => Kind::Request { id: id?, method },
            });
        }
        if result.is_some() == error.is_some() {
            let why = "exactly one of \"method\", \"result\" and \"error\" is needed";
            return self.bad("", error.as_ref(), why);
        }
        let is_error = error.is_some();
        let nobody = id.as_ref().is_none_or(|id| self.raw(id) == "null");
        if nobody && is_error && origin == Origin::Server {
            return Ok(Kind::Response { id: None, is_error });
        }
        match read {
            Some(id) => Ok(Kind::Response { id: Some(id?), is_error }),
            None => self.bad("", None, "a response needs an \"id\""),
        }
    }

    fn method(&self, origin: Origin) -> Result<String, DecodeError> {
        let given = self.parts.method.as_ref();
        let why = match self.string(given) {
            Some(method) if !is_plain(&method) => "\"method\" must be a name like \"tools/call\"",
            Some(method) if origin == Origin::Client && passes_for_another(&method) => {
                "\"method\" differs from a method of MCP only by case"
            }
            Some(method) => return Ok(method.into_owned()),
            None => "\"method\" must be a string",
        };
        self.bad("/method", given, why)
    }

    fn id(&self, range: &Range<usize>) -> Result<Id, DecodeError> {
        let text = self.raw(range);
        let digits = text.strip_prefix('-').unwrap_or(text);
        // Zero has one form: a server that answers `-0` with `0` would answer nobody.
        if text != "-0" && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Id(text.into()));
        }
        match self.string(Some(range)) {
            // However it is escaped, it is one id: a server may well escape it otherwise.
            Some(Cow::Owned(said)) => Ok(Id::from_text(&said)),
            Some(Cow::Borrowed(_)) => Ok(Id(text.into())),
            None => self.bad("/id", Some(range), "\"id\" must be a string or an integer"),
        }
    }

    fn raw(&self, range: &Range<usize>) -> &str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// What a part says, if it is a string; borrowed where it has no escapes.
    fn string(&self, range: Option<&Range<usize>>) -> Option<Cow<'_, str>> {
        let inside = self.raw(range?).strip_prefix('"')?.strip_suffix('"')?;
        if !inside.contains('\\') {
            return Some(Cow::Borrowed(inside));
        }
        json::unescape(inside).map(|said| Cow::Owned(said.text().to_owned()))
    }

    fn bad<T>(
        &self,
        pointer: &str,
        range: Option<&Range<usize>>,
        why: &'static str,
    ) -> Result<T, DecodeError> {
        // What is missing is missing from the whole.
        let whole = self.text.len() - self.text.trim_start_matches(BLANKS).len();
        Err(DecodeError {
            fault: Fault::Envelope(why),
            at: range.map_or(whole, |range| range.start),
            pointer: Some(if range.is_some() { pointer.to_owned() } else { String::new() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Message, DecodeError> {
        Message::decode(Bytes::from(text.to_owned()), Origin::Client, &Limits::default())
    }

    fn is_envelope(outcome: &Result<Message, DecodeError>) -> bool {
        matches!(outcome, Err(DecodeError { fault: Fault::Envelope(_), .. }))
    }

    #[test]
    fn an_id_is_one_however_it_is_escaped() {
        let id = |text: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{text},"method":"ping"}}"#);
            Message::decode(text.into(), Origin::Client, &Limits::default()).unwrap().id().cloned()
        };
        assert_eq!(id(r#""\u0061\/b""#), id(r#""a/b""#));
        assert_eq!(id(r#""a\"b""#).unwrap().as_json(), r#""a\"b""#);
        assert_ne!(id("7"), id(r#""7""#));
    }

    #[test]
    fn no_method_passes_for_another() {
        for method in [
            "tools/call ",
            " tools/call",
            "Tools/Call",
            "TOOLS/CALL",
            "tools/call\\u0000",
            "tools/\\tcall",
            "tools/call\\ufeff",
            "prompts/Get",
            "x y",
            "",
            "078-05-1120",
            "alice@example.com",
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
            let refused = Message::decode(text.into(), Origin::Client, &Limits::default());
            assert!(is_envelope(&refused), "{method:?}: {refused:?}");
        }
    }

    #[test]
    fn keeps_bytes_and_finds_parts() {
        let text = r#" {"method":"tools/call","jsonrpc":"2.0","id":9007199254740993,"params":{"name":"q","arguments":{"n":1e400,"k":123456789012345678901234567890}},"x":1}"#;
        // 1e400 is beyond a double: policies could not judge it.
        assert_eq!(decode(text).unwrap_err().fault, Fault::HugeNumber);
        let text = text.replace("1e400", "1.50");
        let message = decode(&text).unwrap();
        assert_eq!(message.raw(), text.as_bytes());
        assert_eq!(message.id().unwrap().as_json(), "9007199254740993");
        assert_eq!(message.method(), Some("tools/call"));
        assert!(message.params().unwrap().contains("123456789012345678901234567890"));
    }

    #[test]
    fn finds_the_members_of_a_result() {
        let text = r#"{"result": { "a" : [1, {"b":2}] ,"\u0062":{"a":3} , "c" :null,"":"x" }, "a":0, "jsonrpc":"2.0","id":1}"#;
        let message = Message::decode(text.into(), Origin::Server, &Limits::default()).unwrap();
        assert_eq!(message.result_member("a"), Some(r#"[1, {"b":2}]"#));
        assert_eq!(message.result_member("b"), Some(r#"{"a":3}"#));
        assert_eq!(message.result_member("c"), Some("null"));
        assert_eq!(message.result_member(""), Some(r#""x""#));
        assert_eq!(message.result_member("jsonrpc"), None);
        for other in [r#"[{"a":1}]"#, "7", "{}", r#"{"b":{"a":1}}"#] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{other},"a":1}}"#);
            let message = Message::decode(text.into(), Origin::Server, &Limits::default()).unwrap();
            assert_eq!(message.result_member("a"), None, "{other}");
        }
    }

    #[test]
    fn ids_keep_their_type() {
        let number = decode(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#).unwrap();
        let string = decode(r#"{"jsonrpc":"2.0","id":"7","method":"ping"}"#).unwrap();
        assert_ne!(number.id(), string.id());
        for bad in ["null", "-0", "1.0", "1e3", "true", "{}", "[1]"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{bad},"method":"ping"}}"#);
            assert!(is_envelope(&decode(&text)), "{bad}");
        }
    }

    #[test]
    fn refuses_what_parsers_read_differently() {
        let cases = [
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","n\u0061me":1,"name":2}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":[{"y":1,"y":2}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"Method":"tools/call","method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params ":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"sql":1,"SQL":2}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"s":"\ud800"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a"} {"#,
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}",
            r#"[{"jsonrpc":"2.0","id":1,"method":"a"}]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"id":1,"method":"a"}"#,
            r#""ping""#,
            "",
        ];
        for case in cases {
            assert!(decode(case).is_err(), "accepted {case}");
        }
        let deep = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{}{}}}}}"#,
            "[".repeat(110),
            "]".repeat(110)
        );
        assert_eq!(decode(&deep).unwrap_err().fault, Fault::TooDeep { limit: 100 });
        let invalid = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}");
        let refused = Message::decode(invalid, Origin::Client, &Limits::default());
        assert_eq!(refused.unwrap_err(), DecodeError::at(27, Fault::NotUtf8));
    }

    #[test]
    fn only_a_server_may_answer_nobody() {
        let text = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no session"}}"#;
        assert!(decode(text).is_err());
        let server = Message::decode(
            Bytes::from_static(text.as_bytes()),
            Origin::Server,
            &Limits::default(),
        )
        .unwrap();
        assert_eq!(server.kind(), &Kind::Response { id: None, is_error: true });
    }
}
