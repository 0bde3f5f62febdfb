//! One task, from its assignment to its report.
//!
//! Owns what is done for a task and what is said about it. It must not know the WebSocket.

pub mod output;
