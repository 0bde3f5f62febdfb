//! The connections to the control plane: the WebSocket link, REST, and the trusted certificates of both.

pub mod rest;
pub mod tls;
pub mod ws;
