//! The Docker client against a scripted engine (stalls, cut connections, malformed answers) and against a real one.

mod calls;
mod cancel;
mod clocks;
mod engine;
mod exhausted;
mod real;
mod stalls;
mod uploads;

use std::io;

use oz_agent_worker::docker::{Discovery, Endpoint, EndpointEnv, Files};

/// Returns the endpoint for `DOCKER_HOST=host` and no other setting.
fn endpoint_at(host: &str) -> Endpoint {
    let env = EndpointEnv { docker_host: Some(host.to_owned()), ..EndpointEnv::default() };
    let files = Files { exists: &|_| false, read: &|_| Err(io::ErrorKind::NotFound.into()) };
    Discovery::discover(&env, files).unwrap().endpoint().unwrap()
}
