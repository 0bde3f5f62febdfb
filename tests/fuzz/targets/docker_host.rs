//! Feeds the fuzzer's bytes to `oz_agent_worker::fuzz::docker_host`, which says what they are and what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| oz_agent_worker::fuzz::docker_host(bytes));
