//! Proxies and trusted certificates, for the link, REST and the engine.

mod engine;
mod failures;
mod ipv6;
mod real;
mod trust;
mod tunnel;

use oz_agent_worker::control_plane::rest::ControlPlane as Rest;
use oz_agent_worker::control_plane::tls::Trust;
use oz_agent_worker::control_plane::ws::LinkConfig;
use oz_agent_worker::control_plane::{Network, Proxies};
use oz_agent_worker::sys::environment::Environment;

use crate::link::{api_key, config, fast_retry};
use crate::support::control_plane::ControlPlane;

/// A name that no resolver knows, so that only a proxy can connect to it.
const HOST: &str = "control-plane.invalid";

/// Returns a network with these variables and trusted files.
fn network(variables: &[(&str, &str)], trust: Trust) -> Network {
    let (proxies, warnings) = Proxies::new(&Environment::from_iter(variables.iter().copied()));
    assert_eq!(warnings, Vec::<String>::new());
    Network { proxies, trust }
}

/// Returns the configuration of a link to [`HOST`] that gives up after the first failure.
fn link(plane: &ControlPlane, scheme: &str, port: u16, network: Network) -> LinkConfig {
    let url = format!("{scheme}://{HOST}:{port}/api/v1/selfhosted/worker/ws?worker_id=w");
    LinkConfig { api_key: api_key(plane.key()), max_attempts: 1, network, ..config(&url, fast_retry()) }
}

/// Returns a client of the API at [`HOST`].
fn rest(plane: &ControlPlane, scheme: &str, port: u16, network: Network) -> Rest {
    let root = format!("{scheme}://{HOST}:{port}");
    Rest::new(&root, &api_key(plane.key())).unwrap().with_network(network)
}
