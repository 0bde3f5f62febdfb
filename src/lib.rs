//! A worker for an Oz control plane: takes agent tasks over a WebSocket and runs each in a Docker container.
//!
//! A frame comes in on one socket thread, one pure function decides, a bounded pool of threads does the slow Docker
//! work, and a result goes out on the same socket and is only forgotten once the other side has it.
//!
//! ```text
//! socket -> link (frame) -> protocol (message) -> coordinator (decision) -> pool (job) -> task -> docker
//!                                                       ^                                          |
//! socket <- link (frame) <- outbox <--------------------+---------------- report <----------------+
//! ```
//!
//! Seven kinds of threads, and who may block in what:
//!
//! | thread | may block in | never |
//! |---|---|---|
//! | `oz-link` | `poll`, and dialling with deadlines | decides anything |
//! | main | one `select!` | does I/O |
//! | `oz-log` | writing a line | is waited for |
//! | `oz-notify` | telling the service manager, when there is one | is waited for |
//! | `oz-lookup` | REST calls to the control plane, with deadlines | decides anything, touches the WebSocket |
//! | `oz-look` | calls to the engine, once, for what an earlier process has left late | is waited for, touches what this process has made |
//! | `oz-task-N` | calls to the engine, waiting for a decision | touches the WebSocket or shared state of others |
//!
//! Invariants, some of which `tests/house` checks:
//! - The rooms that decide or decode (`protocol`, `coordinator`, `task::plan`, `task::output`, `docker::http`) are
//!   pure: no I/O, no clock, no thread.
//! - `tungstenite` is known to `link::dial` and `link::socket` only, `ureq` to `control_plane` only; threads start only
//!   in `pool`, `link` and `logging::queue`; the environment is read only in `main`.
//! - A run is claimed when a slot is free, started once the claim is confirmed, and its container removed once its
//!   report is confirmed.
//! - Everything is bounded: output, bodies, headers, frames, queues, retries, waits.
//! - Whatever can be a secret is a [`secret::Secret`] until it is on the wire.

pub mod cancel;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod coordinator;
pub mod disk;
pub mod docker;
pub mod engine;
pub mod exit;
pub mod files;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod link;
pub mod logging;
pub mod notify;
pub mod pages;
pub mod pool;
pub mod protocol;
pub mod runtime;
pub mod secret;
pub mod task;
pub mod trust;

use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use log::{error, info, warn};

use crate::cancel::{CancelReason, CancelToken};
use crate::config::{Config, Environment};
use crate::docker::{EndpointEnv, RegistryEnv};
use crate::engine::EngineError;
use crate::exit::Exit;
use crate::logging::{message, value};
use crate::notify::Notifier;
use crate::trust::TrustEnv;

/// Signals that wait for the main thread, at most; one that finds no place changes nothing any more.
const SIGNALS: usize = 8;

/// Runs the worker from its first look at the engine to its exit code. The logger must be there.
pub fn start(config: &Config, environment: &Environment) -> Exit {
    let starting = CancelToken::new();
    let signals = match listen(&starting) {
        Ok(signals) => signals,
        Err(error) => return failed(&error, Exit::Failure),
    };
    let (version, slots) = (env!("CARGO_PKG_VERSION"), config.max_concurrent_tasks);
    info!("worker starting version={version} worker={} slots={slots}", value(&config.worker_id));
    if let Some(warning) = config.plain_text_warning() {
        warn!("connection in clear warning={}", message(&warning));
    }
    for warning in TrustEnv::from(environment).warnings() {
        warn!("trusted certificates not usable {warning}");
    }
    let docker = match engine::connect(&EndpointEnv::from(environment), &starting) {
        Ok(docker) => docker,
        Err(EngineError::Cancelled) => return Exit::Success,
        Err(error) => return failed(&error, Exit::Engine),
    };
    let left_overs = match task::adopt::find(&docker, &starting, &config.worker_id) {
        Ok(left_overs) => left_overs.into_iter().map(Arc::new).collect(),
        Err(error) if error.is_cancelled() => return Exit::Success,
        Err(error) => return failed(&error, Exit::Engine),
    };
    let notifier = match Notifier::start(environment.get(notify::VARIABLE).is_some()) {
        Ok(notifier) => notifier,
        Err(error) => return failed(&error, Exit::Failure),
    };
    let registries = RegistryEnv::from(environment);
    let exit = runtime::run(config, docker, registries, left_overs, &signals, notifier);
    let exit = exit.unwrap_or_else(|error| failed(&error, Exit::Failure));
    info!("worker stopped exit_code={}", exit.code());
    exit
}

/// SIGTERM, SIGINT and SIGHUP become messages; the first also ends a start that is stuck.
fn listen(starting: &CancelToken) -> Result<Receiver<()>, ctrlc::Error> {
    let (sender, signals) = bounded(SIGNALS);
    let starting = starting.clone();
    ctrlc::set_handler(move || {
        starting.cancel(CancelReason::Shutdown);
        // A full channel holds more signals than have a meaning.
        let _ = sender.try_send(());
    })?;
    Ok(signals)
}

fn failed(error: &dyn std::error::Error, exit: Exit) -> Exit {
    error!("worker ended exit_code={} error={}", exit.code(), message(&error_chain(error)));
    exit
}

/// An error with its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The variables that say which engine is used. What is not text is not taken for unset, which could mean another engine:
/// it is kept as well as it can be shown, and is then refused or not found.
impl From<&Environment> for EndpointEnv {
    fn from(environment: &Environment) -> Self {
        let get = |name| environment.get(name).map(|value| value.to_string_lossy().into_owned());
        Self {
            docker_host: get("DOCKER_HOST"),
            docker_context: get("DOCKER_CONTEXT"),
            docker_config: get("DOCKER_CONFIG"),
            docker_tls: get("DOCKER_TLS"),
            docker_tls_verify: get("DOCKER_TLS_VERIFY"),
            docker_cert_path: get("DOCKER_CERT_PATH"),
            docker_api_version: get("DOCKER_API_VERSION"),
            xdg_runtime_dir: get("XDG_RUNTIME_DIR"),
            home: get("HOME"),
        }
    }
}

/// The variables that say where registry credentials are, and what helpers run with.
impl From<&Environment> for RegistryEnv {
    fn from(environment: &Environment) -> Self {
        let (docker_config, home) = (environment.get("DOCKER_CONFIG"), environment.get("HOME"));
        Self::new(docker_config, home, environment.variables())
    }
}
