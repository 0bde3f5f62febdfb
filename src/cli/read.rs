//! One setting at a time: where its value comes from and whether it is a good one.
//!
//! Owns precedence (flag, variable, default) and bounds. It must not know the wording of the help text.

use std::io;
use std::path::Path;
use std::time::Duration;

use http::Uri;
use log::LevelFilter;

use super::settings::{SETTINGS, Setting};
use super::units::{duration, number, size};
use super::words::{LEVELS, LOST_RUNS, PAGES, POLICIES};
use super::{
    ConfigError, Environment, KEY_FILE_LIMIT, LostRuns, MAX_KEPT_VOLUMES, MAX_OUTPUT, MAX_TASKS, MIN_OUTPUT,
    Page, PullPolicy, WORKER_ID_LIMIT, url,
};
use crate::cli::arguments::Cli;
use crate::net::url::printable;
use crate::secret::Secret;

/// Where values come from that were not typed.
pub(super) struct Source<'a> {
    pub(super) environment: &'a Environment,
}

/// A value and what it was set with.
struct Given<'a> {
    setting: String,
    value: &'a str,
}

impl Given<'_> {
    fn invalid(&self, right: impl Into<String>) -> ConfigError {
        ConfigError::invalid(&self.setting, self.value, right)
    }

    fn hidden(&self, right: impl Into<String>) -> ConfigError {
        ConfigError::hidden(&self.setting, right)
    }

    /// A whole number from 1.
    fn count(&self, most: usize) -> Result<usize, ConfigError> {
        number(self.value)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| (1..=most).contains(count))
            .ok_or_else(|| self.invalid(format!("must be a whole number from 1 to {most}")))
    }

    /// One of a list of words, in any case.
    fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, ConfigError> {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(self.value.trim()));
        let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(|(_, meaning)| *meaning).ok_or_else(|| self.invalid(format!("must be one of {}", list())))
    }
}

fn setting(flag: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.is_called(flag))
}

/// What `--print` asks for, which needs no other setting.
pub fn page(word: &str) -> Result<Page, ConfigError> {
    Given { setting: "--print".into(), value: word }.word(&PAGES)
}

fn either(flag: &str, variable: &str) -> String {
    format!("{flag} (or {variable})")
}

impl<'a> Source<'a> {
    /// A variable that is set and not empty.
    fn variable(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.environment.get(name).map(|value| value.to_str().ok_or(())) {
            None | Some(Ok("")) => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(())) => Err(ConfigError::hidden(name, "must be valid UTF-8")),
        }
    }

    /// What was typed, or else the variable of that flag.
    fn given(&self, flag: &str, typed: Option<&'a str>) -> Result<Option<Given<'a>>, ConfigError> {
        if let Some(value) = typed {
            return Ok(Some(Given { setting: flag.into(), value }));
        }
        let Some(variable) = setting(flag).and_then(|setting| setting.variable) else { return Ok(None) };
        let value = self.variable(variable)?;
        Ok(value.map(|value| Given { setting: format!("{variable} ({flag})"), value }))
    }

    /// The same, or else the default that the table names.
    fn given_or_default(&self, flag: &str, typed: Option<&'a str>) -> Result<Given<'a>, ConfigError> {
        let default = || setting(flag).and_then(|setting| setting.default).unwrap_or_default();
        let given = self.given(flag, typed)?;
        Ok(given.unwrap_or_else(|| Given { setting: flag.into(), value: default() }))
    }

    pub(super) fn api_key(
        &self,
        cli: &'a Cli,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Secret, ConfigError> {
        if cli.api_key.is_some() && cli.api_key_file.is_some() {
            return Err(ConfigError::hidden("--api-key", "must not be given together with --api-key-file"));
        }
        let file = cli.api_key_file.as_deref();
        if file.is_none()
            && let Some(key) = self.given("--api-key", cli.api_key.as_ref().map(Secret::expose))?
        {
            return check_key(&key);
        }
        let Some(file) = self.given("--api-key-file", file)? else {
            let all = format!(
                "{} or {}",
                either("--api-key", "OZ_API_KEY"),
                either("--api-key-file", "OZ_API_KEY_FILE")
            );
            return Err(ConfigError::missing(&all, "must be set to the control plane's key for workers"));
        };
        let text = read_file(Path::new(file.value))
            .map_err(|error| ConfigError::key_file(&file.setting, file.value, error))?;
        if text.len() > KEY_FILE_LIMIT {
            return Err(file.invalid("must be a file of at most 64 KiB with the key on its first line"));
        }
        check_key(&Given { setting: file.setting, value: text.lines().next().unwrap_or_default() })
    }

    pub(super) fn worker_id(&self, cli: &'a Cli) -> Result<String, ConfigError> {
        let Some(given) = self.given("--worker-id", cli.worker_id.as_deref())? else {
            let names = either("--worker-id", "OZ_WORKER_ID");
            return Err(ConfigError::missing(&names, "must be set to a name that no other worker has"));
        };
        let id = given.value.trim();
        if id.is_empty() || id.len() > WORKER_ID_LIMIT {
            return Err(given.invalid(format!("must be 1 to {WORKER_ID_LIMIT} bytes and not blank")));
        }
        if id.chars().any(char::is_control) {
            return Err(given.invalid("must not have control characters"));
        }
        Ok(id.into())
    }

    /// Both addresses; the one that is not given is derived from the other.
    pub(super) fn urls(&self, cli: &'a Cli) -> Result<(Uri, String), ConfigError> {
        let (link_flag, root_flag) = ("--web-socket-url", "--server-root-url");
        let (link_typed, root_typed) = (cli.web_socket_url.as_deref(), cli.server_root_url.as_deref());
        let link = self.given(link_flag, link_typed)?;
        let root = self.given(root_flag, root_typed)?;
        let (link, root) = match (link, root) {
            (Some(link), None) => {
                let uri = link_url(&link)?;
                let root = url::derive(&uri, url::HTTP, "/").map_err(|right| bad_url(&link, right))?;
                (uri, root)
            }
            (None, Some(root)) => {
                let uri = root_url(&root)?;
                let derived = url::derive(&uri, url::WEB_SOCKET, url::WORKER_PATH);
                (derived.map_err(|right| bad_url(&root, right))?, uri)
            }
            (link, root) => {
                let link = link.map_or_else(|| self.given_or_default(link_flag, None), Ok)?;
                let root = root.map_or_else(|| self.given_or_default(root_flag, None), Ok)?;
                (link_url(&link)?, root_url(&root)?)
            }
        };
        Ok((link, root.to_string().trim_end_matches('/').into()))
    }

    pub(super) fn log_level(&self, cli: &'a Cli) -> Result<LevelFilter, ConfigError> {
        self.given_or_default("--log-level", cli.log_level.as_deref())?.word(&LEVELS)
    }

    pub(super) fn pull(&self, cli: &'a Cli) -> Result<PullPolicy, ConfigError> {
        self.given_or_default("--pull", cli.pull.as_deref())?.word(&POLICIES)
    }

    pub(super) fn max_concurrent_tasks(&self, cli: &'a Cli, cores: usize) -> Result<usize, ConfigError> {
        match self.given("--max-concurrent-tasks", cli.max_concurrent_tasks.as_deref())? {
            Some(given) => given.count(MAX_TASKS),
            None => Ok(cores.saturating_mul(2).clamp(4, MAX_TASKS)),
        }
    }

    pub(super) fn max_output(&self, cli: &'a Cli) -> Result<usize, ConfigError> {
        let given = self.given_or_default("--max-output", cli.max_output.as_deref())?;
        let bytes = size(given.value).and_then(|bytes| usize::try_from(bytes).ok());
        bytes.filter(|bytes| (MIN_OUTPUT..=MAX_OUTPUT).contains(bytes)).ok_or_else(|| {
            given.invalid(
                "must be a number of bytes from 1024 to 64MiB, or one with KiB, k, MiB or m after it",
            )
        })
    }

    /// A duration of so many seconds at most.
    pub(super) fn duration(
        &self,
        flag: &'static str,
        typed: Option<&'a str>,
        most: u64,
    ) -> Result<Duration, ConfigError> {
        let given = self.given_or_default(flag, typed)?;
        duration(given.value).filter(|seconds| *seconds <= most).map(Duration::from_secs).ok_or_else(|| {
            given.invalid(format!(
                "must be a duration such as 90s, 15m, 8h or 1h30m, or 0, and at most {}d",
                most / super::DAY
            ))
        })
    }

    pub(super) fn lost_runs(&self, cli: &'a Cli) -> Result<LostRuns, ConfigError> {
        self.given_or_default("--lost-runs", cli.lost_runs.as_deref())?.word(&LOST_RUNS)
    }

    pub(super) fn keep_sidecar_volumes(&self, cli: &'a Cli) -> Result<usize, ConfigError> {
        self.given_or_default("--keep-sidecar-volumes", cli.keep_sidecar_volumes.as_deref())?
            .count(MAX_KEPT_VOLUMES)
    }

    pub(super) fn min_free_disk(&self, cli: &'a Cli) -> Result<u64, ConfigError> {
        let given = self.given_or_default("--min-free-disk", cli.min_free_disk.as_deref())?;
        size(given.value).ok_or_else(|| {
            given.invalid(
                "must be a number of bytes, or one with KiB, MiB, GiB or TiB (or k, m, g, t) after it",
            )
        })
    }

    /// One of the two settings that only a variable sets: 0 when it is not set.
    pub(super) fn reconnect(&self, variable: &str) -> Result<u32, ConfigError> {
        let Some(value) = self.variable(variable)? else { return Ok(0) };
        let right = || format!("must be a whole number from 0 to {}", u32::MAX);
        let number = number(value).and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| ConfigError::invalid(variable, value, right()))
    }

    /// The variables of the tasks; of two with one name the later one stays.
    pub(super) fn env(&self, typed: &[Secret]) -> Result<Vec<(String, Secret)>, ConfigError> {
        let mut variables: Vec<(String, Secret)> = Vec::with_capacity(typed.len());
        for entry in typed {
            let (key, value) = match entry.expose().split_once('=') {
                Some((key, value)) => (check_variable_name(key)?, value),
                None => (check_variable_name(entry.expose())?, self.own_variable(entry.expose())?),
            };
            if value.contains('\0') {
                return Err(ConfigError::hidden(&format!("--env {key}"), "must not have a NUL in its value"));
            }
            variables.retain(|(other, _)| other != key);
            variables.push((key.into(), Secret::new(value)));
        }
        Ok(variables)
    }

    /// A variable of the worker that is passed on as it is, even empty.
    fn own_variable(&self, name: &str) -> Result<&'a str, ConfigError> {
        let setting = format!("--env {name}");
        let value = self.environment.get(name).ok_or_else(|| {
            ConfigError::hidden(
                &setting,
                "must be KEY=VALUE, or a variable that is set where the worker runs",
            )
        })?;
        value
            .to_str()
            .ok_or_else(|| ConfigError::hidden(&setting, "must be valid UTF-8 in the worker's environment"))
    }
}

/// Not blank, and nothing that a header cannot carry; the value is never shown.
fn check_key(given: &Given<'_>) -> Result<Secret, ConfigError> {
    // Editors of some systems begin a file with a byte order mark.
    let key = given.value.trim_start_matches('\u{feff}').trim();
    if key.is_empty() {
        return Err(given.hidden("must not be blank where the key is expected"));
    }
    if !key.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(given.hidden("must have a key of ASCII characters without control characters"));
    }
    Ok(Secret::new(key))
}

fn bad_url(given: &Given<'_>, right: String) -> ConfigError {
    ConfigError::invalid(&given.setting, &printable(given.value), right)
}

fn link_url(given: &Given<'_>) -> Result<Uri, ConfigError> {
    let uri = url::parse(given.value.trim(), url::WEB_SOCKET).map_err(|right| bad_url(given, right))?;
    let names_worker = |query: &str| query.split('&').any(|part| part.starts_with("worker_id="));
    if uri.query().is_some_and(names_worker) {
        return Err(bad_url(given, "must not have worker_id in its query; --worker-id sets it".into()));
    }
    Ok(uri)
}

fn root_url(given: &Given<'_>) -> Result<Uri, ConfigError> {
    let uri = url::parse(given.value.trim(), url::HTTP).map_err(|right| bad_url(given, right))?;
    if uri.query().is_some() {
        return Err(bad_url(given, "must not have a query (?...)".into()));
    }
    Ok(uri)
}

fn check_variable_name(name: &str) -> Result<&str, ConfigError> {
    let good = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control());
    good.then_some(name).ok_or_else(|| {
        ConfigError::invalid(
            "--env",
            name,
            "must be KEY=VALUE or KEY, with a name without spaces or control characters",
        )
    })
}
