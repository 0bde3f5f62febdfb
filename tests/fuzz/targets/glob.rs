//! Fuzz target: checks an input with `oz_agent_worker::fuzz::glob`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oz_agent_worker::fuzz::glob(bytes));
