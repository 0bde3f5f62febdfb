//! The engine at start: found, asked who it is, and checked to be one that tasks can run on.
//!
//! Owns what an operator is told when there is none. It must not know tasks or the control plane.

use std::io;

use log::{info, warn};

use crate::docker::{
    ApiVersion, Discovery, Docker, Endpoint, EndpointEnv, EndpointError, EndpointSource, Error, FILE_LIMIT,
    Files,
};
use crate::logging::value;
use crate::sys::cancel::CancelToken;
use crate::sys::files;

/// Architectures that agents are made for, in Go's names.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];
/// What an engine says in plain text to a client that forgot TLS.
const WANTS_TLS: &str = "HTTP request to an HTTPS server";

/// There is no engine that tasks can run on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address cannot be used.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// It does not answer, or not as an engine does.
    #[error("{error} (address from {source_name}): {cause}; {hint}")]
    NoEngine {
        /// What was tried.
        error: String,
        /// What named the address.
        source_name: String,
        /// Why it failed.
        cause: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is of another time.
    #[error(
        "the docker engine at {address} speaks API {version} at most; upgrade it to one that speaks {needed} (engine 20.10) or \
         newer"
    )]
    TooOld {
        /// Where it is.
        address: String,
        /// Its newest version.
        version: String,
        /// What is needed.
        needed: String,
    },
    /// The pinned version is not one that can be used.
    #[error("DOCKER_API_VERSION is {version}, but {problem}; unset it to let the engine choose")]
    Pinned {
        /// The version.
        version: ApiVersion,
        /// Why not.
        problem: String,
    },
    /// It runs other containers than agents need.
    #[error(
        "the docker engine at {address} runs {platform} containers; tasks need linux/amd64 or linux/arm64"
    )]
    Platform {
        /// Where it is.
        address: String,
        /// What it runs.
        platform: String,
    },
    /// The start was cancelled by a signal.
    #[error("cancelled")]
    Cancelled,
}

/// Finds the engine and asks it who it is.
///
/// # Errors
/// With what was tried and what to do.
pub fn connect(environment: &EndpointEnv, cancel: &CancelToken) -> Result<Docker, EngineError> {
    let files = Files { exists: &|path| path.exists(), read: &|path| files::read(path, FILE_LIMIT) };
    let mut found = Discovery::discover(environment, files)?;
    warn_all(&mut found);
    let endpoint = found.endpoint()?;
    warn_all(&mut found);
    let docker = Docker::connect(cancel, endpoint.clone(), found.api_version)
        .map_err(|error| no_engine(&error, &endpoint, &found))?;
    let engine = docker.engine();
    let platform = format!("{}/{}", engine.os, engine.arch);
    if engine.os != "linux" || !ARCHITECTURES.contains(&engine.arch.as_str()) {
        return Err(EngineError::Platform { address: docker.address(), platform });
    }
    announce(&docker, &found.source, &platform);
    Ok(docker)
}

fn announce(docker: &Docker, source: &EndpointSource, platform: &str) {
    let (address, source, engine) = (docker.address(), source.to_string(), docker.engine());
    info!(
        "engine found address={} source={} version={} api={} platform={platform}",
        value(&address),
        value(&source),
        value(&engine.version),
        engine.api_version
    );
}

fn warn_all(found: &mut Discovery) {
    for warning in found.warnings.drain(..) {
        warn!("{warning}");
    }
}

fn no_engine(error: &Error, endpoint: &Endpoint, found: &Discovery) -> EngineError {
    match (error, found.api_version) {
        (Error::Cancelled, _) => return EngineError::Cancelled,
        (Error::TooOld { needed, .. }, Some(version)) => {
            return EngineError::Pinned { version, problem: format!("{needed} or newer is needed") };
        }
        (Error::TooOld { version, needed }, None) => {
            let (version, needed) = (version.clone(), needed.clone());
            return EngineError::TooOld { address: endpoint.to_string(), version, needed };
        }
        (Error::Engine { status: 400, message }, Some(version)) if !message.contains(WANTS_TLS) => {
            let problem = format!("the docker engine at {endpoint} says: {message}");
            return EngineError::Pinned { version, problem };
        }
        _ => {}
    }
    let source = std::error::Error::source(error);
    let cause = source.map_or_else(|| "it did not answer as an engine does".to_owned(), ToString::to_string);
    let error_text = match error {
        Error::Unreachable { .. } => error.to_string(),
        error => format!("the docker engine at {endpoint} is not usable: {error}"),
    };
    let source_name = found.source.to_string();
    EngineError::NoEngine { error: error_text, source_name, cause, hint: hint(error, endpoint) }
}

/// What an operator can do about it.
fn hint(error: &Error, endpoint: &Endpoint) -> &'static str {
    if let Some(problem) = error.tls() {
        return problem.hint();
    }
    let kind = match error {
        Error::Unreachable { source, .. } => Some(source.kind()),
        _ => None,
    };
    match (kind, endpoint) {
        (Some(io::ErrorKind::NotFound), Endpoint::Unix(_)) => {
            "install and start an engine, or set DOCKER_HOST to where one listens (unix:///path or tcp://host:port)"
        }
        (Some(io::ErrorKind::PermissionDenied), Endpoint::Unix(_)) => {
            "add the worker's user to the group `docker` and log in again, or set DOCKER_HOST to an engine of its own"
        }
        (Some(io::ErrorKind::ConnectionRefused), Endpoint::Unix(_)) => {
            "the socket's file is there but no engine listens on it: start the engine (as `systemctl start docker`), or remove the \
             stale file, or set DOCKER_HOST to another one"
        }
        (Some(io::ErrorKind::ConnectionRefused), _) => {
            "nothing listens on that port: check the host and the port, and that the engine was told to listen there (its --host \
             or `hosts` in daemon.json); see DOCKER_HOST and the docker context"
        }
        (Some(io::ErrorKind::TimedOut), _) => {
            "check the host, the network and its firewalls, and that the engine is running; see DOCKER_HOST and the docker context"
        }
        (Some(_), Endpoint::Tcp { .. } | Endpoint::Tls { .. }) => {
            "check the host's name and the network; see DOCKER_HOST and the docker context"
        }
        (None, Endpoint::Tcp { .. }) if error.to_string().contains(WANTS_TLS) => {
            "it wants TLS: set DOCKER_TLS_VERIFY=1, and DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem"
        }
        (None, Endpoint::Tcp { .. }) => {
            "check that DOCKER_HOST names a docker engine, one without TLS there (with TLS set DOCKER_TLS_VERIFY and \
             DOCKER_CERT_PATH)"
        }
        (None, _) => "check that DOCKER_HOST names a docker engine, and that it is well",
        _ => "check that the engine is running, and DOCKER_HOST",
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
