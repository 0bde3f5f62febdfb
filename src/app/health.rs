//! `oz-agent-worker health`: asks a running worker whether it goes on, for the health checks of containers.

use std::io;
use std::net::SocketAddr;

use super::monitor::{answer_from, reached_at};
use super::{SettingsFileError, print, report, settings_file};
use crate::cli::{Arguments, ConfigError, served_at};
use crate::exit::Exit;
use crate::logging::message;
use crate::sys::environment::Environment;

/// The worker is not known to go on.
#[derive(Debug, thiserror::Error)]
enum HealthError {
    #[error("no address to ask: set --metrics-listen (or OZ_METRICS_LISTEN), for the worker too")]
    NoAddress,
    #[error(transparent)]
    Setting(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] SettingsFileError),
    #[error(
        "no worker answers at {address}: it may not run, have another --metrics-listen, or find the port in use"
    )]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error("the answer from {address} is not that of a worker: another program has the port")]
    Foreign { address: SocketAddr },
    #[error("the worker does not go on: {}", message(.said))]
    Stuck { said: String },
}

impl HealthError {
    fn exit(&self) -> Exit {
        match self {
            Self::NoAddress | Self::Setting(_) | Self::File(_) => Exit::Usage,
            _ => Exit::Failure,
        }
    }
}

/// Prints whether the worker goes on. Returns the exit code.
pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Exit {
    match ask(arguments, environment) {
        Ok(()) => print("ok\n"),
        Err(error) => report(&error, error.exit()),
    }
}

fn ask(arguments: &Arguments, environment: &Environment) -> Result<(), HealthError> {
    let file = settings_file(arguments, environment)?;
    let merged = file.map_or_else(|| environment.clone(), |file| file.below(environment));
    let (host, port) = served_at(arguments, &merged)?.ok_or(HealthError::NoAddress)?;
    let address = reached_at(SocketAddr::new(host, port));
    let answer = answer_from(address, "/healthz");
    judge(address, &answer.map_err(|source| HealthError::Unreachable { address, source })?)
}

fn judge(address: SocketAddr, answer: &str) -> Result<(), HealthError> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(HealthError::Foreign { address })?;
    match head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..4)) {
        Some("200 ") => Ok(()),
        Some("503 ") => Err(HealthError::Stuck { said: body.trim().to_owned() }),
        _ => Err(HealthError::Foreign { address }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn health(address: &str) -> Result<(), String> {
        let arguments = ["health", "--metrics-listen", address].into_iter().map(Into::into);
        let arguments = Arguments::parse(arguments).unwrap();
        ask(&arguments, &Environment::default()).map_err(|error| error.to_string())
    }

    /// Asks a server that gives this answer.
    fn answered(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            assert!(request.starts_with(b"GET /healthz HTTP/1.1\r\n"));
            // A client that has seen enough may be gone.
            let _ = stream.write_all(answer.as_bytes());
        });
        let result = health(&address).map_err(|error| error.replace(&address, "ADDRESS"));
        server.join().unwrap();
        result
    }

    #[test]
    fn the_status_of_the_page_decides() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\n\r\nok\n"), Ok(()));
        let stuck = answered("HTTP/1.1 503 Service Unavailable\r\n\r\nthe main thread is late\n");
        assert_eq!(stuck.unwrap_err(), "the worker does not go on: \"the main thread is late\"");
    }

    #[test]
    fn another_program_at_the_port_is_no_healthy_worker() {
        let foreign = "the answer from ADDRESS is not that of a worker: another program has the port";
        for answer in ["HTTP/1.1 404 Not Found\r\n\r\n", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\n", ""] {
            assert_eq!(answered(answer).unwrap_err(), foreign, "{answer:?}");
        }
    }

    #[test]
    fn a_worker_that_is_not_there_is_not_healthy() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let error = health(&free).unwrap_err();
        assert!(error.starts_with(&format!("no worker answers at {free}: it may not run")), "{error}");
        let error = ask(&Arguments::parse(["health".into()]).unwrap(), &Environment::default()).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().starts_with("no address to ask: set --metrics-listen"), "{error}");
    }

    #[test]
    fn a_worker_that_does_not_answer_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = health(&address.to_string()).unwrap_err();
        assert!(error.starts_with(&format!("no worker answers at {address}: ")), "{error}");
    }
}
