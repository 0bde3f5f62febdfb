//! A worker for an Oz control plane: takes agent tasks over a WebSocket and runs each in a Docker container.

pub mod cancel;
pub mod cli;
pub mod config;
pub mod docker;
pub mod link;
pub mod logging;
pub mod secret;
pub mod task;
