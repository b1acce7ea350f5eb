//! See `mcpx_fuzz::events`; the first byte says where to cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((cut, data)) = data.split_first() {
        mcpx_fuzz::events(usize::from(*cut), data);
    }
});
