//! The strict decoder: no panic, and what it accepts reads the same to an ordinary parser.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcpx::mcp::{Limits, Message, Origin};

fuzz_target!(|data: &[u8]| {
    for origin in [Origin::Client, Origin::Server] {
        let raw = Bytes::copy_from_slice(data);
        let Ok(message) = Message::decode(raw, origin, &Limits::default()) else { continue };
        let value: serde_json::Value = serde_json::from_slice(data).expect("accepted, so JSON");
        assert_eq!(value.get("method").and_then(|method| method.as_str()), message.method());
        let params = message.params().map(|text| serde_json::from_str(text).expect("JSON"));
        assert_eq!(value.get("params"), params.as_ref());
    }
});
