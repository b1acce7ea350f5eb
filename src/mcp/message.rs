//! One JSON-RPC message, decoded strictly, with its bytes kept.
//!
//! There is one decoder for every transport and both directions, so no second way to read a
//! message exists. It refuses whatever two honest parsers could read differently: duplicate keys
//! at any depth, keys that differ only by case or stray blanks where servers decode loosely,
//! anything but an object at the top, invalid UTF-8, lone surrogates, null and fractional ids.
//!
//! Implements JSON-RPC 2.0 as narrowed by MCP `basic/index` (ids are strings or integers, never
//! null; batches only in 2025-03-26 and refused here).

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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
}

/// Why a message was refused. The text never quotes values, only keys and positions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than allowed.
    #[error("the message has {found} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Its length.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("the message is not UTF-8 (byte {at})")]
    NotUtf8 {
        /// The first bad byte.
        at: usize,
    },
    /// An array: a 2025-03-26 batch.
    #[error("JSON-RPC batches are not accepted; send the messages one by one")]
    Batch,
    /// Neither object nor array at the top.
    #[error("a message must be one JSON object, beginning with '{{'")]
    NotAnObject,
    /// Not JSON, or JSON this decoder refuses.
    #[error("malformed JSON at line {line} column {column}: {why}")]
    Json {
        /// 1-based line.
        line: usize,
        /// 1-based column.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// JSON, but not a JSON-RPC 2.0 message of MCP.
    #[error("not a JSON-RPC 2.0 message: {0}")]
    Envelope(&'static str),
    /// A key that a lax decoder could take for another one.
    #[error("ambiguous key {key:?} in {place}: {why}")]
    AmbiguousKey {
        /// The key as sent.
        key: String,
        /// Where it stands.
        place: &'static str,
        /// What it could be taken for.
        why: String,
    },
}

impl DecodeError {
    /// The JSON-RPC error code: -32700 where the text was not readable, else -32600.
    pub fn code(&self) -> i64 {
        match self {
            Self::NotUtf8 { .. } | Self::Json { .. } => -32700,
            _ => -32600,
        }
    }

    /// Whether the message is nested deeper than allowed.
    pub fn is_too_deep(&self) -> bool {
        matches!(self, Self::Json { why, .. } if why.starts_with(TOO_DEEP))
    }
}

impl Message {
    /// Decodes one message.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that two parsers could read differently, see the module's
    /// head. Nothing of a refused message is kept.
    pub fn decode(raw: Bytes, origin: Origin, limits: &Limits) -> Result<Self, DecodeError> {
        if raw.len() > limits.bytes {
            return Err(DecodeError::TooLarge { found: raw.len(), limit: limits.bytes });
        }
        let text =
            std::str::from_utf8(&raw).map_err(|e| DecodeError::NotUtf8 { at: e.valid_up_to() })?;
        match text.trim_start_matches([' ', '\t', '\r', '\n']).bytes().next() {
            Some(b'{') => {}
            Some(b'[') => return Err(DecodeError::Batch),
            _ => return Err(DecodeError::NotAnObject),
        }
        check_strict(text, limits.depth)?;
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(json_error)?;
        let range = |part: Option<&RawValue>| part.map(|part| range_within(text, part.get()));
        let (params, result, error) =
            (range(envelope.params), range(envelope.result), range(envelope.error));
        let kind = envelope.kind(origin)?;
        if origin == Origin::Client {
            check_keys(text, "the message", ENVELOPE_KEYS)?;
            if let Some(params) = envelope.params
                && params.get().starts_with('{')
            {
                let arguments = check_keys(params.get(), "params", PARAM_KEYS)?;
                if let Some(arguments) = arguments.filter(|a| a.get().starts_with('{')) {
                    check_keys(arguments.get(), "params.arguments", &[])?;
                }
            }
        }
        Ok(Self { kind, params, result, error, raw })
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

/// The envelope's own keys.
const ENVELOPE_KEYS: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
/// The keys of `params` that say what a call reaches.
const PARAM_KEYS: &[&str] = &["name", "arguments", "uri", "_meta"];

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

/// `part` was borrowed out of `whole` by the parser, so the difference of their addresses is its
/// offset.
fn range_within(whole: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}

fn json_error(error: serde_json::Error) -> DecodeError {
    let text = error.to_string();
    let why = text.split(" at line ").next().unwrap_or(&text).to_owned();
    DecodeError::Json { line: error.line(), column: error.column(), why }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Keeps `null` apart from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Envelope<'_> {
    fn kind(&self, origin: Origin) -> Result<Kind, DecodeError> {
        let bad = |why| Err(DecodeError::Envelope(why));
        if self.jsonrpc.as_deref() != Some("2.0") {
            return bad("\"jsonrpc\" must be \"2.0\"");
        }
        let id = self.id.map(|raw| read_id(raw.get()));
        match (&self.method, self.result, self.error) {
            (Some(method), None, None) => {
                if self.params.is_some_and(|p| !p.get().starts_with(['{', '['])) {
                    return bad("\"params\" must be an object or an array");
                }
                if !is_plain(method) {
                    return bad("\"method\" must be a name like \"tools/call\"");
                }
                if origin == Origin::Client && passes_for_another(method) {
                    return bad("\"method\" differs from a method of MCP only by case");
                }
                let method = method.clone().into_owned();
                match id {
                    None => Ok(Kind::Notification { method }),
                    Some(id) => Ok(Kind::Request { id: id?, method }),
                }
            }
            (None, result, error) if result.is_some() != error.is_some() => {
                let is_error = error.is_some();
                match (id, self.id.map(RawValue::get)) {
                    (Some(Ok(id)), _) => Ok(Kind::Response { id: Some(id), is_error }),
                    (_, None | Some("null")) if is_error && origin == Origin::Server => {
                        Ok(Kind::Response { id: None, is_error })
                    }
                    (Some(Err(error)), _) => Err(error),
                    (None, _) => bad("a response needs an \"id\""),
                }
            }
            (Some(_), ..) => bad("\"method\" cannot stand beside \"result\" or \"error\""),
            _ => bad("exactly one of \"method\", \"result\" and \"error\" is needed"),
        }
    }
}

fn read_id(json: &str) -> Result<Id, DecodeError> {
    let integer = {
        let digits = json.strip_prefix('-').unwrap_or(json);
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if json.starts_with('"') && json.contains('\\') {
        // However it is escaped, it is one id: a server may well escape it otherwise.
        let text: String = serde_json::from_str(json).map_err(json_error)?;
        Ok(Id::from_text(&text))
    } else if integer || json.starts_with('"') {
        Ok(Id(json.into()))
    } else {
        Err(DecodeError::Envelope("\"id\" must be a string or an integer"))
    }
}

/// Folds a key the way the laxest known servers do.
fn fold(key: &str) -> String {
    key.chars()
        .filter(|c| !c.is_whitespace() && !c.is_control() && *c != '\u{feff}')
        .flat_map(char::to_lowercase)
        .collect()
}

/// Refuses keys of one object that fold to the same text, or that fold to a `known` key without
/// being it. Gives back the object's `arguments`, if it has any.
fn check_keys<'a>(
    object: &'a str,
    place: &'static str,
    known: &[&str],
) -> Result<Option<&'a RawValue>, DecodeError> {
    let Keys(entries) = serde_json::from_str(object).map_err(json_error)?;
    let mut seen: HashSet<String> = HashSet::with_capacity(entries.len());
    let mut arguments = None;
    for (key, value) in entries {
        let folded = fold(&key);
        if known.contains(&folded.as_str()) && !known.contains(&key.as_ref()) {
            let why = format!("some servers read it as {folded:?}");
            return Err(DecodeError::AmbiguousKey { key: key.into_owned(), place, why });
        }
        if key == "arguments" {
            arguments = Some(value);
        }
        if !seen.insert(folded) {
            let why = "it differs from another key only by case or blanks".to_owned();
            return Err(DecodeError::AmbiguousKey { key: key.into_owned(), place, why });
        }
    }
    Ok(arguments)
}

/// One object's keys and raw values, in order.
struct Keys<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Keys<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(Text(key)) = map.next_key()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Keys(entries))
            }
        }
        deserializer.deserialize_map(KeysVisitor)
    }
}

/// A string, borrowed where the JSON text has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Reads the whole text once with a real JSON parser and refuses duplicate keys and over-deep
/// nesting anywhere; the parser itself refuses lone surrogates and trailing text.
fn check_strict(text: &str, depth: usize) -> Result<(), DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Strict { depth }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(json_error)
}

const TOO_DEEP: &str = "nested too deeply";

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom(TOO_DEEP)),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut keys = SeenKeys::default();
        while let Some(Text(key)) = map.next_key()? {
            if let Some(key) = keys.insert(key) {
                return Err(serde::de::Error::custom(format_args!("duplicate key {key:?}")));
            }
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

/// Most objects have a handful of keys, for which comparing beats hashing.
const FEW_KEYS: usize = 12;

#[derive(Default)]
struct SeenKeys<'a> {
    few: Vec<Cow<'a, str>>,
    many: HashSet<Cow<'a, str>>,
}

impl<'a> SeenKeys<'a> {
    /// Gives the key back if it was there already.
    fn insert(&mut self, key: Cow<'a, str>) -> Option<Cow<'a, str>> {
        if self.few.contains(&key) || self.many.contains(&key) {
            return Some(key);
        }
        if self.few.len() < FEW_KEYS {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Message, DecodeError> {
        Message::decode(Bytes::from(text.to_owned()), Origin::Client, &Limits::default())
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
            assert!(matches!(refused, Err(DecodeError::Envelope(_))), "{method:?}: {refused:?}");
        }
    }

    #[test]
    fn keeps_bytes_and_finds_parts() {
        let text = r#" {"method":"tools/call","jsonrpc":"2.0","id":9007199254740993,"params":{"name":"q","arguments":{"n":1e400,"k":123456789012345678901234567890}},"x":1}"#;
        // 1e400 is beyond f64: refused by the parser, as the reference servers do.
        assert!(matches!(decode(text), Err(DecodeError::Json { .. })));
        let text = text.replace("1e400", "1.50");
        let message = decode(&text).unwrap();
        assert_eq!(message.raw(), text.as_bytes());
        assert_eq!(message.id().unwrap().as_json(), "9007199254740993");
        assert_eq!(message.method(), Some("tools/call"));
        assert!(message.params().unwrap().contains("123456789012345678901234567890"));
    }

    #[test]
    fn ids_keep_their_type() {
        let number = decode(r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#).unwrap();
        let string = decode(r#"{"jsonrpc":"2.0","id":"7","method":"ping"}"#).unwrap();
        assert_ne!(number.id(), string.id());
        for bad in ["null", "1.0", "1e3", "true", "{}", "[1]"] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{bad},"method":"ping"}}"#);
            assert!(matches!(decode(&text), Err(DecodeError::Envelope(_))), "{bad}");
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
        assert!(matches!(decode(&deep), Err(DecodeError::Json { .. })));
        let invalid = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}");
        assert!(matches!(
            Message::decode(invalid, Origin::Client, &Limits::default()),
            Err(DecodeError::NotUtf8 { .. })
        ));
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
