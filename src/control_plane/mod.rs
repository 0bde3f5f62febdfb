//! The control plane: the WebSocket link, the REST calls, and the TLS trust that both share.

pub mod rest;
pub mod tls;
pub mod ws;
