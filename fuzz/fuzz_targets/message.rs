//! See `mcpx_fuzz::message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcpx_fuzz::message(data));
