//! Server-sent events, framed without losing a byte.
//!
//! Owns cutting an event stream into blocks and putting other data into a block. Keeps what an
//! ordinary client library throws away, because a gateway must hand it on: comments (they are
//! keep-alives), unknown fields, line endings, priming events with empty data. Never decides what
//! a message means.
//!
//! Implements the event stream format of the HTML standard, section 9.2.6.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// One block of an event stream.
///
/// Three things arrive as blocks: an event (up to and including its blank line), a comment line
/// that stands before any field (handed out at once, so that keep-alives are not held back), and
/// a stray line end. [`Event::is_filler`] tells the last two apart from events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bytes as they arrived. The raw bytes of all blocks, one after the other, are the
    /// stream (without a leading byte order mark).
    pub raw: Bytes,
    /// The `event` field, where there is one.
    pub event: Option<String>,
    /// The `id` field, where there is one. Empty means: forget the last id.
    pub id: Option<String>,
    /// The `retry` field in milliseconds, where there is one and it is a number.
    pub retry: Option<u64>,
    /// All `data` fields, joined by line feeds; `None` without any, so that a priming event
    /// (`data:` and nothing else) stays different from an event without data.
    pub data: Option<String>,
    /// Whether the bytes were UTF-8. Where they were not, the texts above hold replacement
    /// characters, and `raw` says something else than they do.
    pub exact: bool,
}

/// A block grew longer than allowed. The stream cannot be read further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {limit} bytes")]
pub struct TooLarge {
    /// The bound.
    pub limit: usize,
}

/// Cuts an event stream, given in chunks of any size, into blocks.
#[derive(Debug)]
pub struct Decoder {
    /// The unfinished block.
    buffer: BytesMut,
    /// Where in the buffer the current line begins.
    line: usize,
    /// Up to where the buffer is known to hold no further line end.
    scanned: usize,
    /// Whether the unfinished block has a line already.
    in_block: bool,
    /// Whether the last line ended in CR, so that an LF right after it belongs to that line end.
    after_cr: bool,
    /// Whether the place for a byte order mark is past.
    begun: bool,
    failed: bool,
    limit: usize,
    ready: VecDeque<Event>,
}

impl Decoder {
    /// A decoder that accepts blocks of at most `max_event_bytes`.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            line: 0,
            scanned: 0,
            in_block: false,
            after_cr: false,
            begun: false,
            failed: false,
            limit: max_event_bytes,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next chunk. Blocks that it completes come out of [`Decoder::next`].
    ///
    /// # Errors
    /// [`TooLarge`] once a block outgrows the bound, and from then on. Blocks completed before
    /// are still handed out.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), TooLarge> {
        let mut rest = chunk;
        // A chunk may hold many blocks; taking it in pieces keeps memory at the bound.
        while !self.failed && !rest.is_empty() {
            let room = self.limit.saturating_sub(self.buffer.len()).saturating_add(1);
            let (piece, later) = rest.split_at(room.min(rest.len()));
            self.buffer.extend_from_slice(piece);
            rest = later;
            self.cut();
            self.failed = self.buffer.len() > self.limit;
        }
        if self.failed { Err(TooLarge { limit: self.limit }) } else { Ok(()) }
    }

    /// The next complete block.
    #[expect(clippy::should_implement_trait, reason = "more may come after a None")]
    pub fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// The bytes of the unfinished block. At the end of a stream a client discards them.
    pub fn unfinished(&self) -> &[u8] {
        &self.buffer
    }

    fn cut(&mut self) {
        if !self.begun {
            if self.buffer.len() < BOM.len() && BOM.starts_with(&self.buffer) {
                return;
            }
            self.begun = true;
            if self.buffer.starts_with(BOM) {
                drop(self.buffer.split_to(BOM.len()));
            }
        }
        while let Some(end) = self.line_end() {
            let byte = self.buffer.get(end).copied();
            if byte == Some(b'\n') && self.after_cr && end == self.line {
                self.after_cr = false;
                self.line = end + 1;
                self.scanned = end + 1;
                if !self.in_block {
                    // Its block is gone already; it must not wait for the next one.
                    self.emit(end + 1);
                }
                continue;
            }
            let mut after = end + 1;
            self.after_cr = byte == Some(b'\r');
            if self.after_cr && self.buffer.get(after) == Some(&b'\n') {
                self.after_cr = false;
                after += 1;
            }
            let line = self.buffer.get(self.line..end).unwrap_or_default();
            if line.is_empty() || (line.starts_with(b":") && !self.in_block) {
                self.emit(after);
            } else {
                self.in_block = true;
                self.line = after;
                self.scanned = after;
            }
        }
    }

    fn line_end(&mut self) -> Option<usize> {
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        match memchr::memchr2(b'\n', b'\r', unseen) {
            Some(offset) => Some(self.scanned + offset),
            None => {
                self.scanned = self.buffer.len();
                None
            }
        }
    }

    fn emit(&mut self, length: usize) {
        let raw = self.buffer.split_to(length).freeze();
        self.in_block = false;
        self.line = 0;
        self.scanned = 0;
        self.ready.push_back(Event::read(raw));
    }
}

impl Event {
    /// Whether this is no event: a comment or a stray line end.
    pub fn is_filler(&self) -> bool {
        self.event.is_none() && self.id.is_none() && self.retry.is_none() && self.data.is_none()
    }

    /// This block with other data; every other line stays as it is.
    pub fn with_data(&self, new: &str) -> Bytes {
        let mut out = Vec::with_capacity(self.raw.len() + new.len());
        let mut written = false;
        let mut end_of_line: &[u8] = b"\n";
        for (line, end) in Lines(&self.raw) {
            let is_data = matches!(field(line), Some((b"data", _)));
            if !end.is_empty() {
                end_of_line = end;
            }
            if (is_data || line.is_empty()) && !written {
                write_data(&mut out, new, end_of_line);
                written = true;
            }
            if !is_data {
                out.extend_from_slice(line);
                out.extend_from_slice(end);
            }
        }
        out.into()
    }

    fn read(raw: Bytes) -> Self {
        let exact = std::str::from_utf8(&raw).is_ok();
        let (mut event, mut id, mut retry, mut data) = (None, None, None, None::<String>);
        for (line, _) in Lines(&raw) {
            let Some((name, value)) = field(line) else { continue };
            let text = String::from_utf8_lossy(value);
            match name {
                b"event" => event = Some(text.into_owned()),
                b"id" if !value.contains(&0) => id = Some(text.into_owned()),
                b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                    retry = text.parse().ok().or(retry);
                }
                b"data" => match &mut data {
                    None => data = Some(text.into_owned()),
                    Some(data) => {
                        data.push('\n');
                        data.push_str(&text);
                    }
                },
                _ => {}
            }
        }
        Self { event, id, retry, data, exact, raw }
    }
}

/// One new event. Line breaks inside `event` and `id` are left out, as they would forge fields.
pub fn encode(event: Option<&str>, id: Option<&str>, data: &str) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + 32);
    for (name, value) in [("event", event), ("id", id)] {
        if let Some(value) = value {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(value.bytes().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
            out.push(b'\n');
        }
    }
    write_data(&mut out, data, b"\n");
    out.push(b'\n');
    out.into()
}

/// One comment, which clients ignore: a keep-alive.
pub fn comment(text: &str) -> Bytes {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    format!(": {text}\n\n").into()
}

/// Writes `data` lines. A CR or LF inside the text would end the line on the other side, so the
/// text is cut there; in JSON they can only be blanks between tokens.
fn write_data(out: &mut Vec<u8>, data: &str, end_of_line: &[u8]) {
    let mut rest = data;
    loop {
        let (line, more) = match rest.find(['\r', '\n']) {
            None => (rest, None),
            Some(at) => {
                let (line, tail) = rest.split_at(at);
                let end = if tail.starts_with("\r\n") { 2 } else { 1 };
                (line, tail.get(end..))
            }
        };
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(end_of_line);
        match more {
            Some(more) => rest = more,
            None => return,
        }
    }
}

/// A line's field name and value; nothing for comments and blank lines.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let Some(colon) = memchr::memchr(b':', line) else {
        return (!line.is_empty()).then_some((line, b""));
    };
    let (name, rest) = line.split_at(colon);
    let value = rest.strip_prefix(b": ").or(rest.strip_prefix(b":")).unwrap_or_default();
    (colon > 0).then_some((name, value))
}

/// The lines of a block with their ends: LF, CR LF or CR.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let length = memchr::memchr2(b'\n', b'\r', self.0).unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(length);
        let end = if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) };
        let (end, rest) = rest.split_at(end);
        self.0 = rest;
        Some((line, end))
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk).unwrap();
            events.extend(std::iter::from_fn(|| decoder.next()));
        }
        events
    }

    #[test]
    fn reads_every_field_and_keeps_the_rest() {
        let text =
            b"event: message\nid: 7\nretry: 3000\nx-new: kept\n: inside\ndata: a\ndata:b\ndata\n\n";
        let events = decode(&[text]);
        let [event] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(event.event.as_deref(), Some("message"));
        assert_eq!(event.id.as_deref(), Some("7"));
        assert_eq!(event.retry, Some(3000));
        assert_eq!(event.data.as_deref(), Some("a\nb\n"));
        assert_eq!(event.raw, &text[..]);
        assert_eq!(
            event.with_data("new"),
            &b"event: message\nid: 7\nretry: 3000\nx-new: kept\n: inside\ndata: new\n\n"[..]
        );
    }

    #[test]
    fn a_priming_event_is_not_an_event_without_data() {
        let events = decode(&[b"id: 1\ndata:\n\nid: 2\n\n"]);
        assert_eq!(events[0].data.as_deref(), Some(""));
        assert_eq!(events[1].data, None);
        assert_eq!(events[1].with_data("x"), &b"id: 2\ndata: x\n\n"[..]);
    }

    #[test]
    fn keep_alives_are_not_held_back() {
        let mut decoder = Decoder::new(100);
        decoder.push(b": ping\n").unwrap();
        let ping = decoder.next().unwrap();
        assert!(ping.is_filler());
        assert_eq!(ping.raw, &b": ping\n"[..]);
    }

    #[test]
    fn carriage_returns_end_lines_wherever_a_chunk_ends() {
        let mut decoder = Decoder::new(100);
        decoder.push(b"data: a\r\n\r").unwrap();
        assert_eq!(decoder.next().unwrap().data.as_deref(), Some("a"), "must not wait for the LF");
        decoder.push(b"\n").unwrap();
        assert!(decoder.next().unwrap().is_filler());
        decoder.push(b"data: b\r\rdata: c\r\n\r\n").unwrap();
        assert_eq!(decoder.next().unwrap().data.as_deref(), Some("b"));
        assert_eq!(decoder.next().unwrap().data.as_deref(), Some("c"));
    }

    #[test]
    fn new_data_cannot_forge_fields() {
        let events = decode(&[b"data: old\r\n\r\n"]);
        let edited = events[0].with_data("{\r\"a\":\n1}\r\nid: 9\n\nevent: x");
        let again = decode(&[&edited]);
        assert_eq!(again.len(), 1);
        assert_eq!(again[0].id, None);
        assert_eq!(again[0].data.as_deref(), Some("{\n\"a\":\n1}\nid: 9\n\nevent: x"));
        let forged = decode(&[&encode(Some("m\nid: 1"), None, "x")]);
        assert_eq!(forged[0].id, None);
    }

    #[test]
    fn an_endless_event_is_refused_and_stays_refused() {
        let mut decoder = Decoder::new(16);
        decoder.push(b"data: fits\n\ndata: ").unwrap();
        assert_eq!(decoder.push(b"much too long for it"), Err(TooLarge { limit: 16 }));
        assert_eq!(decoder.next().unwrap().data.as_deref(), Some("fits"));
        assert!(decoder.push(b"\n\n").is_err());
        assert!(decoder.next().is_none());
        assert!(decoder.buffer.len() <= 17, "memory is bounded");
    }

    #[test]
    fn bytes_that_are_not_text_are_told() {
        let events = decode(&[b"data: \xff\n\ndata: \xc3\xa9\n\n"]);
        assert!(!events[0].exact);
        assert!(events[1].exact);
        assert_eq!(events[1].data.as_deref(), Some("é"));
    }

    #[test]
    fn a_byte_order_mark_may_come_in_pieces() {
        let events = decode(&[b"\xef", b"\xbb", b"\xbfdata: x\n\n"]);
        assert_eq!(events[0].data.as_deref(), Some("x"));
    }

    fn fragment() -> impl Strategy<Value = Vec<u8>> {
        let texts = [
            "data: {\"a\":1}",
            "data",
            "data:",
            "data: é",
            "id: 7",
            "id: \0",
            "event: message",
            ": ping",
            "retry: 10",
            "retry: x",
            "other: y",
            "\n",
            "\n",
            "\r\n",
            "\r",
            "\r\n\r\n",
        ];
        prop_oneof![
            8 => proptest::sample::select(texts.to_vec()).prop_map(|t| t.as_bytes().to_vec()),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        #[test]
        fn chunk_borders_change_nothing(
            stream in proptest::collection::vec(fragment(), 0..40),
            cuts in proptest::collection::vec(1usize..9, 1..60),
        ) {
            let stream = stream.concat();
            let mut whole = Decoder::new(1 << 20);
            whole.push(&stream).unwrap();
            let mut pieces = Decoder::new(1 << 20);
            let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece).unwrap();
                rest = later;
            }
            prop_assert_eq!(whole.unfinished(), pieces.unfinished());
            let whole: Vec<_> = std::iter::from_fn(|| whole.next()).collect();
            let pieces: Vec<_> = std::iter::from_fn(|| pieces.next()).collect();
            let raw = |events: &[Event]| events.iter().flat_map(|e| e.raw.to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(raw(&whole), raw(&pieces));
            let stream = stream.strip_prefix(BOM).unwrap_or(&stream);
            prop_assert!(stream.starts_with(&raw(&whole)));
            let fields = |events: Vec<Event>| events.into_iter().filter(|e| !e.is_filler())
                .map(|e| (e.event, e.id, e.retry, e.data)).collect::<Vec<_>>();
            prop_assert_eq!(fields(whole), fields(pieces));
        }

        #[test]
        fn what_is_encoded_is_read_back(id in "[a-z0-9]{0,9}", data in "[^\r]{0,80}") {
            let events = decode(&[&encode(Some("message"), Some(&id), &data)]);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(events[0].id.as_deref(), Some(id.as_str()));
            prop_assert_eq!(events[0].data.as_deref(), Some(data.as_str()));
            let edited = events[0].with_data("other");
            let again = decode(&[&edited]);
            prop_assert_eq!(again[0].data.as_deref(), Some("other"));
        }
    }
}
