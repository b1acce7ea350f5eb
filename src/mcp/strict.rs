//! The one pass over a message's text that refuses whatever two honest parsers could read
//! differently, and finds where the envelope's parts stand.
//!
//! Every refusal says where: the byte's offset, and a JSON pointer (RFC 6901) to the value or key.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::Origin;
use super::json::{self, Token, WalkError, Walker};

/// Why a message was refused, and where. The text never quotes values, only keys and positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong.
    pub fault: Fault,
    /// The offset of the byte where it shows, from 0; in a batch, from the beginning of the batch.
    pub at: usize,
    /// The JSON pointer to the value or key, where the text could be read so far. No longer than
    /// [`LONGEST_POINTER`] characters and a sign that more follows.
    pub pointer: Option<String>,
}

/// The characters of a pointer that are told; keys are the sender's choice.
pub const LONGEST_POINTER: usize = 200;

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than allowed.
    #[error("the message has {found} bytes or more; at most {limit} are accepted")]
    TooLarge {
        /// Its length, as far as it was read.
        found: usize,
        /// The bound.
        limit: usize,
    },
    /// Not UTF-8.
    #[error("the message is not UTF-8")]
    NotUtf8,
    /// An array where one message is due: a 2025-03-26 batch.
    #[error("JSON-RPC batches are not accepted here; send the messages one by one")]
    Batch,
    /// A batch without messages.
    #[error("a batch must hold at least one message")]
    EmptyBatch,
    /// A batch of more messages than are accepted.
    #[error("a batch may hold at most {limit} messages")]
    TooMany {
        /// The bound.
        limit: usize,
    },
    /// Neither object nor array at the top.
    #[error("a message must be one JSON object, beginning with '{{'")]
    NotAnObject,
    /// Not JSON.
    #[error("malformed JSON")]
    Malformed,
    /// Text behind the message.
    #[error("malformed JSON: text follows the message")]
    Trailing,
    /// More arrays and objects in one another than allowed.
    #[error("malformed JSON: nested deeper than {limit}")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
    /// A key twice in one object.
    #[error("malformed JSON: duplicate key {0:?}")]
    DuplicateKey(String),
    /// A number that some parsers refuse and others read as infinite.
    #[error("malformed JSON: a number beyond what a double can hold")]
    HugeNumber,
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
    /// A fault at a byte, where no pointer leads.
    pub fn at(at: usize, fault: Fault) -> Self {
        Self { fault, at, pointer: None }
    }

    /// The JSON-RPC error code: -32700 where the text was not readable, else -32600.
    pub fn code(&self) -> i64 {
        match self.fault {
            Fault::NotUtf8
            | Fault::Malformed
            | Fault::Trailing
            | Fault::TooDeep { .. }
            | Fault::DuplicateKey(_)
            | Fault::HugeNumber => -32700,
            _ => -32600,
        }
    }

    /// The same fault, seen from a batch in which the message begins at `start` as element
    /// `index`.
    #[must_use]
    pub fn in_batch(self, start: usize, index: usize) -> Self {
        let inner = self.pointer.unwrap_or_default();
        Self { at: start + self.at, pointer: Some(format!("/{index}{inner}")), ..self }
    }
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, at byte {}", self.fault, self.at)?;
        match &self.pointer {
            Some(pointer) if !pointer.is_empty() => write!(f, " ({pointer})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Where the values of the envelope's members stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) jsonrpc: Option<Range<usize>>,
    pub(super) id: Option<Range<usize>>,
    pub(super) method: Option<Range<usize>>,
    pub(super) params: Option<Range<usize>>,
    pub(super) result: Option<Range<usize>>,
    pub(super) error: Option<Range<usize>>,
    /// The members of the object that `result` is.
    pub(super) members: Vec<Member>,
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its key, between the quotes.
    pub(super) key: Range<usize>,
    /// Whether the key is written with escapes.
    pub(super) escaped: bool,
    /// Its value.
    pub(super) value: Range<usize>,
}

impl Parts {
    fn of(&mut self, key: &str) -> Option<&mut Option<Range<usize>>> {
        Some(match key {
            "jsonrpc" => &mut self.jsonrpc,
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => &mut self.params,
            "result" => &mut self.result,
            "error" => &mut self.error,
            _ => return None,
        })
    }
}

/// The envelope's own keys.
const ENVELOPE_KEYS: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];
/// The keys of `params` that say what a call reaches.
const PARAM_KEYS: &[&str] = &["name", "arguments", "uri", "_meta"];

/// Reads the whole text, which begins with `{`.
pub(super) fn scan(text: &str, origin: Origin, depth: usize) -> Result<Parts, DecodeError> {
    let mut scan =
        Scan { text, origin, open: Vec::new(), keys: Vec::new(), parts: Parts::default() };
    let mut walker = Walker::new(text, depth);
    loop {
        match walker.token() {
            Ok(Some(token)) => scan.take(&token)?,
            Ok(None) => return Ok(scan.parts),
            Err(WalkError::TooDeep { at, limit }) => {
                return Err(scan.fault(at, Fault::TooDeep { limit }));
            }
            Err(WalkError::Malformed { at }) => {
                let behind = scan.open.is_empty() && at > 0 && at < text.len();
                let fault = if behind { Fault::Trailing } else { Fault::Malformed };
                return Err(scan.fault(at, fault));
            }
        }
    }
}

struct Scan<'a> {
    text: &'a str,
    origin: Origin,
    /// The arrays and objects around the cursor, outermost first.
    open: Vec<Open<'a>>,
    /// The first few keys of each open object, outermost first. Most objects have no more, and
    /// for a handful comparing beats hashing.
    keys: Vec<Cow<'a, str>>,
    parts: Parts,
}

enum Open<'a> {
    Object {
        /// Where its keys begin among [`Scan::keys`].
        start: usize,
        /// Its keys beyond the first few.
        many: HashSet<Cow<'a, str>>,
        /// The key whose value is being read; none before the first.
        key: Option<Cow<'a, str>>,
        /// Where servers decode loosely: its keys as the laxest of them reads them.
        loose: Option<Loose<'a>>,
    },
    Array {
        /// Elements begun so far.
        count: usize,
    },
}

struct Loose<'a> {
    place: &'static str,
    known: &'static [&'static str],
    seen: HashSet<Cow<'a, str>>,
}

impl<'a> Scan<'a> {
    fn take(&mut self, token: &Token) -> Result<(), DecodeError> {
        match token.kind {
            json::Kind::Key => return self.key(token),
            json::Kind::EndObject | json::Kind::EndArray => {
                if let Some(Open::Object { start, .. }) = self.open.pop() {
                    self.keys.truncate(start);
                }
                if let [Open::Object { key: Some(key), .. }] = self.open.as_slice()
                    && let Some(Some(part)) = self.parts.of(key)
                {
                    part.end = token.range.end;
                }
                if let Some(member) = self.member() {
                    member.value.end = token.range.end;
                }
                return Ok(());
            }
            _ => {}
        }
        if let Some(Open::Array { count }) = self.open.last_mut() {
            *count += 1;
        }
        if token.kind == json::Kind::Number {
            self.number(token)?;
        }
        if let [Open::Object { key: Some(key), .. }] = self.open.as_slice()
            && let Some(part) = self.parts.of(key)
        {
            // Of an array or object this is the first byte; its end comes with its last.
            *part = Some(token.range.clone());
        } else if let Some(member) = self.member() {
            member.value = token.range.clone();
        }
        match token.kind {
            json::Kind::Object => {
                let (start, loose) = (self.keys.len(), self.loose());
                self.open.push(Open::Object { start, many: HashSet::new(), key: None, loose });
            }
            json::Kind::Array => self.open.push(Open::Array { count: 0 }),
            _ => {}
        }
        Ok(())
    }

    /// Whether the object that begins here is one that servers decode loosely. What a server
    /// sends is read by its client alone, but for the envelope, by which all is judged.
    fn loose(&self) -> Option<Loose<'a>> {
        let client = self.origin == Origin::Client;
        let mut path = [""; 2];
        for (step, open) in path.iter_mut().zip(&self.open) {
            let Open::Object { key: Some(key), .. } = open else { return None };
            *step = key;
        }
        let (place, known): (_, &[&str]) = match (self.open.len(), path) {
            (0, _) => ("the message", ENVELOPE_KEYS),
            (1, ["params", _]) if client => ("params", PARAM_KEYS),
            (2, ["params", "arguments"]) if client => ("params.arguments", &[]),
            _ => return None,
        };
        Some(Loose { place, known, seen: HashSet::new() })
    }

    /// The member of the result whose value the cursor stands at, in or behind.
    fn member(&mut self) -> Option<&mut Member> {
        match self.open.as_slice() {
            [Open::Object { key: Some(key), .. }, Open::Object { .. }] if key == "result" => {
                self.parts.members.last_mut()
            }
            _ => None,
        }
    }

    fn key(&mut self, token: &Token) -> Result<(), DecodeError> {
        let found = string(self.text, token);
        if let [Open::Object { key: Some(outer), .. }, Open::Object { .. }] = self.open.as_slice()
            && outer == "result"
        {
            let key = token.range.start + 1..token.range.end.saturating_sub(1);
            let value = token.range.end..token.range.end;
            self.parts.members.push(Member { key, escaped: token.escaped, value });
        }
        let Some(Open::Object { start, many, key, loose }) = self.open.last_mut() else {
            return Ok(());
        };
        *key = Some(found.clone());
        let few = self.keys.get(*start..).unwrap_or_default();
        let twice = few.contains(&found)
            || if few.len() < FEW_KEYS {
                self.keys.push(found.clone());
                false
            } else {
                !many.insert(found.clone())
            };
        if twice {
            let fault = Fault::DuplicateKey(shortened(&found));
            return Err(self.fault(token.range.start, fault));
        }
        let Some(Loose { place, known, seen }) = loose else { return Ok(()) };
        let folded = fold(found.clone());
        let ambiguous = |why| Fault::AmbiguousKey { key: shortened(&found), place, why };
        let fault = if known.contains(&&*folded) && *folded != *found {
            ambiguous(format!("some servers read it as {folded:?}"))
        } else if !seen.insert(folded) {
            ambiguous("it differs from another key only by case or blanks".to_owned())
        } else {
            return Ok(());
        };
        Err(self.fault(token.range.start, fault))
    }

    /// What policies judge by, they must be able to read; an answer's numbers are its client's.
    fn number(&self, token: &Token) -> Result<(), DecodeError> {
        let digits = self.text.get(token.range.clone()).unwrap_or_default();
        let huge = (digits.len() > 300 || digits.contains(['e', 'E']))
            && digits.parse().is_ok_and(f64::is_infinite);
        let judged = self.origin == Origin::Client
            || matches!(self.open.first(), Some(Open::Object { key: Some(key), .. }) if key == "params");
        if huge && judged {
            return Err(self.fault(token.range.start, Fault::HugeNumber));
        }
        Ok(())
    }

    fn fault(&self, at: usize, fault: Fault) -> DecodeError {
        let mut pointer = String::new();
        for open in &self.open {
            let step = match open {
                Open::Object { key: None, .. } => break,
                Open::Object { key: Some(key), .. } => key.replace('~', "~0").replace('/', "~1"),
                Open::Array { count: 0 } => break,
                Open::Array { count } => (count - 1).to_string(),
            };
            pointer.push('/');
            pointer.push_str(&step);
            if pointer.chars().nth(LONGEST_POINTER).is_some() {
                pointer = shorten(&pointer, LONGEST_POINTER);
                break;
            }
        }
        DecodeError { fault, at, pointer: Some(pointer) }
    }
}

/// A key as an error may quote it.
fn shortened(key: &str) -> String {
    shorten(key, LONGEST_POINTER)
}

fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// What a key or string says, borrowed where it has no escapes.
fn string<'a>(text: &'a str, token: &Token) -> Cow<'a, str> {
    let inside = token.range.start + 1..token.range.end.saturating_sub(1);
    let raw = text.get(inside).unwrap_or_default();
    if !token.escaped {
        return Cow::Borrowed(raw);
    }
    json::unescape(raw).map_or(Cow::Borrowed(raw), |said| Cow::Owned(said.text().to_owned()))
}

/// Folds a key the way the laxest known servers do.
fn fold(key: Cow<'_, str>) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_graphic() && !b.is_ascii_uppercase();
    if key.bytes().all(plain) {
        return key;
    }
    let kept = key.chars().filter(|c| !c.is_whitespace() && !c.is_control() && *c != '\u{feff}');
    Cow::Owned(kept.flat_map(char::to_lowercase).collect())
}

/// How many of an object's keys are compared one by one.
const FEW_KEYS: usize = 12;
