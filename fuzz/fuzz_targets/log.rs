//! What an auditor reads from somebody else's disk: leaves, tile paths, notes, whole tiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpx::audit::{Leaf, LogKey, Tile, verify_log};

fuzz_target!(|data: &[u8]| {
    let _leaf = Leaf::decode(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(tile) = text.parse::<Tile>()
    {
        assert_eq!(tile.path(), text);
    }
    let key = LogKey::generate("fuzz").expect("randomness");
    let _signed = key.vkey().verify(data);
    let fetched =
        verify_log(key.vkey(), None, |_| Ok::<_, std::convert::Infallible>(Some(data.to_vec())));
    assert!(fetched.is_err(), "nothing here is signed by this key");
});
