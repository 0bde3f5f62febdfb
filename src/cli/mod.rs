//! The settings of one run: (command line, environment) to a checked [`Config`].
//!
//! Owns precedence, bounds, defaults and the messages about them. It is pure: the environment is handed in, and the
//! key file is read by a function that is. It must not know what the settings are used for.

pub mod arguments;
#[cfg(test)]
#[path = "config_tests.rs"]
mod config_tests;
pub mod docs;
mod error;
mod external;
mod read;
mod settings;
mod units;
mod url;
mod volumes;
mod words;

use crate::sys::environment::Environment;
use std::io;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use log::LevelFilter;

use crate::policy::{LostRuns, PullPolicy, VolumeBind};
pub use error::ConfigError;
pub use external::{EXTERNAL, External};
use read::Source;
pub use read::page;
pub use settings::{Occurs, SETTINGS, Setting, ValueHint};

use crate::cli::arguments::Cli;
use crate::secret::Secret;

/// The largest key file, in bytes. Whoever reads it need not read more than one byte beyond.
pub const KEY_FILE_LIMIT: usize = 64 * 1024;
/// The longest worker id, in bytes.
pub const WORKER_ID_LIMIT: usize = 256;
/// The largest pool.
pub const MAX_TASKS: usize = 1024;
/// The least a task's output can be cut to, in bytes.
pub const MIN_OUTPUT: usize = 1024;
/// The most of a task's output that can be kept, in bytes.
pub const MAX_OUTPUT: usize = 64 * 1024 * 1024;
/// How much of a task's output is kept by default, in bytes.
pub const DEFAULT_OUTPUT: usize = 4 * 1024 * 1024;

/// The most versions of one sidecar image that can be kept.
pub const MAX_KEPT_VOLUMES: usize = 1000;

/// In seconds.
const DAY: u64 = 24 * 60 * 60;

/// A text about the worker that `--print` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The manual page, as roff.
    Man,
    /// The completions for bash.
    Bash,
    /// The completions for zsh.
    Zsh,
    /// The completions for fish.
    Fish,
    /// A sample of a file with the variables.
    Environment,
}

/// Everything that was set, checked. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Can go into a header: visible ASCII and spaces, not blank.
    pub api_key: Secret,
    /// Not blank, no control characters, at most [`WORKER_ID_LIMIT`] bytes.
    pub worker_id: String,
    /// `ws` or `wss` (in lower case), with a host, without user info and fragment.
    pub web_socket_url: Uri,
    /// `http` or `https`, without user info, query, fragment and final slash.
    pub server_root_url: String,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Whether task containers are removed when they have ended.
    pub cleanup: bool,
    /// Mounts of every task container, no two on the same path.
    pub volumes: Vec<VolumeBind>,
    /// Variables of every task container, in the order typed, no name twice.
    pub env: Vec<(String, Secret)>,
    /// Size of the pool, 1 to [`MAX_TASKS`].
    pub max_concurrent_tasks: usize,
    /// When images are pulled.
    pub pull: PullPolicy,
    /// How much of a task's output is kept: bytes, [`MIN_OUTPUT`] to [`MAX_OUTPUT`].
    pub max_output: usize,
    /// How long a task may run; zero: for ever.
    pub task_timeout: Duration,
    /// How long running tasks may go on after the first signal; may be zero.
    pub drain_timeout: Duration,
    /// How long an engine that has gone away is waited for; may be zero.
    pub engine_timeout: Duration,
    /// How often the control plane is asked for the state of each running task; zero: never.
    pub reconcile_interval: Duration,
    /// What becomes of tasks whose run has failed there.
    pub lost_runs: LostRuns,
    /// Versions of one sidecar image that are kept, 1 to [`MAX_KEPT_VOLUMES`].
    pub keep_sidecar_volumes: usize,
    /// Free space that the engine's disk must have for a new task, in bytes; 0: any.
    pub min_free_disk: u64,
    /// Give up after that many failed connections in a row; 0: never.
    pub reconnect_max_attempts: u32,
    /// Only failures within that time count; zero: all.
    pub reconnect_window: Duration,
}

impl Config {
    /// Puts the settings together. `cores` is the number of processors, for the default of the pool; `read_file`
    /// reads the key file.
    pub fn new(
        cli: &Cli,
        environment: &Environment,
        cores: usize,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let source = Source { environment };
        let (web_socket_url, server_root_url) = source.urls(cli)?;
        Ok(Self {
            api_key: source.api_key(cli, read_file)?,
            worker_id: source.worker_id(cli)?,
            web_socket_url,
            server_root_url,
            log_level: source.log_level(cli)?,
            cleanup: !cli.no_cleanup,
            volumes: volumes::parse_all(&cli.volumes)
                .map_err(|(value, right)| ConfigError::invalid("--volumes", &value, right))?,
            env: source.env(&cli.env)?,
            max_concurrent_tasks: source.max_concurrent_tasks(cli, cores)?,
            pull: source.pull(cli)?,
            max_output: source.max_output(cli)?,
            task_timeout: source.duration("--task-timeout", cli.task_timeout.as_deref(), 365 * DAY)?,
            drain_timeout: source.duration("--drain-timeout", cli.drain_timeout.as_deref(), 7 * DAY)?,
            engine_timeout: source.duration("--engine-timeout", cli.engine_timeout.as_deref(), DAY)?,
            reconcile_interval: source.duration(
                "--reconcile-interval",
                cli.reconcile_interval.as_deref(),
                DAY,
            )?,
            lost_runs: source.lost_runs(cli)?,
            keep_sidecar_volumes: source.keep_sidecar_volumes(cli)?,
            min_free_disk: source.min_free_disk(cli)?,
            reconnect_max_attempts: source.reconnect("OZ_RECONNECT_MAX_ATTEMPTS")?,
            reconnect_window: Duration::from_secs(source.reconnect("OZ_RECONNECT_WINDOW_SECONDS")?.into()),
        })
    }

    /// Where the link connects: the URL with the worker's id in its query, which may hold more.
    pub fn link_url(&self) -> String {
        url::with_query(&self.web_socket_url, "worker_id", &self.worker_id)
    }

    /// What to warn about when the key would go in clear to another machine.
    pub fn plain_text_warning(&self) -> Option<String> {
        let uri = &self.web_socket_url;
        (url::is_plain(uri) && !url::is_loopback(uri)).then(|| {
            let host = uri.host().unwrap_or_default();
            format!("the key and the tasks go to {host} without encryption; use wss:// in --web-socket-url")
        })
    }
}
