//! The process: start, run, exit codes.

pub mod disk;
pub mod engine;
pub mod runtime;
pub mod service_manager;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use log::{error, info, warn};

use crate::app::engine::EngineError;
use crate::app::service_manager::Notifier;
use crate::cli::{Arguments, Config, KEY_FILE_LIMIT, docs};
use crate::control_plane::tls::TrustEnv;
use crate::docker::{EndpointEnv, RegistryEnv};
use crate::exit::Exit;
use crate::logging::{error_chain, message, value};
use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::environment::Environment;
use crate::{logging, task};

/// Signals that wait for the main thread, at most; one that finds no place changes nothing any more.
const SIGNALS: usize = 8;

/// Runs the command: prints what was asked for, or serves until the worker ends. Returns its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Exit {
    match Arguments::parse(arguments) {
        Ok(arguments) => match docs::requested(&arguments) {
            Ok(Some(page)) => print(&page),
            Ok(None) => configured(&arguments, environment),
            Err(error) => wrong(&error, Exit::Usage),
        },
        Err(error) => wrong(&error, Exit::Usage),
    }
}

fn configured(arguments: &Arguments, environment: &Environment) -> Exit {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = match Config::new(arguments, environment, cores, &read_file) {
        Ok(config) => config,
        Err(error) => return wrong(&error, Exit::Usage),
    };
    if let Err(error) = logging::init(config.log_level) {
        return wrong(&error, Exit::Usage);
    }
    let exit = start(&config, environment);
    log::logger().flush();
    exit
}

/// One byte more than is allowed is enough to find that a file is too long.
fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KEY_FILE_LIMIT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Before there is a logger, what is wrong is told in plain words. A closed stderr is nobody's problem.
fn wrong(error: &dyn std::error::Error, exit: Exit) -> Exit {
    let _ = writeln!(io::stderr(), "oz-agent-worker: {}", error_chain(error));
    exit
}

/// A reader that has gone is no failure; a page that is not whole is one.
fn print(page: &str) -> Exit {
    match io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => wrong(&error, Exit::Failure),
        _ => Exit::Success,
    }
}

/// Runs the worker from its first look at the engine to its exit code. The logger must be there.
fn start(config: &Config, environment: &Environment) -> Exit {
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
    let adopted = match task::adopt::find(&docker, &starting, &config.worker_id) {
        Ok(adopted) => adopted.into_iter().map(Arc::new).collect(),
        Err(error) if error.is_cancelled() => return Exit::Success,
        Err(error) => return failed(&error, Exit::Engine),
    };
    let notifier = match Notifier::start(environment.get(service_manager::VARIABLE).is_some()) {
        Ok(notifier) => notifier,
        Err(error) => return failed(&error, Exit::Failure),
    };
    let registries = RegistryEnv::from(environment);
    let exit = runtime::run(config, docker, registries, adopted, &signals, notifier);
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
