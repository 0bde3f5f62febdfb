//! Every integration test, in one binary: one folder a subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed, and a panic with its place is how that is said"
)]
#![allow(clippy::print_stderr, unreachable_pub, reason = "it has no log and no public interface of its own")]

mod docker;
mod docs;
mod faults;
mod harness;
mod link;
mod rest;
mod support;
mod tidy;
mod worker;
