//! The engine at start: found, asked who it is, and checked to be one that tasks can run on.
//!
//! Owns what an operator is told when there is none. It must not know tasks or the control plane.

use std::io;

use log::info;

use crate::cancel::CancelToken;
use crate::docker::{Docker, Endpoint, EndpointEnv, EndpointError, Error};
use crate::logging::value;

/// Architectures that agents are made for, in Go's names.
const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// There is no engine that tasks can run on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address cannot be used.
    #[error(transparent)]
    Address(#[from] EndpointError),
    /// It does not answer, or not as an engine does.
    #[error("{error}: {cause}; {hint}")]
    NoEngine {
        /// What was tried.
        error: String,
        /// Why it failed.
        cause: String,
        /// What to do.
        hint: &'static str,
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
    let endpoint = Endpoint::resolve(environment, &|path| path.exists())?;
    let docker = Docker::connect(cancel, endpoint, None).map_err(|error| no_engine(&error))?;
    let engine = docker.engine();
    let platform = format!("{}/{}", engine.os, engine.arch);
    if engine.os != "linux" || !ARCHITECTURES.contains(&engine.arch.as_str()) {
        return Err(EngineError::Platform { address: docker.address(), platform });
    }
    let (address, version, api) = (docker.address(), engine.version.clone(), engine.api_version);
    info!(
        "engine found address={} version={} api={api} platform={platform}",
        value(&address),
        value(&version)
    );
    Ok(docker)
}

fn no_engine(error: &Error) -> EngineError {
    let source = std::error::Error::source(error);
    let kind = source.and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    let hint = match kind {
        _ if error.is_cancelled() => return EngineError::Cancelled,
        Some(io::ErrorKind::NotFound) => {
            "install and start an engine, or set DOCKER_HOST to where one listens (unix:///path or tcp://host:port)"
        }
        Some(io::ErrorKind::PermissionDenied) => {
            "add the worker's user to the group `docker` and log in again, or set DOCKER_HOST to an engine of its own"
        }
        _ => "check that the engine is running, and DOCKER_HOST",
    };
    let cause = source.map_or_else(|| "it did not answer as an engine does".to_owned(), ToString::to_string);
    EngineError::NoEngine { error: error.to_string(), cause, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: io::ErrorKind) -> String {
        let source = io::Error::from(kind);
        no_engine(&Error::Unreachable { address: "unix:///s".into(), source }).to_string()
    }

    #[test]
    fn every_failure_names_the_address_and_what_to_do() {
        let cases = [
            (io::ErrorKind::NotFound, "install and start an engine"),
            (io::ErrorKind::PermissionDenied, "group `docker`"),
            (io::ErrorKind::ConnectionRefused, "check that the engine is running"),
        ];
        for (kind, hint) in cases {
            let text = message(kind);
            assert!(
                text.contains("unix:///s") && text.contains(hint) && text.contains("DOCKER_HOST"),
                "{text}"
            );
        }
        assert!(matches!(no_engine(&Error::Cancelled), EngineError::Cancelled));
    }
}
