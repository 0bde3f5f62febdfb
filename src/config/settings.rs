//! The table of settings, and the help text made from it.
//!
//! Owns what a setting is called, where it may come from and what it is by default, in words. It must not know how a
//! value is checked or what it is used for.

use std::fmt::Write as _;

use crate::exit::Exit;

/// The widest line of the help text, in characters.
const WIDTH: usize = 100;
/// Where the description of a setting begins.
const INDENT: &str = "          ";

/// One setting: a flag, a variable, or both. The source of the help text, the README's table, the man page and the
/// completions.
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
    /// The default, in words; `None` when it is off or has to be given.
    pub default: Option<&'static str>,
    /// What it does, with its bounds. One paragraph, no final line break.
    pub help: &'static str,
}

impl Setting {
    /// Whether `name` is one of the flags of this setting, dashes included.
    pub fn is_called(&self, name: &str) -> bool {
        self.flag == Some(name) || self.short == Some(name)
    }
}

const EMPTY: Setting =
    Setting { flag: None, short: None, variable: None, value_name: None, default: None, help: "" };

/// Every setting, in the order of the help text.
pub const SETTINGS: &[Setting] = &[
    Setting {
        flag: Some("--api-key"),
        variable: Some("OZ_API_KEY"),
        value_name: Some("KEY"),
        help: "The control plane's key for workers. Other users of this machine can read a command line, so prefer \
               the variable or a file. This, --api-key-file or one of their variables is required.",
        ..EMPTY
    },
    Setting {
        flag: Some("--api-key-file"),
        variable: Some("OZ_API_KEY_FILE"),
        value_name: Some("PATH"),
        help: "A file whose first line is the key, at most 64 KiB.",
        ..EMPTY
    },
    Setting {
        flag: Some("--worker-id"),
        variable: Some("OZ_WORKER_ID"),
        value_name: Some("ID"),
        help: "The name of this worker, at most 256 bytes. Required, and no two workers may have the same.",
        ..EMPTY
    },
    Setting {
        flag: Some("--web-socket-url"),
        variable: Some("OZ_WS_URL"),
        value_name: Some("URL"),
        default: Some("ws://localhost:8080/api/v1/selfhosted/worker/ws"),
        help: "Where the control plane takes workers: ws:// or wss://. When only --server-root-url is given, it is \
               on the same host and port.",
        ..EMPTY
    },
    Setting {
        flag: Some("--server-root-url"),
        variable: Some("OZ_SERVER_ROOT_URL"),
        value_name: Some("URL"),
        default: Some("http://localhost:8080"),
        help: "The control plane's root, as the tasks reach it: http:// or https://. When only --web-socket-url is \
               given, it is the same host and port.",
        ..EMPTY
    },
    Setting {
        flag: Some("--log-level"),
        variable: Some("OZ_LOG_LEVEL"),
        value_name: Some("LEVEL"),
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
        help: "Mount a folder of the host, or a named volume, into every task container. May be repeated. MODE is a \
               comma-separated list such as ro or rw,z.",
        ..EMPTY
    },
    Setting {
        flag: Some("--env"),
        short: Some("-e"),
        value_name: Some("KEY[=VALUE]"),
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
    Setting { flag: Some("--help"), short: Some("-h"), help: "Print this text.", ..EMPTY },
    Setting { flag: Some("--version"), short: Some("-V"), help: "Print the version.", ..EMPTY },
];

/// What `--help` prints, with a final line break.
pub fn help() -> String {
    let mut text = String::from(
        "Runs the agent tasks of an Oz control plane in Docker containers on this machine.\n\n\
         Usage: oz-agent-worker --worker-id ID [SETTING...]\n\n\
         Settings (a flag wins over its variable, an empty variable counts as unset):\n",
    );
    for setting in SETTINGS {
        describe(setting, &mut text);
    }
    text.push_str("\nExit codes:\n");
    for (exit, meaning) in Exit::ALL {
        let code = exit.code();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {code:<8}{meaning}");
    }
    text
}

fn describe(setting: &Setting, text: &mut String) {
    let names: Vec<_> = [setting.short, setting.flag].into_iter().flatten().collect();
    let names = if names.is_empty() { setting.variable.unwrap_or_default().into() } else { names.join(", ") };
    let value = setting.value_name.map(|name| format!(" {name}")).unwrap_or_default();
    let _ = writeln!(text, "\n  {names}{value}");
    wrap(setting.help, text);
    if let (Some(_), Some(variable)) = (setting.flag, setting.variable) {
        let _ = writeln!(text, "{INDENT}Variable: {variable}");
    }
    if let Some(default) = setting.default {
        let _ = writeln!(text, "{INDENT}Default: {default}");
    }
}

fn wrap(paragraph: &str, text: &mut String) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        if column > 0 && column + 1 + word.len() <= WIDTH {
            text.push(' ');
            column += 1;
        } else {
            text.push_str(if column > 0 { "\n" } else { "" });
            text.push_str(INDENT);
            column = INDENT.len();
        }
        column += word.len();
        text.push_str(word);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_everything_and_stays_narrow() {
        let help = help();
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
        for setting in SETTINGS {
            let names = [setting.flag, setting.short, setting.variable, setting.value_name, setting.default];
            for name in names.into_iter().flatten() {
                assert!(help.contains(name), "{name}");
            }
            for word in setting.help.split_whitespace() {
                assert!(help.contains(word), "{word}");
            }
        }
        for (exit, meaning) in Exit::ALL {
            let code = exit.code();
            assert!(help.contains(&format!("\n  {code:<8}{meaning}\n")), "{code}");
        }
        assert!(!help.contains("\n\n\n") && help.ends_with('\n'));
    }

    #[test]
    fn a_line_is_filled_up_to_the_last_column_and_no_further() {
        let (mut fits, mut breaks) = (String::new(), String::new());
        wrap(&format!("{} {}", "a".repeat(80), "b".repeat(9)), &mut fits);
        wrap(&format!("{} {}", "a".repeat(80), "b".repeat(10)), &mut breaks);
        assert_eq!((fits.lines().count(), breaks.lines().count()), (1, 2));
        assert_eq!(fits.len(), WIDTH + 1);
    }

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
}
