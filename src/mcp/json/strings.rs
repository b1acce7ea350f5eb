//! The inside of JSON strings: escapes read, written, and mapped to where they stand.

use std::ops::Range;

use super::byte;

/// Reads the escape that `raw` begins with: its character and its length in bytes. A surrogate
/// pair is one escape; half of one is none.
#[inline]
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

/// Where the plain text that begins at `from` ends: at the first quote, backslash or control
/// character, or with the bytes. Eight bytes are looked at at a time.
#[inline]
pub(super) fn plain_end(bytes: &[u8], from: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // The high bit of each byte of `word` below `bound`. Bits above the first can be wrong.
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGH;
    let (blocks, rest) = bytes.get(from..).unwrap_or_default().as_chunks::<8>();
    for (at, block) in (from..).step_by(8).zip(blocks) {
        let word = u64::from_le_bytes(*block);
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let stops = quote | backslash | below(word, b' ');
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
    }
    let stop = |b: &u8| matches!(b, b'"' | b'\\') || *b < b' ';
    let rest_start = bytes.len() - rest.len();
    rest_start + rest.iter().position(stop).unwrap_or(rest.len())
}

/// What a string with escapes says, and where each part of that stands in its raw form.
#[derive(Clone, Debug, Default)]
pub struct Unescaped {
    text: String,
    escapes: Vec<Escape>,
    /// How many escapes' characters begin before each multiple of [`BLOCK`] but the first.
    blocks: Vec<u32>,
}

const BLOCK: usize = 256;

#[derive(Clone, Copy, Debug)]
struct Escape {
    /// Where its character begins in the text.
    text: u32,
    /// How much further on in the raw form its end stands than in the text.
    shift: u32,
}

impl Unescaped {
    /// The text that the string stands for.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of the text stands in the raw form. A range that would cut a character in
    /// two is widened to the whole of it.
    pub fn to_raw(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.escapes_before(range.start);
        let end = match self.escapes.get(start) {
            Some(next) if (next.text as usize) < range.end => self.escapes_before(range.end),
            _ => start,
        };
        self.raw_offset(range.start, start, false)..self.raw_offset(range.end, end, true)
    }

    /// How many escapes' characters begin before `at`.
    fn escapes_before(&self, at: usize) -> usize {
        let count = |block: usize| match block.checked_sub(1) {
            Some(block) => self.blocks.get(block).map_or(self.escapes.len(), |at| *at as usize),
            None => 0,
        };
        let (first, last) = (count(at / BLOCK), count(at / BLOCK + 1));
        let near = self.escapes.get(first..last).unwrap_or_default();
        first + near.partition_point(|escape| (escape.text as usize) < at)
    }

    /// Where the text's byte `at`, with so many escapes before it, stands in the raw form.
    fn raw_offset(&self, at: usize, before: usize, is_end: bool) -> usize {
        let shift = |count: usize| {
            let last = count.checked_sub(1).and_then(|last| self.escapes.get(last));
            last.map_or(0, |escape| escape.shift as usize)
        };
        let last = before.checked_sub(1).and_then(|last| self.escapes.get(last));
        let Some(last) = last else { return at };
        let start = last.text as usize;
        let character = self.text.get(start..).and_then(|rest| rest.chars().next());
        let end = start + character.map_or(0, char::len_utf8);
        match (at < end, is_end) {
            (false, _) => at + shift(before),
            (true, true) => end + shift(before),
            (true, false) => start + shift(before - 1),
        }
    }
}

/// Reads the inside of a JSON string (without its quotes). `None` if an escape in it is
/// malformed, which cannot be in what [`Walker`](super::Walker) handed out, or if it has 4 GiB.
pub fn unescape(raw: &str) -> Option<Unescaped> {
    let mut read = Unescaped { text: String::with_capacity(raw.len()), ..Unescaped::default() };
    let bytes = raw.as_bytes();
    let mut at = 0;
    loop {
        let plain = at;
        at = plain_end(bytes, at);
        while bytes.get(at).is_some_and(|b| *b != b'\\') {
            at = plain_end(bytes, at + 1);
        }
        read.text.push_str(raw.get(plain..at)?);
        if at == bytes.len() {
            break;
        }
        let (character, length) = read_escape(bytes.get(at..)?)?;
        let text = read.text.len();
        while (read.blocks.len() + 1) * BLOCK <= text {
            read.blocks.push(u32::try_from(read.escapes.len()).ok()?);
        }
        read.text.push(character);
        at += length;
        let shift = u32::try_from(at - read.text.len()).ok()?;
        read.escapes.push(Escape { text: u32::try_from(text).ok()?, shift });
    }
    Some(read)
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
