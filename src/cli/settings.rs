//! The table of settings, from which the help text and all other pages about them are made.
//!
//! Owns what a setting is called, where it may come from and what it is by default, in words. It must not know how a
//! value is checked or what it is used for.

use super::words::{LEVELS, LOST_RUNS, PAGES, POLICIES, names};

/// What can be offered to somebody who types a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueHint {
    /// Nothing: it can be anything.
    Any,
    /// These are all.
    Words(&'static [&'static str]),
    /// It is the path of a file on this machine.
    Path,
    /// It begins with such a path, and goes on.
    PathFirst,
}

/// How often a flag can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occurs {
    /// At most once.
    Once,
    /// As often as one likes.
    Many,
    /// It prints something and ends, whatever else is given.
    Alone,
}

/// One setting: a flag, a variable, or both. The source of the help text, the README's table, the man page, the
/// completions and the sample of an environment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The long flag with its dashes; `None` for what only a variable sets.
    pub flag: Option<&'static str>,
    /// The one-letter flag with its dash.
    pub short: Option<&'static str>,
    /// The environment variable.
    pub variable: Option<&'static str>,
    /// What the value is called; `None` for a switch, which takes none.
    pub value_name: Option<&'static str>,
    /// What the value can be.
    pub values: ValueHint,
    /// How often it can be given.
    pub occurs: Occurs,
    /// The default, in words; `None` when it is off or has to be given.
    pub default: Option<&'static str>,
    /// When it has to be set, in words; `None` when it never has to.
    pub required: Option<&'static str>,
    /// What it does, with its bounds. One paragraph, no final line break.
    pub help: &'static str,
}

impl Setting {
    /// Whether `name` is one of the flags of this setting, dashes included.
    pub fn is_called(&self, name: &str) -> bool {
        self.flag == Some(name) || self.short == Some(name)
    }
}

const EMPTY: Setting = Setting {
    flag: None,
    short: None,
    variable: None,
    value_name: None,
    values: ValueHint::Any,
    occurs: Occurs::Once,
    default: None,
    required: None,
    help: "",
};

/// Every setting, in the order of the help text: first what has to be set.
pub const SETTINGS: &[Setting] = &[
    Setting {
        flag: Some("--api-key"),
        variable: Some("OZ_API_KEY"),
        value_name: Some("KEY"),
        required: Some("This or OZ_API_KEY_FILE is required."),
        help: "The control plane's key for workers. Other users of this machine can read a command line, so prefer \
               the variable or a file. This, --api-key-file or one of their variables is required.",
        ..EMPTY
    },
    Setting {
        flag: Some("--api-key-file"),
        variable: Some("OZ_API_KEY_FILE"),
        value_name: Some("PATH"),
        values: ValueHint::Path,
        required: Some("This or OZ_API_KEY is required."),
        help: "A file whose first line is the key, at most 64 KiB.",
        ..EMPTY
    },
    Setting {
        flag: Some("--worker-id"),
        variable: Some("OZ_WORKER_ID"),
        value_name: Some("ID"),
        required: Some("Required."),
        help: "The name of this worker, at most 256 bytes. Required, and no two workers may have the same.",
        ..EMPTY
    },
    Setting {
        flag: Some("--web-socket-url"),
        variable: Some("OZ_WS_URL"),
        value_name: Some("URL"),
        default: Some("ws://localhost:8080/api/v1/selfhosted/worker/ws"),
        required: Some("Required, this or the other URL, unless the control plane is on this machine."),
        help: "Where the control plane takes workers: ws:// or wss://. When only --server-root-url is given, it is \
               on the same host and port.",
        ..EMPTY
    },
    Setting {
        flag: Some("--server-root-url"),
        variable: Some("OZ_SERVER_ROOT_URL"),
        value_name: Some("URL"),
        default: Some("http://localhost:8080"),
        required: Some("Required, this or the other URL, unless the control plane is on this machine."),
        help: "The control plane's root, as the tasks reach it: http:// or https://. When only --web-socket-url is \
               given, it is the same host and port.",
        ..EMPTY
    },
    Setting {
        flag: Some("--log-level"),
        variable: Some("OZ_LOG_LEVEL"),
        value_name: Some("LEVEL"),
        values: ValueHint::Words(&names(&LEVELS)),
        default: Some("info"),
        help: "What is logged to stderr: debug, info, warn or error.",
        ..EMPTY
    },
    Setting {
        flag: Some("--no-cleanup"),
        help: "Keep the task containers when they have ended, for debugging.",
        ..EMPTY
    },
    Setting {
        flag: Some("--volumes"),
        short: Some("-v"),
        value_name: Some("HOST:CONTAINER[:MODE]"),
        values: ValueHint::PathFirst,
        occurs: Occurs::Many,
        help: "Mount a folder of the host, or a named volume, into every task container. May be repeated. MODE is a \
               comma-separated list such as ro or rw,z.",
        ..EMPTY
    },
    Setting {
        flag: Some("--env"),
        short: Some("-e"),
        value_name: Some("KEY[=VALUE]"),
        occurs: Occurs::Many,
        help: "Set a variable in every task container; KEY alone takes the value from the worker's own \
               environment. May be repeated, a later one wins.",
        ..EMPTY
    },
    Setting {
        flag: Some("--max-concurrent-tasks"),
        variable: Some("OZ_MAX_CONCURRENT_TASKS"),
        value_name: Some("COUNT"),
        default: Some("twice the cores, at least 4"),
        help: "How many tasks run at the same time, 1 to 1024.",
        ..EMPTY
    },
    Setting {
        flag: Some("--pull"),
        variable: Some("OZ_PULL"),
        value_name: Some("POLICY"),
        values: ValueHint::Words(&names(&POLICIES)),
        default: Some("auto"),
        help: "When images are pulled. auto: always, but an image that is here is used when the pull fails; always: \
               no such fallback; missing: only when it is not here; never: not at all.",
        ..EMPTY
    },
    Setting {
        flag: Some("--max-output"),
        value_name: Some("BYTES"),
        default: Some("4MiB"),
        help: "How much of a task's output is reported, 1024 bytes to 64 MiB; the middle of a longer one is left \
               out. KiB (or k) and MiB (or m) may follow the number.",
        ..EMPTY
    },
    Setting {
        flag: Some("--task-timeout"),
        variable: Some("OZ_TASK_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("8h"),
        help: "How long a task may run, counted from its container's start, across restarts of the worker too; 0 \
               for as long as it likes, at most 365d. A duration is a number with s, m, h or d after it, as 90s or \
               1h30m; a number alone counts seconds.",
        ..EMPTY
    },
    Setting {
        flag: Some("--drain-timeout"),
        variable: Some("OZ_DRAIN_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("0"),
        help: "How long running tasks may go on after the first signal, while no new ones are taken, at most 7d. \
               Then, or at the next signal, they are stopped.",
        ..EMPTY
    },
    Setting {
        flag: Some("--engine-timeout"),
        variable: Some("OZ_ENGINE_TIMEOUT"),
        value_name: Some("DURATION"),
        default: Some("5m"),
        help: "How long an engine that has gone away (a restart, an upgrade) is waited for before the tasks that need \
               it fail, at most 1d.",
        ..EMPTY
    },
    Setting {
        flag: Some("--reconcile-interval"),
        variable: Some("OZ_RECONCILE_INTERVAL"),
        value_name: Some("DURATION"),
        default: Some("60s"),
        help: "How often the control plane is asked whether each running task is still wanted, also right after a \
               reconnect; 0 never asks, at most 1d.",
        ..EMPTY
    },
    Setting {
        flag: Some("--lost-runs"),
        variable: Some("OZ_LOST_RUNS"),
        value_name: Some("WHAT"),
        values: ValueHint::Words(&names(&LOST_RUNS)),
        default: Some("stop"),
        help: "What to do with a task whose run the control plane has failed meanwhile, as it does when the connection \
               ends. stop: stop it; finish: let it go on to its end and report. A run that was cancelled there is \
               always stopped.",
        ..EMPTY
    },
    Setting {
        flag: Some("--keep-sidecar-volumes"),
        variable: Some("OZ_KEEP_SIDECAR_VOLUMES"),
        value_name: Some("COUNT"),
        default: Some("2"),
        help: "How many unpacked versions of one sidecar image are kept, the newest included, 1 to 1000; older ones \
               that no container uses are removed.",
        ..EMPTY
    },
    Setting {
        flag: Some("--min-free-disk"),
        variable: Some("OZ_MIN_FREE_DISK"),
        value_name: Some("BYTES"),
        default: Some("1GiB"),
        help: "New tasks are refused while the engine's disk has less free space than that, when the engine is on this \
               machine; 0 does not look. KiB, MiB, GiB or TiB (or k, m, g, t) may follow the number.",
        ..EMPTY
    },
    Setting {
        variable: Some("OZ_RECONNECT_MAX_ATTEMPTS"),
        value_name: Some("COUNT"),
        default: Some("0"),
        help: "Give up after that many failed connections in a row; 0 never does.",
        ..EMPTY
    },
    Setting {
        variable: Some("OZ_RECONNECT_WINDOW_SECONDS"),
        value_name: Some("SECONDS"),
        default: Some("0"),
        help: "Count only the failures of the last so many seconds for OZ_RECONNECT_MAX_ATTEMPTS; 0 counts all.",
        ..EMPTY
    },
    Setting {
        flag: Some("--print"),
        value_name: Some("WHAT"),
        values: ValueHint::Words(&names(&PAGES)),
        occurs: Occurs::Alone,
        help: "Print the man page (man), the completions for a shell (bash, zsh or fish) or a sample of an environment \
               file (environment).",
        ..EMPTY
    },
    Setting {
        flag: Some("--help"),
        short: Some("-h"),
        occurs: Occurs::Alone,
        help: "Print this text.",
        ..EMPTY
    },
    Setting {
        flag: Some("--version"),
        short: Some("-V"),
        occurs: Occurs::Alone,
        help: "Print the version.",
        ..EMPTY
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_given_twice_and_each_setting_can_be_set() {
        let mut names: Vec<_> =
            SETTINGS.iter().flat_map(|s| [s.flag, s.short, s.variable]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(SETTINGS.iter().all(|s| s.flag.is_some() || s.variable.is_some()));
    }

    #[test]
    fn what_has_to_be_set_comes_first_and_can_be_set_by_a_variable() {
        let first = SETTINGS.iter().take_while(|setting| setting.required.is_some()).count();
        assert_eq!((first, SETTINGS.iter().filter(|setting| setting.required.is_some()).count()), (5, 5));
        assert!(SETTINGS.iter().take(first).all(|setting| setting.variable.is_some()));
    }

    #[test]
    fn each_word_that_a_value_can_be_is_explained_and_the_default_is_one_of_them() {
        for setting in SETTINGS {
            let ValueHint::Words(words) = setting.values else { continue };
            let is_said =
                |word: &&str| setting.help.split(|c: char| !c.is_ascii_lowercase()).any(|said| said == *word);
            assert!(words.iter().all(is_said), "{setting:?}");
            assert!(setting.default.is_none_or(|default| words.contains(&default)), "{setting:?}");
        }
    }
}
