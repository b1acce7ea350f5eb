//! JSON text by spans: where its keys, strings and numbers stand, and how to edit them in place.
//!
//! An edit is spliced into the original bytes, so big integers, key order, blanks and unknown
//! members survive untouched. The walker checks RFC 8259's grammar as it goes and never panics;
//! it does not look for duplicate keys, which is [`super::message`]'s work. Nothing here knows
//! what a key means.

mod strings;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub use strings::{Unescaped, escape, unescape};
use strings::{plain_end, read_escape};

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
            let bytes = self.text.as_bytes();
            let stop = plain_end(bytes, self.at);
            match byte(bytes, stop) {
                b'"' => {
                    self.at = stop + 1;
                    let range = start..self.at;
                    return Ok(Token { kind, range, depth: self.open.len(), escaped });
                }
                b'\\' => self.at = stop,
                // A control character; or the end, and then it is the string that has none.
                _ => {
                    if stop < bytes.len() {
                        self.at = stop;
                    }
                    return self.malformed();
                }
            }
            escaped = true;
            match read_escape(bytes.get(self.at..).unwrap_or_default()) {
                Some((_, length)) => self.at += length,
                None => return self.malformed(),
            }
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
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
    let mut splicer = Splicer::new(original, growth);
    for (range, text) in edits {
        splicer.replace(range.clone(), text)?;
    }
    splicer.finish()
}

/// [`splice`], one edit at a time.
#[derive(Debug)]
pub struct Splicer<'a> {
    original: &'a [u8],
    /// Up to where the original has been read.
    at: usize,
    out: Vec<u8>,
}

impl<'a> Splicer<'a> {
    /// Makes room for `growth` more bytes than the original has.
    pub fn new(original: &'a [u8], growth: usize) -> Self {
        Self { original, at: 0, out: Vec::with_capacity(original.len() + growth) }
    }

    /// Replaces a range behind those replaced before.
    ///
    /// # Errors
    /// [`SpliceError`] if it begins before their end, or lies outside the original. What has been
    /// written is then of no use.
    pub fn replace(&mut self, range: Range<usize>, text: &str) -> Result<(), SpliceError> {
        let error = SpliceError { at: range.start };
        if range.end < range.start || range.end > self.original.len() {
            return Err(error);
        }
        self.out.extend_from_slice(self.original.get(self.at..range.start).ok_or(error)?);
        self.out.extend_from_slice(text.as_bytes());
        self.at = range.end;
        Ok(())
    }

    /// The original with everything replaced.
    ///
    /// # Errors
    /// None in practice; the bound is checked like the others.
    pub fn finish(mut self) -> Result<Vec<u8>, SpliceError> {
        let rest = self.original.get(self.at..).ok_or(SpliceError { at: self.at })?;
        self.out.extend_from_slice(rest);
        Ok(self.out)
    }
}
