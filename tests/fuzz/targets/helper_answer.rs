//! Fuzz target: checks an input with `oz_agent_worker::fuzz::helper_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oz_agent_worker::fuzz::helper_answer(bytes));
