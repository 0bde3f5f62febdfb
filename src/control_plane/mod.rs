//! The connections to the control plane: the WebSocket link, REST, and the API key and trusted certificates of both.

pub mod key;
pub mod rest;
pub mod tls;
pub mod ws;
