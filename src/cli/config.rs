//! The configuration: the values of all settings, and how one depends on another.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use log::LevelFilter;

use super::invocation::Invocation;
use super::read::Given;
use super::settings::Echo;
use super::table::{
    API_KEY, API_KEY_FILE, CA_FILE, CLIENT_CERT, CLIENT_KEY, DRAIN_TIMEOUT, ENGINE_START_TIMEOUT,
    ENGINE_TIMEOUT, ENV, KEEP_SIDECAR_VOLUMES, KEY_FILE_LIMIT, LOG_LEVEL, LOST_RUNS, MAX_CONCURRENT_TASKS,
    MAX_OUTPUT_SIZE, MAX_TASKS, MIN_FREE_DISK, NO_CLEANUP, PULL, RECONCILE_INTERVAL, RECONNECT_MAX_ATTEMPTS,
    RECONNECT_SPREAD, RECONNECT_WINDOW, REST_URL, SERVER_ROOT_URL, SHARED_ID, STOP_GRACE, TASK_TIMEOUT,
    VOLUMES, WEB_SOCKET_URL, WORKER_ID,
};
use super::{Arguments, ConfigError, url};
use crate::net::proxy::Proxies;
use crate::policy::{LostRuns, PullPolicy, VolumeBind};
use crate::secret::Secret;
use crate::sys::environment::Environment;

/// The values of all settings, checked. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// Visible ASCII and spaces, not blank: it fits into a header.
    pub(crate) api_key: Secret,
    /// Where the API key came from, if it came from a file.
    pub(crate) api_key_file: Option<KeyFile>,
    /// Not blank, no control characters, at most [`super::table::WORKER_ID_LIMIT`] bytes.
    pub(crate) worker_id: String,
    /// Whether other processes of this host may have the same worker's id.
    pub(crate) shared_id: bool,
    /// `ws` or `wss` (in lower case), with a host, without user info and fragment.
    pub(crate) web_socket_url: Uri,
    /// `http` or `https`, without user info, query, fragment and final slash.
    pub(crate) server_root_url: String,
    /// As [`Config::server_root_url`], for the worker's own look-ups.
    pub(crate) rest_url: String,
    /// The least severe level that is logged.
    pub(crate) log_level: LevelFilter,
    /// Whether task containers are removed after their report is delivered.
    pub(crate) cleanup: bool,
    /// Mounts of every task container, each on its own path.
    pub(crate) volumes: Vec<VolumeBind>,
    /// Variables of every task container, in the order typed, each name once.
    pub(crate) env: Vec<(String, Secret)>,
    /// Size of the pool, 1 to [`MAX_TASKS`].
    pub(crate) max_concurrent_tasks: usize,
    /// When images are pulled.
    pub(crate) pull: PullPolicy,
    /// How much of a task's output is reported, in bytes: [`super::table::MIN_OUTPUT`] to [`super::table::MAX_OUTPUT`].
    pub(crate) max_output: usize,
    /// How long a task may run; zero: no limit.
    pub(crate) task_timeout: Duration,
    /// How long running tasks may continue after the first signal; may be zero.
    pub(crate) drain_timeout: Duration,
    /// From SIGTERM to SIGKILL for a task that is stopped; may be zero.
    pub(crate) stop_grace: Duration,
    /// How long to wait for an unreachable engine; may be zero.
    pub(crate) engine_timeout: Duration,
    /// How long to wait at start for an engine that does not answer yet; `None`: without a limit.
    pub(crate) engine_start_timeout: Option<Duration>,
    /// How often the control plane is asked for the state of each running task; zero: never.
    pub(crate) reconcile_interval: Duration,
    /// What to do with tasks whose run the control plane has failed.
    pub(crate) lost_runs: LostRuns,
    /// Versions of one sidecar image to keep, at least 1.
    pub(crate) keep_sidecar_volumes: usize,
    /// Free space that the engine's disk needs for a new task, in bytes; 0: no check.
    pub(crate) min_free_disk: u64,
    /// Consecutive failed connections after which the worker gives up; 0: never.
    pub(crate) reconnect_max_attempts: u32,
    /// Only failures within this time count; zero: all.
    pub(crate) reconnect_window: Duration,
    /// The longest random wait before the first attempt after a lost connection; may be zero.
    pub(crate) reconnect_spread: Duration,
    /// Authorities that are trusted in addition to the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The client certificate and its key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
    /// The proxies of the environment.
    pub(crate) proxies: Proxies,
    /// One log line each, about what is set but has no effect.
    pub(crate) warnings: Vec<String>,
}

impl Config {
    /// Reads all settings. `cores` is the number of processors, for the default size of the pool; `read_file` reads
    /// the key file.
    ///
    /// # Errors
    /// When a setting is missing or invalid.
    pub(crate) fn new(
        arguments: &Arguments,
        environment: &Environment,
        cores: usize,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let invocation = Invocation { arguments, environment };
        let (web_socket_url, server_root_url) = urls(&invocation)?;
        let (api_key, api_key_file) = api_key(&invocation, read_file)?;
        let (proxies, warnings) = Proxies::new(environment);
        let default_tasks = cores.saturating_mul(2).clamp(4, MAX_TASKS);
        let rest_url = invocation.read_if_given(&REST_URL)?.map(|url| without_slash(&url));
        Ok(Self {
            api_key,
            api_key_file,
            worker_id: invocation.read_if_given(&WORKER_ID)?.ok_or(ConfigError::MissingWorkerId)?,
            shared_id: arguments.has(&SHARED_ID.setting) || invocation.read(&SHARED_ID)?,
            web_socket_url,
            rest_url: rest_url.unwrap_or_else(|| server_root_url.clone()),
            server_root_url,
            log_level: invocation.read(&LOG_LEVEL)?,
            cleanup: !arguments.has(&NO_CLEANUP),
            volumes: volumes(&invocation)?,
            env: variables(&invocation)?,
            max_concurrent_tasks: invocation.read_if_given(&MAX_CONCURRENT_TASKS)?.unwrap_or(default_tasks),
            pull: invocation.read(&PULL)?,
            max_output: invocation.read(&MAX_OUTPUT_SIZE)?,
            task_timeout: invocation.read(&TASK_TIMEOUT)?,
            drain_timeout: invocation.read(&DRAIN_TIMEOUT)?,
            stop_grace: invocation.read(&STOP_GRACE)?,
            engine_timeout: invocation.read(&ENGINE_TIMEOUT)?,
            engine_start_timeout: invocation.read_if_given(&ENGINE_START_TIMEOUT)?,
            reconcile_interval: invocation.read(&RECONCILE_INTERVAL)?,
            lost_runs: invocation.read(&LOST_RUNS)?,
            keep_sidecar_volumes: invocation.read(&KEEP_SIDECAR_VOLUMES)?,
            min_free_disk: invocation.read(&MIN_FREE_DISK)?,
            reconnect_max_attempts: invocation.read(&RECONNECT_MAX_ATTEMPTS)?,
            reconnect_window: invocation.read(&RECONNECT_WINDOW)?,
            reconnect_spread: invocation.read(&RECONNECT_SPREAD)?,
            ca_file: invocation.read_if_given(&CA_FILE)?,
            client: client(&invocation)?,
            proxies,
            warnings,
        })
    }

    /// The URL to connect to: the WebSocket URL with the worker's ID in its query.
    pub(crate) fn link_url(&self) -> String {
        url::with_query(&self.web_socket_url, "worker_id", &self.worker_id)
    }

    /// A warning if the API key is sent to another host without encryption.
    pub(crate) fn plain_text_warning(&self) -> Option<String> {
        let uri = &self.web_socket_url;
        (url::is_plain(uri) && !url::is_loopback(uri)).then(|| {
            let host = uri.host().unwrap_or_default();
            format!(
                "the API key and the tasks go to {host} without encryption; use wss:// in --web-socket-url"
            )
        })
    }
}

/// A file with the API key on its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFile {
    /// The flag or variable that names the file.
    setting: String,
    path: String,
}

impl KeyFile {
    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// Returns the key. `read_file` reads the file, and may stop after one byte more than [`KEY_FILE_LIMIT`].
    ///
    /// # Errors
    /// When the file cannot be read, is too long or has no valid key on its first line.
    pub(crate) fn read(
        &self,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Secret, ConfigError> {
        let text = read_file(self.path())
            .map_err(|error| ConfigError::key_file(&self.setting, &self.path, error))?;
        if text.len() > KEY_FILE_LIMIT {
            let right = "must be a file of at most 64 KiB with the API key on its first line";
            return Err(ConfigError::invalid(&self.setting, &self.path, right));
        }
        let name = format!("first line of {}", self.setting);
        let value = text.lines().next().unwrap_or_default();
        (API_KEY.read)(&Given { name, value, echo: Echo::Nothing, environment: &Environment::default() })
    }
}

/// The API key and its file: from its flag, else from its variable, else from the key file. A key file given by flag
/// takes precedence over the key's variable.
fn api_key(
    invocation: &Invocation<'_>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(Secret, Option<KeyFile>), ConfigError> {
    let file_is_typed = invocation.arguments.has(&API_KEY_FILE);
    if file_is_typed && invocation.arguments.has(&API_KEY.setting) {
        return Err(ConfigError::TwoApiKeys);
    }
    if !file_is_typed && let Some(key) = invocation.read_if_given(&API_KEY)? {
        return Ok((key, None));
    }
    let file = invocation.given(&API_KEY_FILE)?.ok_or(ConfigError::MissingApiKey)?;
    let file = KeyFile { setting: file.name, path: file.value.to_owned() };
    Ok((file.read(read_file)?, Some(file)))
}

/// The client certificate and its key, of which neither can do without the other.
fn client(invocation: &Invocation<'_>) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (invocation.read_if_given(&CLIENT_CERT)?, invocation.read_if_given(&CLIENT_KEY)?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => Err(ConfigError::HalfClient),
    }
}

/// The WebSocket URL and the root URL. If only one of them is given, the other is derived from it.
fn urls(invocation: &Invocation<'_>) -> Result<(Uri, String), ConfigError> {
    let web_socket = invocation.given(&WEB_SOCKET_URL.setting)?;
    let root = invocation.given(&SERVER_ROOT_URL.setting)?;
    let (web_socket, root) = match (web_socket, root) {
        (Some(web_socket), Some(root)) => {
            ((WEB_SOCKET_URL.read)(&web_socket)?, (SERVER_ROOT_URL.read)(&root)?)
        }
        (None, Some(given)) => {
            let root = (SERVER_ROOT_URL.read)(&given)?;
            let web_socket = url::derive(&root, url::WEB_SOCKET, url::WORKER_PATH);
            (web_socket.map_err(|right| given.invalid(right))?, root)
        }
        (given, None) => {
            let given = given.unwrap_or_else(|| invocation.default(&WEB_SOCKET_URL.setting));
            let web_socket = (WEB_SOCKET_URL.read)(&given)?;
            let root = url::derive(&web_socket, url::HTTP, "/").map_err(|right| given.invalid(right))?;
            (web_socket, root)
        }
    };
    Ok((web_socket, without_slash(&root)))
}

fn without_slash(root: &Uri) -> String {
    root.to_string().trim_end_matches('/').into()
}

/// The mounts of tasks; a second one on the same path is an error.
fn volumes(invocation: &Invocation<'_>) -> Result<Vec<VolumeBind>, ConfigError> {
    let mut binds: Vec<VolumeBind> = Vec::new();
    for given in invocation.typed(&VOLUMES.setting) {
        let bind = (VOLUMES.read)(&given)?;
        if binds.iter().any(|other| other.container == bind.container) {
            return Err(given.invalid(format!("must be the only mount at {}", bind.container)));
        }
        binds.push(bind);
    }
    Ok(binds)
}

/// The variables of tasks; a later value of the same name replaces an earlier one.
fn variables(invocation: &Invocation<'_>) -> Result<Vec<(String, Secret)>, ConfigError> {
    let mut variables: Vec<(String, Secret)> = Vec::new();
    for given in invocation.typed(&ENV.setting) {
        let (name, value) = (ENV.read)(&given)?;
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
    }
    Ok(variables)
}
