//! Every integration test, in one binary: one folder a subject.

// Tests assert, and an assertion that fails is a panic; the rest is about a public interface that a test has not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod control_plane;
mod support;
