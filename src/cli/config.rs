//! The configuration: the values of all settings, and how one depends on another.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use log::LevelFilter;

use super::containers::container_options;
use super::invocation::Invocation;
use super::monitoring::{Listen, exporter_warning, metrics_listen, name_of_listen};
use super::policies::{admission, list};
use super::read::Given;
use super::settings::{Echo, Reader};
use super::table::{
    ALLOW_ENV, ALLOW_IMAGE, ALLOW_MOUNT_PATH, API_KEY, API_KEY_FILE, BACKEND, CA_FILE, CLIENT_CERT,
    CLIENT_KEY, DEFAULT_IMAGE, DENY_ENV, DRAIN_TIMEOUT, ENGINE_START_TIMEOUT, ENGINE_TIMEOUT, ENV,
    IDLE_ON_COMPLETE, KEEP_FAILED, KEEP_SIDECAR_VOLUMES, KEY_FILE_LIMIT, LOG_FORMAT, LOG_LEVEL,
    LOG_OUTPUT_LINES, LOST_RUNS, MAX_CONCURRENT_TASKS, MAX_OUTPUT_SIZE, MAX_TASKS, MIN_FREE_DISK, NO_CLEANUP,
    PULL, RECONCILE_INTERVAL, RECONNECT_MAX_ATTEMPTS, RECONNECT_SPREAD, RECONNECT_WINDOW, REST_URL,
    SERVER_ROOT_URL, SESSION_SHARING_SERVER_URL, SETTINGS_FILE, SHARED_ID, SIDECAR_IMAGE, STOP_GRACE,
    TASK_TIMEOUT, VOLUMES, WEB_SOCKET_URL, WORKER_ID,
};
use super::{Arguments, ConfigError, ConfigErrors, host, names, url};
use crate::docker::Reference;
use crate::logging::{Format, SettingNames, value};
use crate::net::proxy::Proxies;
use crate::policy::{Admission, ContainerOptions, LostRuns, PullPolicy, VolumeBind};
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
    pub(crate) log_format: Format,
    /// Whether task containers are removed after their report is delivered.
    pub(crate) cleanup: bool,
    /// How long containers of failed tasks are kept; zero: not at all.
    pub(crate) keep_failed: Duration,
    /// How many lines of a failed task's output are logged.
    pub(crate) log_output_lines: usize,
    /// Mounts of every task container, each on its own path.
    pub(crate) volumes: Vec<VolumeBind>,
    /// Limits, network and rights of every task container.
    pub(crate) container: ContainerOptions,
    /// Variables of every task container, in the order typed, each name once.
    pub(crate) env: Vec<(String, Secret)>,
    /// Size of the pool, 1 to [`MAX_TASKS`].
    pub(crate) max_concurrent_tasks: usize,
    /// When images are pulled.
    pub(crate) pull: PullPolicy,
    /// The image for tasks whose assignment names none.
    pub(crate) default_image: Reference,
    /// The image to mount at `/agent` in place of the assignment's.
    pub(crate) sidecar_image: Option<Reference>,
    /// The images and variables that assignments may have.
    pub(crate) admission: Admission,
    /// Where the host's paths in [`Config::volumes`] must be, absolute and as written; anywhere if empty.
    pub(crate) mount_paths: Vec<PathBuf>,
    /// How long agents stay after their conversation has ended, for the agent; never blank.
    pub(crate) idle_on_complete: Option<String>,
    /// For the agent: `ws` or `wss`, as written.
    pub(crate) session_sharing_server_url: Option<String>,
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
    /// Where the monitoring pages are served; `None`: nowhere.
    pub(crate) metrics_listen: Option<Listen>,
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
    /// How errors name the settings.
    pub(crate) names: SettingNames,
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
    ) -> Result<Self, ConfigErrors> {
        let invocation = Invocation { arguments, environment };
        // Read once: the file may be a pipe.
        let (key, key_error) = match api_key(&invocation, read_file) {
            Ok(key) => (key, None),
            Err(error) => ((Secret::default(), None), Some(error)),
        };
        match (key_error, Self::read(&invocation, key, cores, read_file)) {
            (None, Ok(config)) => Ok(config),
            (key_error, config) => {
                let mut all: Vec<_> = key_error.into_iter().chain(errors(&invocation, read_file)).collect();
                if all.is_empty() {
                    all.extend(config.err());
                }
                Err(ConfigErrors(all))
            }
        }
    }

    /// Returns the name of the setting and the path of the settings file, if one is set.
    ///
    /// # Errors
    /// The path is invalid.
    pub(crate) fn settings_file(
        arguments: &Arguments,
        environment: &Environment,
    ) -> Result<Option<(String, PathBuf)>, ConfigError> {
        let invocation = Invocation { arguments, environment };
        let path = invocation.read_if_given(&SETTINGS_FILE)?;
        Ok(path.map(|path| (invocation.name_of_setting(&SETTINGS_FILE.setting), path)))
    }

    /// Returns a warning for each variable that begins like the worker's and is unknown: a setting may be missing because its name is
    /// misspelt.
    pub(crate) fn unknown_variables(arguments: &Arguments, environment: &Environment) -> Vec<String> {
        unknown(&Invocation { arguments, environment })
    }

    fn read(
        invocation: &Invocation<'_>,
        (api_key, api_key_file): (Secret, Option<KeyFile>),
        cores: usize,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        invocation.read_if_given(&SETTINGS_FILE)?;
        invocation.read_if_given(&BACKEND)?;
        let (web_socket_url, server_root_url) = urls(invocation)?;
        let (proxies, mut warnings) = Proxies::new(invocation.environment);
        warnings.extend(unused(invocation)?);
        warnings.extend(exporter_warning(invocation.environment));
        let (container, errors) = container_options(invocation, read_file);
        errors.into_iter().next().map_or(Ok(()), Err)?;
        let default_tasks = default_tasks(cores);
        let rest_url = invocation.read_if_given(&REST_URL)?.map(|url| without_slash(&url));
        Ok(Self {
            api_key,
            api_key_file,
            worker_id: worker_id(invocation, read_file)?,
            shared_id: invocation.is_on(&SHARED_ID.setting)?,
            web_socket_url,
            rest_url: rest_url.unwrap_or_else(|| server_root_url.clone()),
            server_root_url,
            log_level: invocation.read(&LOG_LEVEL)?,
            log_format: invocation.read(&LOG_FORMAT)?,
            cleanup: !invocation.is_on(&NO_CLEANUP)?,
            keep_failed: invocation.read(&KEEP_FAILED)?,
            log_output_lines: invocation.read(&LOG_OUTPUT_LINES)?,
            volumes: volumes(invocation)?,
            container,
            env: variables(invocation)?,
            max_concurrent_tasks: invocation.read_if_given(&MAX_CONCURRENT_TASKS)?.unwrap_or(default_tasks),
            pull: invocation.read(&PULL)?,
            default_image: invocation.read(&DEFAULT_IMAGE)?,
            sidecar_image: invocation.read_if_given(&SIDECAR_IMAGE)?,
            admission: admission(invocation)?,
            mount_paths: list(invocation, &ALLOW_MOUNT_PATH)?,
            idle_on_complete: invocation.read_if_given(&IDLE_ON_COMPLETE)?,
            session_sharing_server_url: invocation.read_if_given(&SESSION_SHARING_SERVER_URL)?,
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
            metrics_listen: metrics_listen(invocation)?,
            reconnect_max_attempts: invocation.read(&RECONNECT_MAX_ATTEMPTS)?,
            reconnect_window: invocation.read(&RECONNECT_WINDOW)?,
            reconnect_spread: invocation.read(&RECONNECT_SPREAD)?,
            ca_file: invocation.read_if_given(&CA_FILE)?,
            client: client(invocation)?,
            names: invocation.setting_names().chain(name_of_listen(invocation)).collect(),
            proxies,
            warnings,
        })
    }

    /// The URL to connect to: the WebSocket URL with the worker's ID in its query.
    pub(crate) fn link_url(&self) -> String {
        url::with_query(&self.web_socket_url, "worker_id", &self.worker_id)
    }

    /// A warning if agents are told to reach the control plane on this host, while it is on another one.
    pub(crate) fn unreachable_root(&self) -> Option<String> {
        let root: Uri = self.server_root_url.parse().ok()?;
        (url::is_loopback(&root) && !url::is_loopback(&self.web_socket_url)).then(|| {
            let (root, host) = (&self.server_root_url, self.web_socket_url.host().unwrap_or_default());
            format!("agents cannot reach {root} from their containers, and the WebSocket is on {host}; set --server-root-url")
        })
    }

    /// A warning if the API key is sent to another host without encryption.
    pub(crate) fn plain_text_warning(&self) -> Option<String> {
        let uri = &self.web_socket_url;
        (url::is_plain(uri) && !url::is_loopback(uri)).then(|| {
            let host = uri.host().unwrap_or_default();
            format!(
                "the API key and the tasks go to {host} without encryption; use https:// or wss:// in the URL \
                 (--server-root-url or --web-socket-url)"
            )
        })
    }
}

/// The size of the pool if it is not set.
pub(super) fn default_tasks(cores: usize) -> usize {
    cores.saturating_mul(2).clamp(4, MAX_TASKS)
}

/// A file with the API key on its first line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFile {
    /// The flag or the variable that names the file, as errors name it.
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

/// The API key and its file: from the key file, else from its flag, else from its variable, else from that of other programs.
fn api_key(
    invocation: &Invocation<'_>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<(Secret, Option<KeyFile>), ConfigError> {
    let Some(file) = invocation.given(&API_KEY_FILE)? else {
        let given = match invocation.given(&API_KEY.setting)? {
            Some(given) => Some(given),
            None => invocation.get("WARP_API_KEY", &API_KEY.setting)?,
        };
        return Ok(((API_KEY.read)(&given.ok_or(ConfigError::MissingApiKey)?)?, None));
    };
    let file = KeyFile { setting: file.name, path: file.value.to_owned() };
    Ok((file.read(read_file)?, Some(file)))
}

/// The worker's ID, by default the host's name.
pub(super) fn worker_id(
    invocation: &Invocation<'_>,
    read_file: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<String, ConfigError> {
    let Some(given) = invocation.given(&WORKER_ID.setting)? else {
        let id = host::default_id(read_file).ok_or(ConfigError::MissingWorkerId)?;
        let name = "--worker-id (the host's name)".to_owned();
        return (WORKER_ID.read)(&Given { name, value: &id, ..invocation.default(&WORKER_ID.setting) });
    };
    let replaced = host::replace(given.value, read_file).map_err(|right| given.invalid(right))?;
    (WORKER_ID.read)(&Given { value: &replaced, ..given })
}

/// Warnings about settings that have no effect or are not safe, one log line each.
fn unused(invocation: &Invocation<'_>) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    if let (Some(key), Some(file)) = (invocation.given(&API_KEY.setting)?, invocation.given(&API_KEY_FILE)?) {
        warnings.push(format!("API key not used setting={} instead={}", value(&key.name), value(&file.name)));
    }
    if invocation.arguments.has(&API_KEY.setting) {
        let safer = "other users of this host can read command lines; set OZ_API_KEY or OZ_API_KEY_FILE";
        warnings.push(format!("API key in the command line reason={}", value(safer)));
    }
    warnings.extend(unknown(invocation));
    Ok(warnings)
}

/// Warnings about variables that begin like the worker's, but that no setting has and that `--env` does not copy.
fn unknown(invocation: &Invocation<'_>) -> Vec<String> {
    let mut copied = Vec::new();
    // An invalid list is an error of its own.
    let _ = invocation.for_each(&ENV.setting, |given| {
        copied.push(given.value.to_owned());
        Ok(())
    });
    let names = invocation.environment.variables().filter_map(|(name, _)| name.into_string().ok());
    let names = names.filter(|name| !copied.contains(name));
    names
        .filter_map(|name| {
            let nearest = names::nearest(&name)?;
            Some(format!("variable not known name={} nearest={nearest}", value(&name)))
        })
        .collect()
}

/// Every error in the settings but those of the API key.
fn errors(invocation: &Invocation<'_>, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Vec<ConfigError> {
    fn of<T>(result: Result<T, ConfigError>) -> Option<ConfigError> {
        result.err()
    }
    let web_socket = of(invocation.read_if_given(&WEB_SOCKET_URL));
    let root = of(invocation.read_if_given(&SERVER_ROOT_URL));
    let derived = if web_socket.is_none() && root.is_none() { of(urls(invocation)) } else { None };
    let (certificate, key) =
        (of(invocation.read_if_given(&CLIENT_CERT)), of(invocation.read_if_given(&CLIENT_KEY)));
    let client = if certificate.is_none() && key.is_none() { of(client(invocation)) } else { None };
    let (default_image, sidecar_image) =
        (of(invocation.read(&DEFAULT_IMAGE)), of(invocation.read_if_given(&SIDECAR_IMAGE)));
    let globs = [&ALLOW_IMAGE, &ALLOW_ENV, &DENY_ENV].map(|reader| of(list(invocation, reader)));
    let is_read = default_image.is_none() && sidecar_image.is_none() && globs.iter().all(Option::is_none);
    let images = if is_read { of(admission(invocation)) } else { None };
    let found = [
        of(worker_id(invocation, read_file)),
        web_socket,
        root,
        derived,
        of(invocation.read_if_given(&REST_URL)),
        of(invocation.read(&LOG_LEVEL)),
        of(invocation.read(&LOG_FORMAT)),
        of(invocation.is_on(&NO_CLEANUP)),
        of(invocation.is_on(&SHARED_ID.setting)),
        of(volumes(invocation)),
        of(variables(invocation)),
        of(invocation.read_if_given(&MAX_CONCURRENT_TASKS)),
        of(invocation.read(&PULL)),
        default_image,
        sidecar_image,
        images,
        of(list(invocation, &ALLOW_MOUNT_PATH)),
        of(invocation.read_if_given(&IDLE_ON_COMPLETE)),
        of(invocation.read_if_given(&SESSION_SHARING_SERVER_URL)),
        of(invocation.read(&MAX_OUTPUT_SIZE)),
        of(invocation.read(&TASK_TIMEOUT)),
        of(invocation.read(&DRAIN_TIMEOUT)),
        of(invocation.read(&KEEP_FAILED)),
        of(invocation.read(&LOG_OUTPUT_LINES)),
        of(invocation.read(&STOP_GRACE)),
        of(invocation.read(&ENGINE_TIMEOUT)),
        of(invocation.read_if_given(&ENGINE_START_TIMEOUT)),
        of(invocation.read(&RECONCILE_INTERVAL)),
        of(invocation.read(&LOST_RUNS)),
        of(invocation.read(&KEEP_SIDECAR_VOLUMES)),
        of(invocation.read(&MIN_FREE_DISK)),
        of(metrics_listen(invocation)),
        of(invocation.read(&RECONNECT_MAX_ATTEMPTS)),
        of(invocation.read(&RECONNECT_WINDOW)),
        of(invocation.read(&RECONNECT_SPREAD)),
        of(invocation.read_if_given(&CA_FILE)),
        certificate,
        key,
        client,
        of(invocation.read_if_given(&BACKEND)),
        of(invocation.read_if_given(&SETTINGS_FILE)),
    ];
    let of_containers = container_options(invocation, read_file).1;
    found.into_iter().chain(globs).flatten().chain(of_containers).collect()
}

/// The client certificate and its key, of which neither can do without the other.
fn client(invocation: &Invocation<'_>) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (invocation.read_if_given(&CLIENT_CERT)?, invocation.read_if_given(&CLIENT_KEY)?) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (certificate, _) => {
            let (given, missing) =
                if certificate.is_some() { (&CLIENT_CERT, &CLIENT_KEY) } else { (&CLIENT_KEY, &CLIENT_CERT) };
            let name = |reader: &Reader<PathBuf>| invocation.name_of_setting(&reader.setting);
            Err(ConfigError::HalfClient { given: name(given), missing: name(missing) })
        }
    }
}

/// The WebSocket URL and the root URL. If only one of them is given, the other is that of the public
/// control plane if this names it, else derived from it.
pub(super) fn urls(invocation: &Invocation<'_>) -> Result<(Uri, String), ConfigError> {
    let web_socket = invocation.given(&WEB_SOCKET_URL.setting)?;
    let root = invocation.given(&SERVER_ROOT_URL.setting)?;
    let (web_socket, root) = match (web_socket, root) {
        (Some(web_socket), Some(root)) => {
            ((WEB_SOCKET_URL.read)(&web_socket)?, (SERVER_ROOT_URL.read)(&root)?)
        }
        (None, Some(given)) => {
            let root = (SERVER_ROOT_URL.read)(&given)?;
            if url::is_public(&root) {
                return Ok((Uri::from_static(url::PUBLIC_WEB_SOCKET), without_slash(&root)));
            }
            let path = format!("{}{}", root.path().trim_end_matches('/'), url::WORKER_PATH);
            let web_socket = url::derive(&root, url::WEB_SOCKET, &path);
            (web_socket.map_err(|right| given.invalid(right))?, root)
        }
        (given, None) => {
            let given = given.unwrap_or_else(|| invocation.default(&WEB_SOCKET_URL.setting));
            let web_socket = (WEB_SOCKET_URL.read)(&given)?;
            if url::is_public(&web_socket) {
                return Ok((web_socket, url::PUBLIC_ROOT.to_owned()));
            }
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
    invocation.for_each(&VOLUMES.setting, |given| {
        let bind = (VOLUMES.read)(given)?;
        if binds.iter().any(|other| other.container == bind.container) {
            return Err(given.invalid(format!("must be the only mount at {}", bind.container)));
        }
        binds.push(bind);
        Ok(())
    })?;
    Ok(binds)
}

/// The variables of tasks; a later value of the same name replaces an earlier one.
fn variables(invocation: &Invocation<'_>) -> Result<Vec<(String, Secret)>, ConfigError> {
    let mut variables: Vec<(String, Secret)> = Vec::new();
    invocation.for_each(&ENV.setting, |given| {
        let (name, value) = (ENV.read)(given)?;
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
        Ok(())
    })?;
    Ok(variables)
}
