//! A 2025-03-26 batch: an array of messages, each of which is a message of its own to whoever
//! judges, records and forwards.
//!
//! Only cuts: what stands between two commas is decoded by [`super::Message::decode`], as if it
//! had come alone. Where a batch may come at all, the transports decide. Implements JSON-RPC 2.0,
//! section 6, as MCP 2025-03-26 `basic/index` allows it.

use bytes::Bytes;

use super::json::{Kind, WalkError, Walker};
use super::message::BLANKS;
use super::{DecodeError, Fault, Limits, Message, Origin};

/// The protocol version that has batches; the ones before and after have none.
pub const VERSION: &str = "2025-03-26";
/// The most messages in one batch.
pub const MOST: usize = 64;

/// One element of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its bytes, as they arrived.
    pub raw: Bytes,
    /// Where it begins in the batch.
    start: usize,
    /// Which one it is, from 0.
    index: usize,
}

impl Element {
    /// Decodes it as a message of its own. Its faults say where they are in the whole batch.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(&self, origin: Origin, limits: &Limits) -> Result<Message, DecodeError> {
        Message::decode(self.raw.clone(), origin, limits)
            .map_err(|error| error.in_batch(self.start, self.index))
    }

    /// A fault of the whole element.
    pub fn fault(&self, fault: Fault) -> DecodeError {
        DecodeError::at(0, fault).in_batch(self.start, self.index)
    }
}

/// Whether a text is to be read as a batch: it begins with `[`.
pub fn is_batch(raw: &[u8]) -> bool {
    let blank = |byte: &&u8| BLANKS.contains(&char::from(**byte));
    raw.iter().find(|byte| !blank(byte)) == Some(&b'[')
}

/// The elements of a batch, in order.
///
/// # Errors
/// [`DecodeError`] where the whole is no JSON array of at least one and at most [`MOST`] elements,
/// or over the limits. What the elements say is not looked at.
pub fn split(raw: &Bytes, limits: &Limits) -> Result<Vec<Element>, DecodeError> {
    if raw.len() > limits.bytes {
        let fault = Fault::TooLarge { found: raw.len(), limit: limits.bytes };
        return Err(DecodeError::at(limits.bytes, fault));
    }
    let text = std::str::from_utf8(raw)
        .map_err(|error| DecodeError::at(error.valid_up_to(), Fault::NotUtf8))?;
    // The array around them is one more level.
    let mut walker = Walker::new(text, limits.depth.saturating_add(1));
    let mut elements: Vec<Element> = Vec::new();
    let mut start = 0;
    loop {
        let token = match walker.token() {
            Ok(Some(token)) => token,
            Ok(None) => break,
            Err(WalkError::Malformed { at }) => return Err(DecodeError::at(at, Fault::Malformed)),
            Err(WalkError::TooDeep { at, .. }) => {
                return Err(DecodeError::at(at, Fault::TooDeep { limit: limits.depth }));
            }
        };
        let ends = match token.kind {
            Kind::Object | Kind::Array => {
                if token.depth == 1 {
                    start = token.range.start;
                }
                false
            }
            Kind::EndObject | Kind::EndArray => token.depth == 1,
            Kind::Key => false,
            _ => {
                if token.depth == 1 {
                    start = token.range.start;
                }
                token.depth == 1
            }
        };
        if ends {
            if elements.len() == MOST {
                return Err(DecodeError::at(start, Fault::TooMany { limit: MOST }));
            }
            let (raw, index) = (raw.slice(start..token.range.end), elements.len());
            elements.push(Element { raw, start, index });
        }
    }
    if !is_batch(raw) {
        return Err(DecodeError::at(0, Fault::NotAnObject));
    }
    if elements.is_empty() {
        return Err(DecodeError::at(0, Fault::EmptyBatch));
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<Element>, DecodeError> {
        super::split(&Bytes::from(text.to_owned()), &Limits::default())
    }

    #[test]
    fn elements_come_out_as_they_stand() {
        let text = " [ {\"a\":[1,{\"b\":\"],\"}]} ,7,[[]], \"x\" ] ";
        let elements = split(text).unwrap();
        let raw: Vec<_> = elements.iter().map(|e| std::str::from_utf8(&e.raw).unwrap()).collect();
        assert_eq!(raw, ["{\"a\":[1,{\"b\":\"],\"}]}", "7", "[[]]", "\"x\""]);
        for element in &elements {
            assert!(text.as_bytes()[element.start..].starts_with(&element.raw));
        }
    }

    #[test]
    fn a_fault_says_where_it_is_in_the_whole() {
        let text = r#"[{"jsonrpc":"2.0","id":1,"method":"a"}, {"jsonrpc":"2.0","id":1,"id":2,"method":"b"}]"#;
        let elements = split(text).unwrap();
        let decode = |at: usize| elements[at].decode(Origin::Client, &Limits::default());
        assert!(decode(0).is_ok());
        let error = decode(1).unwrap_err();
        assert_eq!(error.pointer.as_deref(), Some("/1/id"));
        assert!(text[error.at..].starts_with(r#""id":2"#), "{error}");
        let nested = split("[[{}]]").unwrap()[0].decode(Origin::Client, &Limits::default());
        assert_eq!(nested.unwrap_err().fault, Fault::Batch);
    }

    #[test]
    fn what_is_no_batch_is_refused_as_a_whole() {
        let full = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
        assert_eq!(split(&full(MOST)).unwrap().len(), MOST);
        let too_many = split(&full(MOST + 1)).unwrap_err();
        assert_eq!(too_many.fault, Fault::TooMany { limit: MOST });
        assert_eq!(split("[]").unwrap_err().fault, Fault::EmptyBatch);
        for (text, at) in [("[{}", 3), ("[{},]", 4), ("[{}] {}", 5), ("[{}{}]", 3)] {
            assert_eq!(split(text).unwrap_err(), DecodeError::at(at, Fault::Malformed), "{text}");
        }
        let deep = format!("[{}{}]", "[".repeat(101), "]".repeat(101));
        assert_eq!(split(&deep).unwrap_err().fault, Fault::TooDeep { limit: 100 });
        assert_eq!(split("{}").unwrap_err().fault, Fault::NotAnObject);
    }
}
