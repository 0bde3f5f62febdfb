//! The command line: what was typed, and nothing else.
//!
//! Owns flags, their spelling and their values as strings. It must not know defaults, the environment or what a good
//! value is. Its errors never repeat a value, nor anything that may be one: a mistyped `--apikey=...` is a key too.

use std::ffi::OsString;

use pico_args::{Arguments, Error as PicoError};

use crate::cli::{SETTINGS, Setting};
use crate::secret::Secret;

/// A longer name than that is no mistyped flag.
const LONGEST_NAME: usize = 32;

/// What was typed. A `None` was not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cli {
    /// `-h`, `--help`
    pub help: bool,
    /// `-V`, `--version`
    pub version: bool,
    /// `--no-cleanup`
    pub no_cleanup: bool,
    /// `--print`
    pub print: Option<String>,
    /// `--api-key`
    pub api_key: Option<Secret>,
    /// `--api-key-file`
    pub api_key_file: Option<String>,
    /// `--worker-id`
    pub worker_id: Option<String>,
    /// `--web-socket-url`
    pub web_socket_url: Option<String>,
    /// `--server-root-url`
    pub server_root_url: Option<String>,
    /// `--log-level`
    pub log_level: Option<String>,
    /// `-v`, `--volumes`, in the order typed
    pub volumes: Vec<String>,
    /// `-e`, `--env`, in the order typed: `KEY=VALUE` or `KEY`
    pub env: Vec<Secret>,
    /// `--max-concurrent-tasks`
    pub max_concurrent_tasks: Option<String>,
    /// `--pull`
    pub pull: Option<String>,
    /// `--max-output`
    pub max_output: Option<String>,
    /// `--task-timeout`
    pub task_timeout: Option<String>,
    /// `--drain-timeout`
    pub drain_timeout: Option<String>,
    /// `--engine-timeout`
    pub engine_timeout: Option<String>,
    /// `--reconcile-interval`
    pub reconcile_interval: Option<String>,
    /// `--lost-runs`
    pub lost_runs: Option<String>,
    /// `--keep-sidecar-volumes`
    pub keep_sidecar_volumes: Option<String>,
    /// `--min-free-disk`
    pub min_free_disk: Option<String>,
}

/// Why a command line was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CliError {
    /// No setting has a flag of that name.
    #[error("unknown flag {0}; see --help")]
    UnknownFlag(String),
    /// Something that is neither a flag nor the value of one, by its position (the first argument is 1).
    #[error("argument {0} is neither a flag nor the value of one; see --help")]
    Stray(usize),
    /// A flag at the end, or followed by another flag.
    #[error("{0} needs a value; see --help")]
    MissingValue(&'static str),
    /// A switch with a value.
    #[error("{0} takes no value; see --help")]
    UnexpectedValue(&'static str),
    /// A value with bytes that are no text.
    #[error("the value of {0} is not valid UTF-8; see --help")]
    NotUnicode(&'static str),
    /// A flag that may be given once.
    #[error("{0} is given more than once; see --help")]
    Repeated(&'static str),
}

/// Reads the arguments, without the name of the program.
///
/// ValueHint follow their flag as the next argument or after `=`; a short flag's value may also follow it directly.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, CliError> {
    let mut args = Arguments::from_vec(normalise(arguments)?);
    Ok(Cli {
        api_key: once(&mut args, "--api-key")?.map(Secret::new),
        api_key_file: once(&mut args, "--api-key-file")?,
        worker_id: once(&mut args, "--worker-id")?,
        web_socket_url: once(&mut args, "--web-socket-url")?,
        server_root_url: once(&mut args, "--server-root-url")?,
        log_level: once(&mut args, "--log-level")?,
        volumes: all(&mut args, "--volumes")?,
        env: all(&mut args, "--env")?.into_iter().map(Secret::new).collect(),
        max_concurrent_tasks: once(&mut args, "--max-concurrent-tasks")?,
        pull: once(&mut args, "--pull")?,
        max_output: once(&mut args, "--max-output")?,
        task_timeout: once(&mut args, "--task-timeout")?,
        drain_timeout: once(&mut args, "--drain-timeout")?,
        engine_timeout: once(&mut args, "--engine-timeout")?,
        reconcile_interval: once(&mut args, "--reconcile-interval")?,
        lost_runs: once(&mut args, "--lost-runs")?,
        keep_sidecar_volumes: once(&mut args, "--keep-sidecar-volumes")?,
        min_free_disk: once(&mut args, "--min-free-disk")?,
        print: once(&mut args, "--print")?,
        no_cleanup: args.contains("--no-cleanup"),
        help: args.contains("--help"),
        version: args.contains("--version"),
    })
}

fn once(args: &mut Arguments, flag: &'static str) -> Result<Option<String>, CliError> {
    let mut values = all(args, flag)?;
    if values.len() > 1 {
        return Err(CliError::Repeated(flag));
    }
    Ok(values.pop())
}

fn all(args: &mut Arguments, flag: &'static str) -> Result<Vec<String>, CliError> {
    args.values_from_str(flag).map_err(|error| match error {
        PicoError::NonUtf8Argument => CliError::NotUnicode(flag),
        _ => CliError::MissingValue(flag),
    })
}

/// Brings every flag into its long form with the value as the next argument.
///
/// pico-args searches the whole line for one name at a time: it would lose the order of `-e` and `--env`, take a flag
/// for the value of the one before it, and strip quotes after `=`. In this form it has nothing left to guess.
fn normalise(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<OsString>, CliError> {
    let mut normal = Vec::new();
    let mut rest = (1..).zip(arguments);
    while let Some((position, argument)) = rest.next() {
        let text = argument.to_string_lossy();
        let (name, inline) = split(&text);
        let (flag, setting) = find(name).ok_or_else(|| unknown(name, position))?;
        normal.push(flag.into());
        match (setting.value_name, inline) {
            (None, None) => continue,
            (None, Some(_)) => return Err(CliError::UnexpectedValue(flag)),
            (Some(_), Some(_)) if argument.to_str().is_none() => return Err(CliError::NotUnicode(flag)),
            (Some(_), Some(value)) => normal.push(value.into()),
            (Some(_), None) => normal.extend(rest.next().map(|(_, value)| value)),
        }
        if normal.last().and_then(|value| value.to_str()).and_then(find).is_some() {
            return Err(CliError::MissingValue(flag));
        }
    }
    Ok(normal)
}

/// Splits an argument into the name of a flag and the value that comes with it.
fn split(argument: &str) -> (&str, Option<&str>) {
    if argument.starts_with("--") {
        return argument.split_once('=').map_or((argument, None), |(name, value)| (name, Some(value)));
    }
    let end = argument.char_indices().nth(2).map_or(argument.len(), |(index, _)| index);
    match argument.split_at_checked(end) {
        Some((name, value)) if name.starts_with('-') && !value.is_empty() => {
            (name, Some(value.strip_prefix('=').unwrap_or(value)))
        }
        _ => (argument, None),
    }
}

fn find(name: &str) -> Option<(&'static str, &'static Setting)> {
    let setting = SETTINGS.iter().find(|setting| setting.is_called(name))?;
    Some((setting.flag?, setting))
}

/// Names an argument that is not known only when it looks like a flag, for it may be a key in the wrong place.
fn unknown(name: &str, position: usize) -> CliError {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.starts_with('-') && name.len() <= LONGEST_NAME && name.chars().all(plain) {
        CliError::UnknownFlag(name.into())
    } else {
        CliError::Stray(position)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;
    use crate::cli::Occurs;

    const MARK: &str = "hunter2";

    fn read(line: &[&str]) -> Result<Cli, CliError> {
        parse(line.iter().map(OsString::from))
    }

    #[test]
    fn nothing_typed_is_nothing_set() {
        assert_eq!(read(&[]), Ok(Cli::default()));
    }

    #[test]
    fn every_flag_of_the_table_arrives_in_both_spellings() {
        for setting in SETTINGS {
            for flag in [setting.flag, setting.short].into_iter().flatten() {
                let Some(_) = setting.value_name else {
                    let shown = format!("{:?}", read(&[flag]).unwrap());
                    assert_eq!(shown.matches("true").count(), 1, "{flag} {shown}");
                    assert_eq!(
                        read(&[&format!("{flag}=1")]),
                        Err(CliError::UnexpectedValue(setting.flag.unwrap()))
                    );
                    continue;
                };
                let cli = read(&[flag, "x=y"]).unwrap();
                assert_ne!(cli, Cli::default(), "{flag}");
                assert_eq!(read(&[&format!("{flag}=x=y")]).unwrap(), cli, "{flag}");
                assert_eq!(read(&[flag]), Err(CliError::MissingValue(setting.flag.unwrap())));
            }
        }
    }

    #[test]
    fn values_keep_their_order_and_their_quotes() {
        let cli =
            read(&["-e", "A=1", "--env=B='2'", "-e=C=\"3", "-eD", "-v/a:/b", "--volumes", "c:/d"]).unwrap();
        let env: Vec<_> = cli.env.iter().map(Secret::expose).collect();
        assert_eq!(env, ["A=1", "B='2'", "C=\"3", "D"]);
        assert_eq!(cli.volumes, ["/a:/b", "c:/d"]);
    }

    #[test]
    fn a_value_may_begin_with_a_dash_or_be_empty() {
        let cli = read(&["--api-key", "-k=y", "--worker-id=--w", "--pull="]).unwrap();
        assert_eq!(cli.api_key, Some(Secret::new("-k=y")));
        assert_eq!((cli.worker_id.as_deref(), cli.pull.as_deref()), (Some("--w"), Some("")));
    }

    #[test]
    fn a_flag_is_never_the_value_of_another() {
        assert_eq!(read(&["--api-key", "--worker-id", "w"]), Err(CliError::MissingValue("--api-key")));
        assert_eq!(read(&["--env=--pull"]), Err(CliError::MissingValue("--env")));
        assert_eq!(read(&["-e", "-h"]), Err(CliError::MissingValue("--env")));
    }

    #[test]
    fn a_single_value_given_twice_is_an_error() {
        assert_eq!(read(&["--pull", "a", "--pull=a"]), Err(CliError::Repeated("--pull")));
        assert!(read(&["--no-cleanup", "--no-cleanup"]).unwrap().no_cleanup);
    }

    #[test]
    fn the_table_says_which_values_may_be_given_twice() {
        for setting in SETTINGS {
            let (Some(flag), Some(_)) = (setting.flag, setting.value_name) else { continue };
            let twice = read(&[flag, "a", flag, "b"]);
            assert_eq!(twice.is_ok(), setting.occurs == Occurs::Many, "{flag}");
        }
    }

    #[test]
    fn what_is_not_known_is_named_without_its_value() {
        let secret_long = format!("--{}", MARK.repeat(10));
        let cases: [(&[&str], CliError); 8] = [
            (&["--apikey=hunter2"], CliError::UnknownFlag("--apikey".into())),
            (&["-khunter2"], CliError::UnknownFlag("-k".into())),
            (&["--no-cleanup", "hunter2"], CliError::Stray(2)),
            (&["--api-key", "k", "--", "hunter2"], CliError::UnknownFlag("--".into())),
            (&["--api+hunter2"], CliError::Stray(1)),
            (&[&secret_long], CliError::Stray(1)),
            (&["ö-hunter2"], CliError::Stray(1)),
            (&[""], CliError::Stray(1)),
        ];
        for (line, error) in cases {
            let found = read(line).unwrap_err();
            assert_eq!(found, error, "{line:?}");
            assert!(!format!("{found} {found:?}").contains(MARK), "{found}");
            assert!(found.to_string().ends_with("; see --help"), "{found}");
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_an_error() {
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let separate = parse([OsString::from("--worker-id"), bytes(b"a\xff")]);
        assert_eq!(separate, Err(CliError::NotUnicode("--worker-id")));
        assert_eq!(parse([bytes(b"--worker-id=\xff")]), Err(CliError::NotUnicode("--worker-id")));
        assert_eq!(parse([bytes(b"-e\xff")]), Err(CliError::NotUnicode("--env")));
        assert_eq!(parse([bytes(b"\xff")]), Err(CliError::Stray(1)));
    }

    #[test]
    fn what_was_typed_shows_no_secret() {
        let cli = read(&["--api-key", MARK, "-e", "TOKEN=hunter2"]).unwrap();
        assert!(!format!("{cli:?}").contains(MARK));
    }
}
