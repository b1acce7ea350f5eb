//! The inside of JSON strings: escapes read, written, and mapped to where they stand.

use std::ops::Range;

use super::byte;

/// Reads the escape that `raw` begins with: its character and its length in bytes. A surrogate
/// pair is one escape; half of one is none.
pub(super) fn read_escape(raw: &[u8]) -> Option<(char, usize)> {
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
/// malformed, which cannot be in what [`Walker`](super::Walker) handed out.
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
