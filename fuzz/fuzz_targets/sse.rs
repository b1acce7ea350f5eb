//! Event streams: however they are cut into chunks, the same blocks come out, and no byte is lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpx::mcp::sse::{Decoder, Event};

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

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, data) = input;
    let (left, right) = data.split_at(cut % (data.len() + 1));
    let whole = decode(&[data]);
    assert_eq!(whole, decode(&[left, right]));
    let _no_panic = whole.map(|(events, _)| {
        for event in events {
            let _encoded = event.with_data("x\ny");
        }
    });
});
