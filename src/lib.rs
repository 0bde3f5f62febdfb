//! A worker for an Oz control plane: takes agent tasks over a WebSocket and runs each in a Docker container.
//!
//! A frame comes in on one socket thread, one pure function decides, a bounded pool of threads does the slow Docker
//! work, and a result goes out on the same socket and is only forgotten once the other side has it.
//!
//! ```text
//! socket -> link (frame) -> protocol (message) -> coordinator (decision) -> pool (job) -> task -> docker
//!                                                       ^                                          |
//! socket <- link (frame) <- outbox <--------------------+---------------- report <----------------+
//! ```
//!
//! Seven kinds of threads, and who may block in what:
//!
//! | thread | may block in | never |
//! |---|---|---|
//! | `oz-link` | `poll`, and dialling with deadlines | decides anything |
//! | main | one `select!` | does I/O |
//! | `oz-log` | writing a line | is waited for |
//! | `oz-notify` | telling the service manager, when there is one | is waited for |
//! | `oz-poller` | REST calls to the control plane, with deadlines | decides anything, touches the WebSocket |
//! | `oz-sweep` | calls to the engine, once, for what an earlier process has left late | is waited for, touches what this process has made |
//! | `oz-task-N` | calls to the engine, waiting for a decision | touches the WebSocket or shared state of others |
//!
//! Invariants, some of which `tests/house` checks:
//! - The rooms that decide or decode (`protocol`, `coordinator`, `task::plan`, `task::output`, `docker::http`) are
//!   pure: no I/O, no clock, no thread.
//! - `tungstenite` is known to `link::dial` and `link::socket` only, `ureq` to `control_plane` only; threads start only
//!   in `pool`, `link` and `logging::queue`; the environment is read only in `main`.
//! - A run is claimed when a slot is free, started once the claim is confirmed, and its container removed once its
//!   report is confirmed.
//! - Everything is bounded: output, bodies, headers, frames, queues, retries, waits.
//! - Whatever can be a secret is a [`secret::Secret`] until it is on the wire.

pub mod app;
pub mod cli;
pub mod control_plane;
pub mod coordinator;
pub mod docker;
pub mod exit;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod job;
pub mod logging;
mod net;
pub mod policy;
pub mod protocol;
pub mod secret;
pub mod sys;
pub mod task;
