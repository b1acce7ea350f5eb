//! See `mcpx_fuzz::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcpx_fuzz::header(data));
