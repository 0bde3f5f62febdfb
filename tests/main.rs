//! Every integration test, in one binary: one folder a subject.

// Tests assert, and an assertion that fails is a panic; what is printed is the test's own
// log; and a test has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, unreachable_pub)]

mod control_plane;
mod harness;
mod support;
