//! Connects to the engine at start, and explains to the operator why none can be used.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::info;

use crate::control_plane::Network;
use crate::docker::{
    ApiVersion, Discovery, Docker, Endpoint, EndpointEnv, EndpointError, EndpointSource, Error, FILE_LIMIT,
    Files, Negotiated, Timeouts, TlsClient, TlsError,
};
use crate::exit::Exit;
use crate::logging::{error_chain, value};
use crate::net::proxy::ProxyError;
use crate::sys::cancel::CancelToken;
use crate::sys::files;

/// The supported architectures, by their Go names.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// Part of the answer of a TLS engine to a client without TLS.
const WANTS_TLS: &str = "HTTP request to an HTTPS server";

/// Why no engine can be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address cannot be used.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// The engine cannot be reached, or does not answer like an engine.
    #[error("{error} (address from {source_name}): {cause}; {hint}")]
    NoEngine {
        /// The failure, with the address.
        error: String,
        /// The setting that chose the address.
        source_name: String,
        /// The cause of the failure.
        cause: String,
        /// A remedy.
        hint: &'static str,
        /// Whether the engine may only be starting.
        may_pass: bool,
        /// The socket that this user may not use.
        denied: Option<PathBuf>,
    },
    /// The engine is too old.
    #[error(
        "the docker engine at {address} supports API {version} at most; upgrade it: API {needed} (engine 20.10) or newer is needed"
    )]
    TooOld {
        /// The engine's address.
        address: String,
        /// The engine's newest API version.
        version: String,
        /// The oldest supported API version.
        needed: String,
    },
    /// The pinned API version cannot be used.
    #[error("DOCKER_API_VERSION is {version}, but {problem}; unset it to let the engine choose")]
    Pinned {
        /// The pinned version.
        version: ApiVersion,
        /// Why it cannot be used.
        problem: String,
    },
    /// The engine runs containers for another platform.
    #[error(
        "the docker engine at {address} runs {platform} containers; tasks need linux/amd64 or linux/arm64"
    )]
    Platform {
        /// The engine's address.
        address: String,
        /// The platform of its containers.
        platform: String,
    },
    /// The engine cannot return the output of tasks.
    #[error("{0}")]
    UnreadableLog(String),
    /// The engine was found, but it does not list what is on it.
    #[error("cannot search the docker engine for the tasks of an earlier process")]
    Search(#[source] Error),
    /// The engine did not answer, for a command that does not wait for it.
    #[error("the docker engine does not answer within {within:?}; check that it works, and DOCKER_HOST")]
    Silent {
        /// The limit.
        within: Duration,
    },
    /// The worker has no file descriptor left.
    #[error("{0}")]
    Exhausted(String),
    /// A signal cancelled the start.
    #[error("cancelled")]
    Cancelled,
}

impl EngineError {
    /// Converts the error of a search for the tasks of an earlier process.
    pub fn from_search(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            Error::Exhausted { .. } => Self::Exhausted(error_chain(&error)),
            error => Self::Search(error),
        }
    }

    /// Returns whether another attempt may succeed although nobody has corrected anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoEngine { may_pass, .. } => *may_pass,
            Self::Search(error) => may_pass(error),
            _ => false,
        }
    }

    /// Returns the exit code of a worker that ends because of it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Cancelled => Exit::Success,
            Self::Exhausted(_) => Exit::Failure,
            _ => Exit::Engine,
        }
    }
}

/// Finds the engine, connects, and checks its platform. Passes warnings to `warn`, one log line each, and logs the engine's
/// properties. Calls `usable`, once or twice, as soon as the engine has shown that it can be used.
///
/// Behind a Unix socket an engine for Linux is usable after its first answer, because it has the worker's processor. Only the
/// socket of another machine, forwarded to this one, can be refused for its processor after that.
pub fn connect(
    environment: &EndpointEnv,
    network: &Network,
    cancel: &CancelToken,
    warn: &mut dyn FnMut(String),
    usable: impl Fn(),
) -> Result<Docker, EngineError> {
    connect_from(environment, network, cancel, warn, usable).map(|(docker, _)| docker)
}

/// As [`connect`]. Also returns the setting that chose the engine.
pub(super) fn connect_from(
    environment: &EndpointEnv,
    network: &Network,
    cancel: &CancelToken,
    warn: &mut dyn FnMut(String),
    usable: impl Fn(),
) -> Result<(Docker, EndpointSource), EngineError> {
    let files = Files { exists: &|path| path.exists(), read: &|path| files::read(path, FILE_LIMIT) };
    let mut discovery = Discovery::discover(environment, files)?;
    discovery.warnings.drain(..).for_each(&mut *warn);
    let trust = &network.trust;
    let proxy_client = || TlsClient::for_proxy(trust.ca_file.as_deref(), trust.client.as_ref(), files);
    let endpoint = discovery.endpoint()?.through(&network.proxies, proxy_client);
    let endpoint = endpoint.map_err(EndpointError::from)?;
    discovery.warnings.drain(..).for_each(warn);
    let explain = |error: Error| explain(&error, &endpoint, &discovery);
    let negotiated = Negotiated::new(cancel, endpoint.clone(), discovery.api_version, Timeouts::default())
        .map_err(explain)?;
    if matches!(endpoint, Endpoint::Unix(_)) && negotiated.runs_linux() {
        usable();
    }
    let docker = negotiated.connect(cancel).map_err(explain)?;
    let engine = docker.engine();
    let platform = format!("{}/{}", engine.os, engine.arch);
    if engine.os != "linux" || !ARCHITECTURES.contains(&engine.arch.as_str()) {
        return Err(EngineError::Platform { address: docker.address(), platform });
    }
    usable();
    info!(
        "engine found address={} source={} version={} api={} platform={platform}",
        value(&docker.address()),
        value(&discovery.source.to_string()),
        value(&engine.version),
        engine.api_version
    );
    Ok((docker, discovery.source))
}

/// Converts a failed connect into an error with its cause and a remedy.
fn explain(error: &Error, endpoint: &Endpoint, discovery: &Discovery) -> EngineError {
    match (error, discovery.api_version) {
        (Error::Cancelled, _) => return EngineError::Cancelled,
        (Error::Exhausted { .. }, _) => return EngineError::Exhausted(error_chain(error)),
        (Error::TooOld { needed, .. }, Some(version)) => {
            return EngineError::Pinned { version, problem: format!("{needed} or newer is needed") };
        }
        (Error::TooOld { version, needed }, None) => {
            return EngineError::TooOld {
                address: endpoint.to_string(),
                version: version.clone(),
                needed: needed.clone(),
            };
        }
        (Error::Engine { status: 400, message }, Some(version)) if !message.contains(WANTS_TLS) => {
            let problem = format!("the docker engine at {endpoint} refused it: {message}");
            return EngineError::Pinned { version, problem };
        }
        _ => {}
    }
    let cause = match (std::error::Error::source(error), error) {
        (Some(source), _) => source.to_string(),
        (None, Error::Forbidden { .. }) => "a proxy refused the call".to_owned(),
        (None, _) => "it did not answer like a docker engine".to_owned(),
    };
    let error_text = match error {
        Error::Unreachable { .. } => error.to_string(),
        error => format!("the docker engine at {endpoint} cannot be used: {error}"),
    };
    EngineError::NoEngine {
        error: error_text,
        source_name: discovery.source.to_string(),
        cause,
        hint: hint(error, endpoint),
        may_pass: may_pass(error),
        denied: denied(error, endpoint),
    }
}

/// Returns the socket, if the error is that this user may not use it.
fn denied(error: &Error, endpoint: &Endpoint) -> Option<PathBuf> {
    match (error, endpoint) {
        (Error::Unreachable { source, .. }, Endpoint::Unix(path))
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Some(path.clone())
        }
        _ => None,
    }
}

/// Returns whether an engine that is starting or restarting can be the reason for an error.
fn may_pass(error: &Error) -> bool {
    match error {
        _ if error.tls().is_some_and(|error| *error != TlsError::Truncated) => false,
        Error::Unreachable { source, .. } => {
            !matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
        }
        Error::Timeout { .. } | Error::Io { .. } | Error::Engine { status: 500.., .. } => true,
        _ => false,
    }
}

fn is_podman(socket: &Path) -> bool {
    socket.to_string_lossy().contains("podman")
}

/// Returns the remedy for a failed connect.
fn hint(error: &Error, endpoint: &Endpoint) -> &'static str {
    if let Some(error) = error.tls() {
        return error.hint();
    }
    if matches!(error, Error::Unreachable { source, .. } if ProxyError::within(source)) {
        return "check the proxy, or name the engine's host in NO_PROXY to connect without it";
    }
    if matches!(error, Error::Forbidden { .. }) {
        return "allow all calls of that list in the proxy, or set DOCKER_HOST to the engine itself";
    }
    let kind = match error {
        Error::Unreachable { source, .. } => Some(source.kind()),
        _ => None,
    };
    match (kind, endpoint.target()) {
        (Some(io::ErrorKind::NotFound), Endpoint::Unix(_)) => {
            "install and start an engine (Docker, or Podman with `systemctl enable --now podman.socket`), or set DOCKER_HOST to the \
             address of a running one (unix:///path or tcp://host:port)"
        }
        (Some(io::ErrorKind::PermissionDenied), Endpoint::Unix(path)) if is_podman(path) => {
            "give the worker's user access to Podman's socket and its folder, see oz-agent-worker(1) under ENGINE, or set \
             DOCKER_HOST to an engine of this user (`systemctl --user enable --now podman.socket`)"
        }
        (Some(io::ErrorKind::ConnectionRefused), Endpoint::Unix(path)) if is_podman(path) => {
            "the socket exists but nothing listens on it: start Podman's service (`systemctl start podman.socket`), or set \
             DOCKER_HOST to another engine"
        }
        (Some(io::ErrorKind::PermissionDenied), Endpoint::Unix(_)) => {
            "add the worker's user to the group `docker` and log in again, or set DOCKER_HOST to an engine of this user"
        }
        (Some(io::ErrorKind::ConnectionRefused), Endpoint::Unix(_)) => {
            "the socket exists but no engine listens on it: start the engine (such as with `systemctl start docker`), remove the \
             stale file, or set DOCKER_HOST to another engine"
        }
        (Some(io::ErrorKind::ConnectionRefused), _) => {
            "nothing listens on that port: check the host and the port, and that the engine listens there (its option --host or \
             `hosts` in daemon.json); see DOCKER_HOST and the docker context"
        }
        (Some(io::ErrorKind::TimedOut), _) => {
            "check the host, the network and its firewalls, and that the engine is running; see DOCKER_HOST and the docker context"
        }
        (Some(_), Endpoint::Tcp { .. } | Endpoint::Tls { .. }) => {
            "check the host's name and the network; see DOCKER_HOST and the docker context"
        }
        (None, Endpoint::Tcp { .. }) if error.to_string().contains(WANTS_TLS) => {
            "the engine requires TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem"
        }
        (None, Endpoint::Tcp { .. }) => {
            "check that DOCKER_HOST is the address of a docker engine without TLS; for one with TLS set DOCKER_TLS_VERIFY and \
             DOCKER_CERT_PATH"
        }
        (None, _) => "check that DOCKER_HOST is the address of a docker engine, and that the engine works",
        _ => "check that the engine is running, and DOCKER_HOST",
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
