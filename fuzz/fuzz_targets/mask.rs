//! Masking: no panic; what comes out of a message is a message; masking twice is masking once.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcpx::mask::{Masker, Rules};
use mcpx::mcp::{Limits, Message, Origin};

fuzz_target!(|data: &[u8]| {
    let masker = Masker::new(&Rules::default()).expect("the default rules are good");
    let raw = Bytes::copy_from_slice(data);
    if Message::decode(raw.clone(), Origin::Server, &Limits::default()).is_ok()
        && let Ok(masked) = masker.message(&raw)
    {
        let again = Message::decode(masked.bytes().clone(), Origin::Server, &Limits::default());
        assert!(again.is_ok(), "masking broke a message");
        let twice = masker.message(masked.bytes()).expect("masked once");
        assert_eq!(twice.bytes(), masked.bytes());
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _text = masker.text(text);
    }
});
