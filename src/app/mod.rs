//! The process: handles the arguments, starts the worker, and returns the exit code.

mod background;
mod deadline;
mod diagnosis;
pub mod disk;
mod ended;
mod enforcement;
pub mod engine;
mod health;
pub mod instance;
mod link;
mod monitor;
mod mounts;
pub mod runtime;
mod search;
pub mod service_manager;
mod settings;
mod signals;
mod status;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use http::header::InvalidHeaderValue;
use log::{Level, error, info, warn};

use crate::app::ended::Ended;
use crate::app::instance::Instance;
use crate::app::monitor::Monitor;
use crate::app::search::Search;
use crate::app::service_manager::Notifier;
use crate::app::signals::Signals;
use crate::cli::docs::{self, Request};
use crate::cli::{
    Arguments, BadLine, CHECK, Config, ConfigError, ConfigErrors, HEALTH, KEY_FILE_LIMIT, KeyFile, Listing,
    STATUS, SettingsFile,
};
use crate::control_plane::key::ApiKey;
use crate::docker::{EndpointEnv, RegistryEnv};
use crate::exit::Exit;
use crate::logging;
use crate::logging::{error_chain, message, value};
use crate::sys::cancel::CancelToken;
use crate::sys::environment::Environment;
use crate::sys::{files, limits};

/// The size limit of the settings file, in bytes.
const SETTINGS_FILE_LIMIT: usize = 1 << 20;

/// Why the settings file cannot be used. Shows nothing of its contents.
#[derive(Debug, thiserror::Error)]
enum SettingsFileError {
    #[error(transparent)]
    Setting(#[from] ConfigError),
    #[error("cannot read {setting} {path:?}: {problem}")]
    File { setting: String, path: PathBuf, problem: String },
    #[error("invalid {setting} {path:?}, line {line}: {right}")]
    Line { setting: String, path: PathBuf, line: usize, right: String },
}

/// Prints the requested text, or runs the worker until it ends. Returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &Environment) -> Exit {
    // The arguments may hold secrets.
    logging::detect_journal(environment.get(logging::JOURNAL_STREAM));
    logging::report_panics();
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return report(&error, Exit::Usage),
    };
    match docs::requested(&arguments) {
        Ok(None) if arguments.command() == Some(&CHECK) => diagnosis::run(&arguments, environment),
        Ok(None) if arguments.command() == Some(&STATUS) => status::run(&arguments, environment),
        Ok(None) if arguments.command() == Some(&HEALTH) => health::run(&arguments, environment),
        Ok(Some(Request::Text(text))) => print(&text),
        Ok(Some(Request::Settings)) => list_settings(&arguments, environment),
        Ok(None) => match settings_file(&arguments, environment) {
            Ok(None) => configure(&arguments, environment),
            Ok(Some(file)) => configure(&arguments, &file.below(environment)),
            Err(error) => report(&error, Exit::Usage),
        },
        Err(error) => report(&error, Exit::Usage),
    }
}

/// Prints all settings to stdout, and what is wrong with them to stderr.
fn list_settings(arguments: &Arguments, environment: &Environment) -> Exit {
    let (file, file_error) = match settings_file(arguments, environment) {
        Ok(file) => (file, None),
        Err(error) => (None, Some(error)),
    };
    let merged = file.as_ref().map_or_else(|| environment.clone(), |file| file.below(environment));
    let listing = Listing { arguments, environment: &merged, cores: cores() };
    let mut exit = print(&listing.text(&read_key_file));
    // An invalid path is one of the errors below.
    if let Some(error) = file_error.filter(|error| !matches!(error, SettingsFileError::Setting(_))) {
        exit = report(&error, Exit::Usage);
    }
    match Config::new(arguments, &merged, cores(), &read_key_file) {
        Ok(config) => {
            config.warnings.iter().chain(&open_key_file(&config)).for_each(|warning| report_warning(warning));
            if let Err(error) = settings::network(&config).trust.check() {
                exit = report(&error, Exit::Usage);
            }
            if let Err(error) = mounts::check(&config) {
                exit = report(&error, Exit::Usage);
            }
        }
        Err(ConfigErrors(errors)) => exit = report_all(&errors, arguments, &merged),
    }
    exit
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn configure(arguments: &Arguments, environment: &Environment) -> Exit {
    // Before the key is read.
    let dumps = limits::forbid_core_dumps();
    let config = match Config::new(arguments, environment, cores(), &read_key_file) {
        Ok(config) => config,
        Err(ConfigErrors(errors)) => return report_all(&errors, arguments, environment),
    };
    if let Err(error) = settings::network(&config).trust.check() {
        return report(&error, Exit::Usage);
    }
    if let Err(error) = mounts::check(&config) {
        return report(&error, Exit::Usage);
    }
    if let Err(error) = signals::block() {
        return report(&error, Exit::Failure);
    }
    if let Err(error) = logging::init(config.log_level, config.log_format) {
        return report(&error, Exit::Failure);
    }
    for (limit, result) in [("core", dumps), ("nofile", limits::raise_open_files())] {
        if let Err(error) = result {
            warn!("process limit not set limit={limit} error={}", message(&error.to_string()));
        }
    }
    let exit = start(&config, environment);
    log::logger().flush();
    exit
}

/// Reads the settings file, if one is set.
fn settings_file(
    arguments: &Arguments,
    environment: &Environment,
) -> Result<Option<SettingsFile>, SettingsFileError> {
    let Some((setting, path)) = Config::settings_file(arguments, environment)? else { return Ok(None) };
    let bytes = match files::read(&path, SETTINGS_FILE_LIMIT) {
        Ok(bytes) => bytes,
        Err(error) => return Err(SettingsFileError::File { setting, path, problem: error.to_string() }),
    };
    let file = SettingsFile::parse(path.clone(), &bytes);
    file.map(Some).map_err(|BadLine { line, right }| SettingsFileError::Line { setting, path, line, right })
}

/// Reads one byte more than is allowed: enough to see that a file is too long.
fn read_key_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(KEY_FILE_LIMIT as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// Reports an error before there is a logger. A closed stderr is ignored.
fn report(error: &dyn std::error::Error, exit: Exit) -> Exit {
    let _ =
        writeln!(io::stderr(), "{}oz-agent-worker: {}", logging::priority(Level::Error), error_chain(error));
    exit
}

/// Reports every error, and the variables whose names may be misspelt.
fn report_all(errors: &[ConfigError], arguments: &Arguments, environment: &Environment) -> Exit {
    for error in errors {
        report(error, Exit::Usage);
    }
    Config::unknown_variables(arguments, environment).iter().for_each(|warning| report_warning(warning));
    Exit::Usage
}

fn report_warning(warning: &str) {
    let _ = writeln!(io::stderr(), "{}oz-agent-worker: warning: {warning}", logging::priority(Level::Warn));
}

/// A pipe closed by its reader is not a failure; any other incomplete output is.
fn print(page: &str) -> Exit {
    match io::stdout().write_all(page.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => report(&error, Exit::Failure),
        _ => Exit::Success,
    }
}

/// Finds the engine and the tasks of an earlier process, and runs the worker. The logger must be set up.
///
/// The link gets ready meanwhile. It appears at the control plane once the engine has shown that it can be used; messages wait
/// until the tasks are found.
fn start(config: &Config, environment: &Environment) -> Exit {
    let starting = CancelToken::new();
    let signals = match signals::listen(&starting) {
        Ok(signals) => signals,
        Err(error) => return fail(&error, Exit::Failure),
    };
    info!(
        "worker starting version={} worker={} slots={}",
        env!("CARGO_PKG_VERSION"),
        value(&config.worker_id),
        config.max_concurrent_tasks
    );
    if let Some(reason) = config.plain_text_warning() {
        warn!("connection not encrypted reason={}", message(&reason));
    }
    for warning in config.warnings.iter().chain(&open_key_file(config)) {
        warn!("{warning}");
    }
    let mut notifier = match Notifier::start(environment) {
        Ok(notifier) => notifier,
        Err(error) => return fail(&error, Exit::Failure),
    };
    let Ended { exit, reason } = serve(config, environment, &starting, &signals, &mut notifier);
    match reason {
        None => info!("worker stopped exit_code={}", exit.code()),
        // The last line and the last status say why, because service managers show a code by a name of their own.
        Some(reason) => {
            error!("worker ended exit_code={} error={}", exit.code(), message(&reason));
            notifier.tell_end(exit, &reason);
        }
    }
    exit
}

fn serve(
    config: &Config,
    environment: &Environment,
    starting: &CancelToken,
    signals: &Signals,
    notifier: &mut Notifier,
) -> Ended {
    let key = match api_key(config) {
        Ok(key) => key,
        Err(error) => return Ended::failed(Exit::Usage, &error),
    };
    let _instance =
        match Instance::take(&config.worker_id, settings::shares_id(config), config.shared_id, starting) {
            Ok(instance) => instance,
            Err(error) => return Ended::failed(Exit::InUse, &error),
        };
    let monitor = match Monitor::start(config) {
        Ok(monitor) => monitor,
        Err(error) => return Ended::failed(Exit::Usage, &error),
    };
    let started = match link::start_link(config, key) {
        Ok(started) => started,
        Err(error) => return Ended::failed(Exit::Failure, &error),
    };
    let search = Search { config, environment, starting, signals, monitor: &monitor };
    let found = match search.run(started, notifier) {
        Ok(found) => found,
        Err(ended) => return ended,
    };
    let registries = RegistryEnv::from(environment);
    runtime::run(config, found, registries, signals, notifier, monitor)
        .unwrap_or_else(|error| Ended::failed(Exit::Failure, &error))
}

/// The API key. If it came from a file, and not from a pipe, it is read again before each use.
///
/// # Errors
/// The configuration checks the key, so this is a defect.
fn api_key(config: &Config) -> Result<ApiKey, InvalidHeaderValue> {
    let key = ApiKey::new(config.api_key.clone())?;
    let Some(file) = config.api_key_file.clone().filter(|file| file.path().is_file()) else { return Ok(key) };
    Ok(key.read_again(move || file.read(&read_regular_file).map_err(|error| error_chain(&error))))
}

fn read_regular_file(path: &Path) -> io::Result<String> {
    let bytes = files::read(path, KEY_FILE_LIMIT + 1)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Returns a warning if users that are neither the owner nor in the group can read the file with the API key.
fn open_key_file(config: &Config) -> Option<String> {
    let path = config.api_key_file.as_ref().map(KeyFile::path)?;
    path.metadata().ok().filter(|file| file.permissions().mode() & 0o004 != 0)?;
    let path = path.display().to_string();
    Some(format!("API key file readable by all users path={} note=\"chmod o= on the file\"", value(&path)))
}

fn fail(error: &dyn std::error::Error, exit: Exit) -> Exit {
    error!("worker ended exit_code={} error={}", exit.code(), message(&error_chain(error)));
    exit
}

/// The variables that name the engine. A value that is not UTF-8 is converted to text, because dropping it would
/// select another engine.
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

/// The variables that name the registry credentials, and the environment of credential helpers.
impl From<&Environment> for RegistryEnv {
    fn from(environment: &Environment) -> Self {
        Self::new(environment.get("DOCKER_CONFIG"), environment.get("HOME"), environment.variables())
    }
}
