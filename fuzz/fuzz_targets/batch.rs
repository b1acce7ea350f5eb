//! See `mcpx_fuzz::batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcpx_fuzz::batch(data));
