//! Every integration test, in one binary: one folder a subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed, and a panic with its place is how that is said"
)]

mod docker;
mod link;
mod support;
