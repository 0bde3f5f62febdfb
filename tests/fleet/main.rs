//! Many workers: a thousand links against one control plane, and a real Swarm. `make test-fleet` runs this; a plain `cargo test` does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "it prints its figures, and has no public interface"
)]

mod figures;
mod links;
mod member;
mod node;
mod support;
mod swarm;
