//! Engines over TCP and TLS, engine discovery, and the worker's objects on an engine.

mod adopt;
mod disk;
mod failures;
mod private;
mod stream;
mod whole;

use std::io;
use std::path::Path;

use oz_agent_worker::docker::{
    Discovery, Docker, Endpoint, EndpointEnv, EndpointError, Error, Files, Timeouts,
};
use oz_agent_worker::sys::cancel::CancelToken;

use crate::support::fake_docker::client_with;
use crate::support::pki::Pki;
use crate::support::tls_proxy::{ServerTls, TlsProxy};

/// Returns the variables for an engine with mutual TLS.
fn variables(port: u16, certificates: &Path) -> EndpointEnv {
    EndpointEnv {
        docker_host: Some(format!("tcp://localhost:{port}")),
        docker_tls_verify: Some("1".to_owned()),
        docker_cert_path: Some(certificates.display().to_string()),
        ..EndpointEnv::default()
    }
}

/// Returns the endpoint for these variables, with the files but not the sockets of this machine.
fn endpoint(env: &EndpointEnv) -> Result<Endpoint, EndpointError> {
    let exists = |path: &Path| path.extension().is_none_or(|name| name != "sock") && path.exists();
    let read = |path: &Path| -> io::Result<Vec<u8>> { std::fs::read(path) };
    Discovery::discover(env, Files { exists: &exists, read: &read })?.endpoint()
}

fn connect(env: &EndpointEnv) -> Result<Docker, Error> {
    client_with(&CancelToken::new(), endpoint(env).unwrap(), None, Timeouts::default())
}

/// Opens a proxy to `host` with mutual TLS, for `localhost`.
fn guarded(pki: &Pki, host: &str) -> TlsProxy {
    let server = pki.server("server", "DNS:localhost,IP:127.0.0.1", 2);
    TlsProxy::start(host, ServerTls::new(&server, Some(&pki.ca())))
}
