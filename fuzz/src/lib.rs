//! What must hold for any bytes at all. The fuzz targets call these with what libFuzzer makes up;
//! `tests/fuzz.rs` calls the same with what proptest does, in every run of the tests.

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use mcpx::mcp::sse::{Decoder, Event};
use mcpx::mcp::{Limits, Message, Origin, batch, headers};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The strict decoder: what it accepts keeps its bytes, reads the same to an ordinary parser, and
/// holds no key twice; what it refuses, it refuses at a place.
pub fn message(data: &[u8]) {
    for origin in [Origin::Client, Origin::Server] {
        let message =
            match Message::decode(Bytes::copy_from_slice(data), origin, &Limits::default()) {
                Ok(message) => message,
                Err(error) => {
                    assert!(error.at <= data.len(), "{error} of {}", data.len());
                    continue;
                }
            };
        assert_eq!(message.raw(), data);
        let text = std::str::from_utf8(data).expect("accepted, so text");
        let whole: &RawValue = serde_json::from_str(text).expect("accepted, so JSON");
        assert_eq!(whole.get(), text.trim_matches([' ', '\t', '\r', '\n']));
        let Ok(Once) = serde_json::from_str(text) else {
            // Numbers beyond doubles may stand in a server's answer.
            assert_eq!(origin, Origin::Server, "a key twice, or no JSON: {text}");
            continue;
        };
        let value: Value = serde_json::from_str(text).expect("read before");
        assert_eq!(value.get("method").and_then(Value::as_str), message.method());
        for (key, part) in
            [("params", message.params()), ("result", message.result()), ("error", message.error())]
        {
            let part = part.map(|text| serde_json::from_str(text).expect("a part is JSON"));
            assert_eq!(value.get(key), part.as_ref(), "{key}");
        }
    }
}

/// JSON in which no object has a key twice, by a reading of its own.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Once;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON without a key twice")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Once, E> {
                Ok(Once)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Once, E> {
                Ok(Once)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Once, E> {
                Ok(Once)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Once, E> {
                Ok(Once)
            }
            fn visit_str<E>(self, _: &str) -> Result<Once, E> {
                Ok(Once)
            }
            fn visit_unit<E>(self) -> Result<Once, E> {
                Ok(Once)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Once, A::Error> {
                while seq.next_element::<Once>()?.is_some() {}
                Ok(Once)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut seen = HashSet::new();
                while let Some((key, Once)) = map.next_entry::<String, Once>()? {
                    assert!(seen.insert(key.clone()), "a key twice was accepted: {key:?}");
                }
                Ok(Once)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A batch falls into the same elements for an ordinary parser, byte for byte.
pub fn batch(data: &[u8]) {
    let raw = Bytes::copy_from_slice(data);
    match batch::split(&raw, &Limits::default()) {
        Err(error) => assert!(error.at <= data.len(), "{error} of {}", data.len()),
        Ok(elements) => {
            assert!(batch::is_batch(data) && (1..=batch::MOST).contains(&elements.len()));
            let parsed: Vec<&RawValue> = serde_json::from_slice(data).expect("accepted, so JSON");
            let texts: Vec<_> = parsed.iter().map(|element| element.get().as_bytes()).collect();
            assert_eq!(elements.iter().map(|element| &element.raw[..]).collect::<Vec<_>>(), texts);
            for element in elements {
                message(&element.raw);
                if let Err(error) = element.decode(Origin::Client, &Limits::default()) {
                    assert!(error.at <= data.len(), "{error} of {}", data.len());
                }
            }
        }
    }
}

/// A header's value: what is written is read back, and what is read can be written.
pub fn header(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let written = headers::encode_value(&text);
    assert!(written.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{written:?}");
    assert_eq!(headers::decode_value(&written).as_deref(), Ok(&*text));
    if let Ok(said) = headers::decode_value(&text) {
        let again = headers::encode_value(&said);
        assert_eq!(headers::decode_value(&again).as_deref(), Ok(&*said));
    }
}

fn decode(chunks: &[&[u8]]) -> Option<(Vec<Event>, Vec<u8>)> {
    let mut decoder = Decoder::new(1 << 20);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(chunk).ok()?;
        while let Some(event) = decoder.next() {
            events.push(event);
        }
    }
    Some((events, decoder.unfinished().to_vec()))
}

/// However an event stream is cut in two, the same events come out, and an edit adds none.
pub fn events(cut: usize, data: &[u8]) {
    let (left, right) = data.split_at(cut % (data.len() + 1));
    let told = |(events, rest): (Vec<Event>, Vec<u8>)| {
        let events = events.into_iter().filter(|event| !event.is_filler());
        let fields = events.map(|e| (e.event, e.id, e.retry, e.data, e.exact));
        (fields.collect::<Vec<_>>(), rest)
    };
    let whole = decode(&[data]);
    assert_eq!(whole.clone().map(told), decode(&[left, right]).map(told));
    for event in whole.into_iter().flat_map(|(events, _)| events) {
        let edited = event.with_data("x\ny");
        if !event.is_filler() {
            let again = decode(&[&edited]).map_or(0, |(events, _)| events.len());
            assert!(again <= 2, "an edit made events: {edited:?}");
        }
    }
}
