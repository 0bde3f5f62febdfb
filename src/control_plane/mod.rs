//! The connections to the control plane: the WebSocket link, REST, and the API key and trusted certificates of both.

pub mod key;
pub mod rest;
pub mod tls;
pub mod ws;

pub use crate::net::proxy::Proxies;

/// How the control plane is reached. The default: without a proxy, with the system's certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The proxies of the environment.
    pub proxies: Proxies,
    /// The certificates of the operator.
    pub trust: tls::Trust,
}
