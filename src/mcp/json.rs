//! JSON text by spans: where its keys, strings and numbers stand, and how to edit them in place.
//!
//! An edit is spliced into the original bytes, so big integers, key order, blanks and unknown
//! members survive untouched. The walker checks RFC 8259's grammar as it goes and never panics;
//! it does not look for duplicate keys, which is [`super::message`]'s work. Nothing here knows
//! what a key means.

use std::ops::Range;

/// What a [`Token`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `}`
    EndObject,
    /// `[`
    Array,
    /// `]`
    EndArray,
    /// A member's name; the member's value is the next token.
    Key,
    /// A string value.
    String,
    /// A number, as written.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// One piece of JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it stands; keys and strings with their quotes.
    pub range: Range<usize>,
    /// How many arrays and objects are open around it.
    pub depth: usize,
    /// Whether a key or string holds a backslash escape.
    pub escaped: bool,
}

/// Text that is not JSON, or deeper than asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// Not JSON at this byte.
    #[error("malformed JSON at byte {at}")]
    Malformed {
        /// The offending byte's offset.
        at: usize,
    },
    /// More arrays and objects open at once than allowed.
    #[error("JSON nested deeper than {limit} at byte {at}")]
    TooDeep {
        /// Where the bound was passed.
        at: usize,
        /// The bound.
        limit: usize,
    },
}

/// Hands out the tokens of one JSON value in order. Its only allocation is one bit of
/// bookkeeping per open array or object.
#[derive(Debug)]
pub struct Walker<'a> {
    text: &'a str,
    at: usize,
    state: State,
    /// Whether each open container is an object.
    open: Vec<bool>,
    limit: usize,
    prefix: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Value,
    FirstValue,
    FirstKey,
    After,
    Done,
}

impl<'a> Walker<'a> {
    /// Walks `text`, which must be one JSON value and blanks.
    pub fn new(text: &'a str, depth: usize) -> Self {
        Self { text, at: 0, state: State::Value, open: Vec::new(), limit: depth, prefix: false }
    }

    /// Walks the one JSON value that begins at `start`, whatever follows it.
    pub fn prefix(text: &'a str, start: usize, depth: usize) -> Self {
        Self { at: start, prefix: true, ..Self::new(text, depth) }
    }

    /// The offset up to which the text has been read.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next token, or `None` after the value's end.
    ///
    /// # Errors
    /// [`WalkError`] where the text stops being JSON; asking on after that is pointless but safe.
    pub fn token(&mut self) -> Result<Option<Token>, WalkError> {
        if self.state == State::Done && self.prefix {
            return Ok(None);
        }
        self.skip_blanks();
        match self.state {
            State::Done if self.at == self.text.len() => Ok(None),
            State::Done => self.malformed(),
            State::Value => self.value().map(Some),
            State::FirstValue if self.peek() == b']' => self.close().map(Some),
            State::FirstValue => self.value().map(Some),
            State::FirstKey if self.peek() == b'}' => self.close().map(Some),
            State::FirstKey => self.key().map(Some),
            State::After => match (self.peek(), self.open.last()) {
                (b',', Some(&object)) => {
                    self.at += 1;
                    self.skip_blanks();
                    if object { self.key().map(Some) } else { self.value().map(Some) }
                }
                (b'}', Some(true)) | (b']', Some(false)) => self.close().map(Some),
                _ => self.malformed(),
            },
        }
    }

    fn malformed<T>(&self) -> Result<T, WalkError> {
        Err(WalkError::Malformed { at: self.at })
    }

    /// The byte at the cursor; NUL, which no JSON holds outside strings, at the end.
    fn peek(&self) -> u8 {
        byte(self.text.as_bytes(), self.at)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn key(&mut self) -> Result<Token, WalkError> {
        let token = self.string(Kind::Key)?;
        self.skip_blanks();
        if self.peek() != b':' {
            return self.malformed();
        }
        self.at += 1;
        self.state = State::Value;
        Ok(token)
    }

    fn value(&mut self) -> Result<Token, WalkError> {
        let start = self.at;
        let kind = match self.peek() {
            b'{' => return self.open(Kind::Object),
            b'[' => return self.open(Kind::Array),
            b'"' => {
                let token = self.string(Kind::String)?;
                self.end_value();
                return Ok(token);
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                Kind::Number
            }
            b't' => self.literal("true", Kind::Bool)?,
            b'f' => self.literal("false", Kind::Bool)?,
            b'n' => self.literal("null", Kind::Null)?,
            _ => return self.malformed(),
        };
        self.end_value();
        Ok(Token { kind, range: start..self.at, depth: self.open.len(), escaped: false })
    }

    fn end_value(&mut self) {
        self.state = if self.open.is_empty() { State::Done } else { State::After };
    }

    fn open(&mut self, kind: Kind) -> Result<Token, WalkError> {
        if self.open.len() >= self.limit {
            return Err(WalkError::TooDeep { at: self.at, limit: self.limit });
        }
        let depth = self.open.len();
        let object = kind == Kind::Object;
        self.open.push(object);
        self.state = if object { State::FirstKey } else { State::FirstValue };
        self.at += 1;
        Ok(Token { kind, range: self.at - 1..self.at, depth, escaped: false })
    }

    fn close(&mut self) -> Result<Token, WalkError> {
        let kind = if self.open.pop() == Some(true) { Kind::EndObject } else { Kind::EndArray };
        self.at += 1;
        self.end_value();
        Ok(Token { kind, range: self.at - 1..self.at, depth: self.open.len(), escaped: false })
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<Kind, WalkError> {
        if !self.text.as_bytes().get(self.at..).is_some_and(|r| r.starts_with(word.as_bytes())) {
            return self.malformed();
        }
        self.at += word.len();
        Ok(kind)
    }

    fn digits(&mut self) -> Result<(), WalkError> {
        if !self.peek().is_ascii_digit() {
            return self.malformed();
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), WalkError> {
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn string(&mut self, kind: Kind) -> Result<Token, WalkError> {
        if self.peek() != b'"' {
            return self.malformed();
        }
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let Some(stop) = memchr::memchr2(b'"', b'\\', rest) else { return self.malformed() };
            if rest.get(..stop).is_some_and(|plain| plain.iter().any(|b| *b < 0x20)) {
                return self.malformed();
            }
            self.at += stop;
            if self.peek() == b'"' {
                self.at += 1;
                return Ok(Token { kind, range: start..self.at, depth: self.open.len(), escaped });
            }
            escaped = true;
            match read_escape(rest.get(stop..).unwrap_or_default()) {
                Some((_, length)) => self.at += length,
                None => return self.malformed(),
            }
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// Reads the escape that `raw` begins with: its character and its length in bytes. A surrogate
/// pair is one escape; half of one is none.
fn read_escape(raw: &[u8]) -> Option<(char, usize)> {
    let short = match byte(raw, 1) {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let unit = |at: usize| {
                let hex = raw.get(at..at + 4)?;
                let digit = |value: u32, b: &u8| Some(value * 16 + char::from(*b).to_digit(16)?);
                hex.iter().try_fold(0, digit)
            };
            let high = unit(2)?;
            if !(0xd800..0xdc00).contains(&high) {
                return Some((char::from_u32(high)?, 6));
            }
            let low = unit(8).filter(|low| raw.get(6..8) == Some(b"\\u") && *low >= 0xdc00)?;
            let joined = 0x10000 + ((high - 0xd800) << 10) + low.checked_sub(0xdc00)?;
            return Some((char::from_u32(joined).filter(|_| low < 0xe000)?, 12));
        }
        _ => return None,
    };
    Some((short, 2))
}

/// What a string with escapes says, and where each part of that stands in its raw form.
#[derive(Clone, Debug)]
pub struct Unescaped {
    text: String,
    escapes: Vec<Escape>,
}

#[derive(Clone, Copy, Debug)]
struct Escape {
    /// Where its character begins in the text.
    text: usize,
    /// Where it begins in the raw form.
    raw: usize,
    text_len: u8,
    raw_len: u8,
}

impl Unescaped {
    /// The text that the string stands for.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of the text stands in the raw form. A range that would cut a character in
    /// two is widened to the whole of it.
    pub fn to_raw(&self, range: &Range<usize>) -> Range<usize> {
        self.raw_offset(range.start, false)..self.raw_offset(range.end, true)
    }

    fn raw_offset(&self, at: usize, is_end: bool) -> usize {
        let before = self.escapes.partition_point(|escape| escape.text < at);
        match before.checked_sub(1).and_then(|last| self.escapes.get(last)) {
            None => at,
            Some(escape) => {
                let text_end = escape.text + usize::from(escape.text_len);
                let raw_end = escape.raw + usize::from(escape.raw_len);
                match at.checked_sub(text_end) {
                    Some(past) => raw_end + past,
                    None if is_end => raw_end,
                    None => escape.raw,
                }
            }
        }
    }
}

/// Reads the inside of a JSON string (without its quotes). `None` if an escape in it is
/// malformed, which cannot be in what [`Walker`] handed out.
pub fn unescape(raw: &str) -> Option<Unescaped> {
    let mut text = String::with_capacity(raw.len());
    let mut escapes = Vec::new();
    let mut at = 0;
    while let Some(step) = memchr::memchr(b'\\', raw.as_bytes().get(at..)?) {
        text.push_str(raw.get(at..at + step)?);
        at += step;
        let (character, length) = read_escape(raw.as_bytes().get(at..)?)?;
        escapes.push(Escape {
            text: text.len(),
            raw: at,
            text_len: u8::try_from(character.len_utf8()).ok()?,
            raw_len: u8::try_from(length).ok()?,
        });
        text.push(character);
        at += length;
    }
    text.push_str(raw.get(at..)?);
    Some(Unescaped { text, escapes })
}

/// Writes `text` as the inside of a JSON string (without quotes).
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let code = u32::from(c);
                let hex = |nibble: u32| char::from_digit(nibble & 15, 16).unwrap_or('0');
                out.extend(['\\', 'u', '0', '0', hex(code >> 4), hex(code)]);
            }
            c => out.push(c),
        }
    }
    out
}

/// Edits that cannot be applied: out of order, overlapping or outside the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the edit at byte {at} is out of order or outside the text")]
pub struct SpliceError {
    /// Where the bad edit begins.
    pub at: usize,
}

/// Replaces ranges of `original`, in ascending order, and copies every other byte as it is.
///
/// # Errors
/// [`SpliceError`] for the first edit that is out of order; nothing is half applied, since
/// skipping it would let the bytes through that it was to replace.
pub fn splice(original: &[u8], edits: &[(Range<usize>, String)]) -> Result<Vec<u8>, SpliceError> {
    let growth: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(original.len() + growth);
    let mut at = 0;
    for (range, text) in edits {
        let error = SpliceError { at: range.start };
        if range.end < range.start || range.end > original.len() {
            return Err(error);
        }
        out.extend_from_slice(original.get(at..range.start).ok_or(error)?);
        out.extend_from_slice(text.as_bytes());
        at = range.end;
    }
    out.extend_from_slice(original.get(at..).ok_or(SpliceError { at })?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    /// Rebuilds a value from tokens alone, so the walk is compared with another parser's result.
    fn rebuild(text: &str, walker: &mut Walker<'_>) -> Result<Option<Value>, WalkError> {
        let Some(token) = walker.token()? else { return Ok(None) };
        let raw = &text[token.range.clone()];
        Ok(Some(match token.kind {
            Kind::Object => {
                let mut map = serde_json::Map::new();
                loop {
                    let key = walker.token()?.unwrap();
                    if key.kind == Kind::EndObject {
                        assert_eq!(key.depth, token.depth);
                        break Value::Object(map);
                    }
                    assert_eq!((key.kind, key.depth), (Kind::Key, token.depth + 1));
                    let inner = &text[key.range.start + 1..key.range.end - 1];
                    let name = unescape(inner).unwrap().text().to_owned();
                    map.insert(name, rebuild(text, walker)?.unwrap());
                }
            }
            Kind::Array => {
                let mut items = Vec::new();
                while let Some(item) = rebuild(text, walker)? {
                    items.push(item);
                }
                Value::Array(items)
            }
            Kind::EndArray => return Ok(None),
            Kind::String => {
                let inner = &text[token.range.start + 1..token.range.end - 1];
                assert_eq!(token.escaped, inner.contains('\\'));
                Value::String(unescape(inner).unwrap().text().to_owned())
            }
            Kind::Number | Kind::Bool | Kind::Null => serde_json::from_str(raw).unwrap(),
            Kind::Key | Kind::EndObject => unreachable!(),
        }))
    }

    fn walks(text: &str) -> Result<usize, WalkError> {
        let mut walker = Walker::new(text, 64);
        let mut count = 0;
        while walker.token()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_map(Value::from),
            "\\PC*".prop_map(Value::from),
            "[\\x00-\\x1f\"\\\\é😀a-c]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[\\PC\"\\\\]{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn walk_agrees_with_serde(value in any_json(), pretty: bool) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let mut walker = Walker::new(&text, 64);
            prop_assert_eq!(rebuild(&text, &mut walker).unwrap(), Some(value));
            prop_assert_eq!(walker.token().unwrap(), None);
        }

        #[test]
        fn walk_accepts_what_serde_accepts(text in "[\\[\\]{}\",:0-9a-u\\\\ .+eE-]{0,14}") {
            // A number beyond f64 is grammatical and yet refused by serde_json.
            if !text.contains(['e', 'E']) {
                let serde = serde_json::from_str::<Value>(&text).is_ok();
                prop_assert_eq!(walks(&text).is_ok(), serde);
            }
        }

        #[test]
        fn anything_is_survived(text in "\\PC{0,40}", start in 0usize..50) {
            let _ = walks(&text);
            let mut walker = Walker::prefix(&text, start, 4);
            while let Ok(Some(_)) = walker.token() {}
            let _ = unescape(&text);
        }

        #[test]
        fn escape_is_undone_by_unescape(text in any::<String>()) {
            let raw = escape(&text);
            let read = unescape(&raw).unwrap();
            prop_assert_eq!(read.text(), text.as_str());
            let serde: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            prop_assert_eq!(&serde, &text);
            // Any range of characters maps to the raw form of exactly those characters.
            let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            for pair in ends.windows(2) {
                let part = read.to_raw(&(pair[0]..pair[1]));
                let part = unescape(&raw[part]).unwrap();
                prop_assert_eq!(part.text(), &text[pair[0]..pair[1]]);
            }
        }

        #[test]
        fn splice_touches_only_its_ranges(
            text in "[a-z]{0,30}", cuts in proptest::collection::btree_set(0usize..30, 0..6)
        ) {
            prop_assert_eq!(splice(text.as_bytes(), &[]).unwrap(), text.as_bytes());
            let cuts: Vec<usize> = cuts.into_iter().filter(|at| *at <= text.len()).collect();
            let edits: Vec<_> =
                cuts.chunks_exact(2).map(|c| (c[0]..c[1], "##".to_owned())).collect();
            let out = String::from_utf8(splice(text.as_bytes(), &edits).unwrap()).unwrap();
            let mut kept = Vec::new();
            let mut at = 0;
            for (range, _) in &edits {
                kept.push(&text[at..range.start]);
                at = range.end;
            }
            kept.push(&text[at..]);
            prop_assert_eq!(out, kept.join("##"));
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "01",
            "1.",
            "-",
            "+1",
            "tru",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\n\"",
            "[1}",
            "1 2",
            "{1:2}",
            "nulll",
        ] {
            assert!(walks(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(walks(&"[".repeat(65)), Err(WalkError::TooDeep { at: 64, limit: 64 }));
        assert!(walks(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_ok());
    }

    #[test]
    fn a_prefix_ends_where_its_value_ends() {
        let text = "see {\"a\":[1]} and more";
        let mut walker = Walker::prefix(text, 4, 9);
        while walker.token().unwrap().is_some() {}
        assert_eq!(&text[4..walker.offset()], "{\"a\":[1]}");
    }

    #[test]
    fn bad_edits_are_refused() {
        let edit = |range: Range<usize>| (range, String::new());
        assert!(splice(b"abc", &[edit(2..3), edit(0..1)]).is_err());
        assert!(splice(b"abc", &[edit(0..2), edit(1..3)]).is_err());
        assert!(splice(b"abc", &[edit(1..9)]).is_err());
    }
}
