//! Every integration test, in one binary: one folder a subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a panic shows where a test has failed"
)]
#![allow(clippy::print_stderr, unreachable_pub, reason = "tests have no log and no public interface")]

mod docker;
mod docs;
mod faults;
mod harness;
mod link;
mod proxy;
mod rest;
mod support;
mod tidy;
mod worker;
