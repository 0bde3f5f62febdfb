//! The sub-commands: what each does, and its options.

use super::arguments::ArgumentsError;
use super::invocation::Invocation;
use super::monitoring::{Listen, METRICS_LISTEN, metrics_listen};
use super::settings::{Reader, Setting};
use super::table::{SETTINGS, SETTINGS_FILE};
use super::texts::{HELP, PRINT, VERSION};
use super::{Arguments, ConfigError, Occurs, read};
use crate::docker::Reference;
use crate::sys::environment::Environment;

/// A sub-command.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// The word that selects it, the first argument.
    pub name: &'static str,
    /// What it does, with its exit codes: one paragraph.
    pub help: &'static str,
    /// Its own options.
    pub options: &'static [Setting],
    /// Whether it takes the worker's settings too.
    pub takes_settings: bool,
}

/// The most characters of the options in a usage.
const USAGE: usize = 56;

const JSON: Setting =
    Setting { flag: Some("--json"), help: "Print one JSON object instead of text.", ..Setting::EMPTY };

const OF_WORKER: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--worker-id"),
        value_name: Some("ID"),
        help: "Show only the tasks of this worker. Without it, those of all workers that use the engine.",
        ..Setting::EMPTY
    },
    read: |given| read::not_blank(given, "must be the id of a worker, not blank"),
};

const FOLLOW: Reader<String> = Reader {
    setting: Setting {
        flag: Some("--follow"),
        value_name: Some("TASK"),
        help: "Print what the container of this task has written and writes, until it ends. TASK is the whole id of a task, the name \
               of its container, or at least 12 characters of the container's id.",
        ..Setting::EMPTY
    },
    read: |given| {
        read::not_blank(given, "must be the id of a task, or the name or the id of its container, not blank")
    },
};

const KEPT: Setting = Setting {
    flag: Some("--kept"),
    help: "Show the containers of failed tasks that --keep-failed keeps, instead of the tasks.",
    ..Setting::EMPTY
};

const FILE: Setting = Setting {
    help: "A file with variables, such as DOCKER_HOST, as for the worker. A file that cannot be read is a warning.",
    ..SETTINGS_FILE.setting
};

const METRICS_LISTEN_AT: Setting = Setting {
    help: "Where a worker of this host serves its state: the same setting as that of the worker.",
    ..METRICS_LISTEN.setting
};

/// Shows the tasks on the engine.
pub(crate) const STATUS: Command = Command {
    name: "status",
    help: "Show the tasks on the engine, and what each worker of this host reports about itself. It needs no API key. Exit code 1 \
           if the task of --follow is not there, 4 without an engine.",
    options: &[JSON, OF_WORKER.setting, KEPT, FOLLOW.setting, METRICS_LISTEN_AT, FILE, HELP, VERSION],
    takes_settings: false,
};

const IMAGE: Reader<Reference> = Reader {
    setting: Setting {
        flag: Some("--image"),
        value_name: Some("IMAGE"),
        help: "Also try this image for a task: pull it by --pull, and run `true` in a container with -v. What that made is removed.",
        ..Setting::EMPTY
    },
    read: read::image,
};

const SIDECAR: Reader<Reference> = Reader {
    setting: Setting {
        flag: Some("--sidecar"),
        value_name: Some("IMAGE"),
        help: "Also try this image for the agent: pull it, fill a volume with its files, and mount that in the container of --image. \
               What that made is removed.",
        ..Setting::EMPTY
    },
    read: read::image,
};

/// Tries everything that the worker needs.
pub(crate) const CHECK: Command = Command {
    name: "check",
    help: "Try everything that the worker needs, with its settings: the way to the control plane, the API key, and the engine. Print a \
           line for each step, with what to do if it failed. It claims no run. Exit code 1 if a step failed.",
    options: &[JSON, IMAGE.setting, SIDECAR.setting, HELP, VERSION],
    takes_settings: true,
};

const LISTEN: Setting = Setting {
    help: "Where the worker serves its pages: the value that the worker has.",
    ..METRICS_LISTEN.setting
};

/// Asks a running worker whether it makes progress.
pub(crate) const HEALTH: Command = Command {
    name: "health",
    help: "Ask the worker that runs on this host, or in this container, whether it makes progress: its page /healthz, at the address of \
           --metrics-listen. It is for health checks of containers, and does not depend on the control plane or the engine. Exit code \
           1 if the worker makes no progress or does not answer.",
    options: &[LISTEN, FILE, HELP, VERSION],
    takes_settings: false,
};

/// Every sub-command.
pub const COMMANDS: [&Command; 3] = [&CHECK, &STATUS, &HEALTH];

/// What `check` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    /// Print JSON.
    pub(crate) json: bool,
    /// Try this image for a task.
    pub(crate) image: Option<Reference>,
    /// Try this image for an agent.
    pub(crate) sidecar: Option<Reference>,
}

impl CheckOptions {
    /// Returns the options in the command line.
    ///
    /// # Errors
    /// An image's name is invalid.
    pub(crate) fn of(arguments: &Arguments) -> Result<Self, ConfigError> {
        let invocation = Invocation { arguments, environment: &Environment::default() };
        let (image, sidecar) = (invocation.read_if_given(&IMAGE)?, invocation.read_if_given(&SIDECAR)?);
        Ok(Self { json: arguments.has(&JSON), image, sidecar })
    }
}

/// What `status` is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusOptions {
    /// Print JSON.
    pub(crate) json: bool,
    /// Only tasks of this worker.
    pub(crate) worker_id: Option<String>,
    /// Print the output of this task.
    pub(crate) follow: Option<String>,
    /// List kept containers.
    pub(crate) kept: bool,
}

impl StatusOptions {
    /// Returns the options in the command line.
    ///
    /// # Errors
    /// One of them is blank.
    pub(crate) fn of(arguments: &Arguments) -> Result<Self, ConfigError> {
        let invocation = Invocation { arguments, environment: &Environment::default() };
        Ok(Self {
            json: arguments.has(&JSON),
            worker_id: invocation.read_if_given(&OF_WORKER)?,
            follow: invocation.read_if_given(&FOLLOW)?,
            kept: arguments.has(&KEPT),
        })
    }
}

/// Returns where the worker with these settings serves its pages.
///
/// # Errors
/// The setting is invalid.
pub(crate) fn served_at(
    arguments: &Arguments,
    environment: &Environment,
) -> Result<Option<Listen>, ConfigError> {
    metrics_listen(&Invocation { arguments, environment })
}

impl Command {
    /// The sub-command of this name.
    pub(super) fn of(name: &str) -> Option<&'static Self> {
        COMMANDS.into_iter().find(|command| command.name == name)
    }

    /// Its options, and the worker's settings if it takes them.
    pub(super) fn flags(&self) -> impl Iterator<Item = &'static Setting> + use<> {
        let options = self.options;
        let shared: &[Setting] = if self.takes_settings { SETTINGS } else { &[] };
        let is_own = move |setting: &&Setting| {
            setting.flag == PRINT.setting.flag || options.iter().any(|own| own.flag == setting.flag)
        };
        options.iter().chain(shared.iter().filter(move |setting| !is_own(setting)))
    }

    /// One line, as in `status [--json] [--worker-id ID]`. Options that do not fit are `[OPTION...]`.
    pub(super) fn usage(&self) -> String {
        let options = self.options.iter().filter(|option| option.occurs != Occurs::Alone);
        let option = |option: &Setting| {
            let value = option.value_name.map(|name| format!(" {name}")).unwrap_or_default();
            format!(" [{}{value}]", option.flag.unwrap_or_default())
        };
        let mut shown = String::new();
        for option in options.map(option) {
            if shown.len() + option.len() > USAGE {
                shown.push_str(" [OPTION...]");
                break;
            }
            shown.push_str(&option);
        }
        let settings = if self.takes_settings { " [SETTING...]" } else { "" };
        format!("{}{shown}{settings}", self.name)
    }
}

/// The error for a first argument that is neither a flag nor a sub-command. It does not show the argument, which may be a key.
pub(super) fn unknown() -> ArgumentsError {
    ArgumentsError::UnknownCommand(COMMANDS.map(|command| command.name).join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(line: &[&str]) -> Result<Arguments, ArgumentsError> {
        Arguments::parse(line.iter().map(Into::into))
    }

    #[test]
    fn a_command_has_its_own_options() {
        let arguments = parse(&["status", "--json", "--worker-id=w", "--follow", "t"]).unwrap();
        assert_eq!(arguments.command(), Some(&STATUS));
        let expected =
            StatusOptions { json: true, worker_id: Some("w".into()), follow: Some("t".into()), kept: false };
        assert_eq!(StatusOptions::of(&arguments).unwrap(), expected);
        let nothing = StatusOptions { json: false, worker_id: None, follow: None, kept: false };
        assert_eq!(StatusOptions::of(&parse(&["status"]).unwrap()).unwrap(), nothing);
        assert_eq!(parse(&["--worker-id", "w"]).unwrap().command(), None);
        for (line, flag) in [(["--json"].as_slice(), "--json"), (&["status", "--api-key", "k"], "--api-key")]
        {
            assert_eq!(parse(line), Err(ArgumentsError::UnknownFlag(flag.into())));
        }
    }

    #[test]
    fn a_blank_value_of_an_option_is_an_error_that_names_it() {
        for command in COMMANDS {
            for option in command.options.iter().filter(|option| option.value_name.is_some()) {
                let flag = option.flag.unwrap();
                for (argument, value) in [(format!("{flag}="), ""), (format!("{flag}=  "), "  ")] {
                    let arguments = parse(&[command.name, &argument]).unwrap();
                    let environment = Environment::default();
                    let error = StatusOptions::of(&arguments)
                        .map(drop)
                        .and(CheckOptions::of(&arguments).map(drop))
                        .and(served_at(&arguments, &environment).map(drop))
                        .and(Config::settings_file(&arguments, &environment).map(drop));
                    let error = error.unwrap_err().to_string();
                    assert!(error.starts_with(&format!("invalid {flag} {value:?}: must be ")), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_command_may_take_the_settings_of_the_worker() {
        let arguments = parse(&["check", "--worker-id", "w", "--json"]).unwrap();
        assert_eq!(arguments.command(), Some(&CHECK));
        assert!(
            CheckOptions::of(&arguments).unwrap().json
                && arguments.has(&super::super::table::WORKER_ID.setting)
        );
        assert_eq!(parse(&["check", "--print", "man"]), Err(ArgumentsError::UnknownFlag("--print".into())));
    }

    #[test]
    fn health_asks_where_the_worker_listens() {
        let port = |line: &[&str], variable: &str| {
            let environment = [("OZ_METRICS_LISTEN", variable)].into_iter().collect();
            served_at(&parse(line).unwrap(), &environment).unwrap().map(|(_, port)| port)
        };
        assert_eq!(port(&["health"], "9464"), Some(9464));
        assert_eq!(port(&["health", "--metrics-listen", "81"], "9464"), Some(81));
        assert_eq!(port(&["health"], ""), None);
    }

    #[test]
    fn an_unknown_command_is_an_error_that_does_not_show_it() {
        for line in [&["hunter2"][..], &["stop"], &["status ", "--json"]] {
            let error = parse(line).unwrap_err().to_string();
            assert!(
                error.starts_with("argument 1 is neither a flag nor a sub-command (check, status"),
                "{error}"
            );
            assert!(!error.contains("hunter2") && error.ends_with("; see --help"), "{error}");
        }
        let late = parse(&["--worker-id", "w", "status"]).unwrap_err().to_string();
        assert!(
            late.contains("argument 3 is not a flag") && late.contains("sub-command comes first"),
            "{late}"
        );
    }

    #[test]
    fn each_option_has_a_flag_and_a_help() {
        for command in COMMANDS {
            assert!(command.options.iter().all(|option| option.flag.is_some() && !option.help.is_empty()));
        }
        assert_eq!(STATUS.usage(), "status [--json] [--worker-id ID] [--kept] [--follow TASK] [OPTION...]");
    }
}
