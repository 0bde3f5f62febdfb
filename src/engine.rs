//! The engine at start: found, asked who it is, and checked to be one that tasks can run on.
//!
//! Owns what an operator is told when there is none. It must not know tasks or the control plane.

use std::io;

use log::info;

use crate::cancel::CancelToken;
use crate::docker::{Docker, Endpoint, EndpointEnv, EndpointError, Error};
use crate::error_chain;
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
    #[error("no usable docker engine at {address}: {cause}; {hint}")]
    NoEngine {
        /// What was tried, as it would be written in `DOCKER_HOST`.
        address: String,
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
    let address = endpoint.to_string();
    let docker = Docker::connect(cancel, endpoint, None).map_err(|error| no_engine(address, &error))?;
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

fn no_engine(address: String, error: &Error) -> EngineError {
    let (cause, hint) = match error {
        Error::Cancelled => return EngineError::Cancelled,
        Error::Unreachable { source, .. } => (source.to_string(), hint(source.kind())),
        Error::TooOld { .. } => (error.to_string(), "update the engine, or set DOCKER_HOST to a newer one"),
        // Somebody answers, but not as an engine does.
        _ => (error_chain(error), "check that DOCKER_HOST names a docker engine, and that it is well"),
    };
    EngineError::NoEngine { address, cause, hint }
}

/// What to do when nobody can be reached.
fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => {
            "install and start an engine, or set DOCKER_HOST to where one listens (unix:///path or tcp://host:port)"
        }
        io::ErrorKind::PermissionDenied => {
            "add the worker's user to the group `docker` and log in again, or set DOCKER_HOST to an engine of its own"
        }
        _ => "check that the engine is running, and DOCKER_HOST",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: io::ErrorKind) -> String {
        let source = io::Error::from(kind);
        no_engine("unix:///s".into(), &Error::Unreachable { address: "x".into(), source }).to_string()
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
        assert!(matches!(no_engine(String::new(), &Error::Cancelled), EngineError::Cancelled));
    }

    #[test]
    fn one_that_answers_in_another_way_is_named_too() {
        let odd = Error::Protocol { what: "not HTTP".into() };
        let text = no_engine("tcp://h:1".into(), &odd).to_string();
        assert!(
            text.contains("tcp://h:1") && text.contains("not HTTP") && text.contains("DOCKER_HOST"),
            "{text}"
        );
        let old = Error::TooOld { version: "1.30".into(), needed: "1.41".into() };
        let text = no_engine("tcp://h:1".into(), &old).to_string();
        assert!(text.contains("tcp://h:1") && text.contains("1.30") && text.contains("update"), "{text}");
    }
}
