//! A worker for an Oz control plane: takes agent tasks over a WebSocket and runs each in a Docker container.

pub mod cancel;
pub mod cli;
pub mod config;
pub mod coordinator;
pub mod docker;
pub mod exit;
pub mod link;
pub mod logging;
pub mod pool;
pub mod protocol;
pub mod secret;
pub mod task;
