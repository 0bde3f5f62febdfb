//! The command line: which flags were typed, with which values.
//!
//! Errors show no value, and no argument that may contain one: a mistyped `--apikey=...` contains a key too.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::{Command, Occurs, SETTINGS, Setting, commands};
use crate::secret::Secret;

/// A longer argument is not shown as an unknown flag, since it may be a key.
const LONGEST_NAME: usize = 32;

/// The sub-command, and the values of each flag that was typed, in the order typed, by its long name. A switch has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    command: Option<&'static Command>,
    typed: BTreeMap<&'static str, Vec<Secret>>,
}

/// Why a command line was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentsError {
    /// No setting has this flag.
    #[error("unknown flag {0}; see --help")]
    UnknownFlag(String),
    /// An argument that is neither a flag nor a value, by its position from 1.
    #[error("argument {0} is not a flag (a sub-command comes first); see --help")]
    Stray(usize),
    /// A first argument that is neither; the names of the sub-commands.
    #[error("argument 1 is neither a flag nor a sub-command ({0}); see --help")]
    UnknownCommand(String),
    /// A flag at the end, or before another flag.
    #[error("{0} needs a value; see --help")]
    MissingValue(&'static str),
    /// A switch with a value.
    #[error("{0} takes no value; see --help")]
    UnexpectedValue(&'static str),
    /// A value that is not text.
    #[error("the value of {0} is not valid UTF-8; see --help")]
    NotUnicode(&'static str),
    /// A flag that may be given only once.
    #[error("{0} is given more than once; see --help")]
    Repeated(&'static str),
}

impl Arguments {
    /// Parses the arguments that follow the name of the program.
    ///
    /// A value is the next argument, or follows its flag after `=`; the value of a short flag may also follow it
    /// directly. It may begin with a dash but is never another flag.
    ///
    /// # Errors
    /// An argument is not understood.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ArgumentsError> {
        let mut arguments = arguments.into_iter().peekable();
        let command = arguments.peek().and_then(|first| Command::of(first.to_str()?));
        let position = if command.is_some() { 2 } else { 1 };
        let flags =
            Flags(command.map_or_else(|| SETTINGS.iter().collect(), |command| command.flags().collect()));
        let rest = (position..).zip(arguments.skip(usize::from(command.is_some())));
        let mut arguments = pico_args::Arguments::from_vec(flags.normalise(rest)?);
        let mut typed = BTreeMap::new();
        for setting in flags.0 {
            let Some(flag) = setting.flag else { continue };
            if setting.value_name.is_none() {
                if arguments.contains(flag) {
                    typed.insert(flag, Vec::new());
                }
                continue;
            }
            let values: Vec<String> = arguments.values_from_str(flag).map_err(|error| match error {
                pico_args::Error::NonUtf8Argument => ArgumentsError::NotUnicode(flag),
                _ => ArgumentsError::MissingValue(flag),
            })?;
            if values.len() > 1 && setting.occurs != Occurs::Many {
                return Err(ArgumentsError::Repeated(flag));
            }
            if !values.is_empty() {
                typed.insert(flag, values.into_iter().map(Secret::new).collect());
            }
        }
        Ok(Self { command, typed })
    }

    /// The sub-command.
    pub(crate) fn command(&self) -> Option<&'static Command> {
        self.command
    }

    /// Whether the flag of a setting was typed.
    pub(super) fn has(&self, setting: &Setting) -> bool {
        setting.flag.is_some_and(|flag| self.typed.contains_key(flag))
    }

    /// The values of a setting's flag, in the order typed.
    pub(super) fn values(&self, setting: &Setting) -> &[Secret] {
        setting.flag.and_then(|flag| self.typed.get(flag)).map_or(&[], Vec::as_slice)
    }
}

/// The flags that may be typed.
struct Flags(Vec<&'static Setting>);

impl Flags {
    /// Returns the arguments with long flags, each followed by its value as a separate argument. pico-args would use the next flag as
    /// the value of a flag without one, and would not report unknown arguments.
    fn normalise(
        &self,
        mut rest: impl Iterator<Item = (usize, OsString)>,
    ) -> Result<Vec<OsString>, ArgumentsError> {
        let mut normal = Vec::new();
        while let Some((position, argument)) = rest.next() {
            let text = argument.to_string_lossy();
            let (name, inline) = split(&text);
            let (flag, setting) = self.find(name).ok_or_else(|| unknown(name, position))?;
            normal.push(flag.into());
            let value = match (setting.value_name, inline) {
                (None, None) => continue,
                (None, Some(_)) => return Err(ArgumentsError::UnexpectedValue(flag)),
                (Some(_), Some(_)) if argument.to_str().is_none() => {
                    return Err(ArgumentsError::NotUnicode(flag));
                }
                (Some(_), Some(value)) => value.into(),
                (Some(_), None) => rest.next().ok_or(ArgumentsError::MissingValue(flag))?.1,
            };
            if value.to_str().and_then(|value| self.find(value)).is_some() {
                return Err(ArgumentsError::MissingValue(flag));
            }
            normal.push(value);
        }
        Ok(normal)
    }

    /// The setting with this flag, and its long flag.
    fn find(&self, name: &str) -> Option<(&'static str, &'static Setting)> {
        let setting = self.0.iter().find(|setting| setting.is_called(name))?;
        Some((setting.flag?, setting))
    }
}

/// Splits an argument into the name of a flag and the value that follows it.
pub(super) fn split(argument: &str) -> (&str, Option<&str>) {
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

/// The worker's setting with this flag, and its long flag.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static Setting)> {
    Flags(SETTINGS.iter().collect()).find(name)
}

/// The error for an unknown argument. Shows the argument only if it looks like a flag: anything else may be a key.
fn unknown(name: &str, position: usize) -> ArgumentsError {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.starts_with('-') && name.len() <= LONGEST_NAME && name.chars().all(plain) {
        ArgumentsError::UnknownFlag(name.into())
    } else if position == 1 && !name.starts_with('-') {
        commands::unknown()
    } else {
        ArgumentsError::Stray(position)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    const MARK: &str = "hunter2";

    fn read(line: &[&str]) -> Result<Arguments, ArgumentsError> {
        Arguments::parse(line.iter().map(OsString::from))
    }

    fn values<'a>(arguments: &'a Arguments, flag: &str) -> Vec<&'a str> {
        arguments.typed[flag].iter().map(Secret::expose).collect()
    }

    #[test]
    fn an_empty_command_line_sets_nothing() {
        let arguments = read(&[]).unwrap();
        for setting in SETTINGS {
            assert!(!arguments.has(setting) && arguments.values(setting).is_empty(), "{setting:?}");
        }
    }

    #[test]
    fn every_flag_is_read_in_both_spellings() {
        for setting in SETTINGS {
            for flag in [setting.flag, setting.short].into_iter().flatten() {
                let long = setting.flag.unwrap();
                let with_equals = read(&[&format!("{flag}=x=y")]);
                if setting.value_name.is_none() {
                    let arguments = read(&[flag]).unwrap();
                    let found: Vec<_> = SETTINGS.iter().filter(|setting| arguments.has(setting)).collect();
                    assert_eq!(found, [setting]);
                    assert_eq!(with_equals, Err(ArgumentsError::UnexpectedValue(long)));
                    continue;
                }
                let arguments = read(&[flag, "x=y"]).unwrap();
                let found: Vec<_> = SETTINGS.iter().filter(|setting| arguments.has(setting)).collect();
                assert_eq!((found, values(&arguments, long)), (vec![setting], vec!["x=y"]));
                assert_eq!(with_equals.unwrap(), arguments, "{flag}");
                assert_eq!(read(&[flag]), Err(ArgumentsError::MissingValue(long)));
            }
        }
    }

    #[test]
    fn values_keep_their_order_and_their_quotes() {
        let line = ["-e", "A=1", "--env=B='2'", "-e=C=\"3", "-eD", "-v/a:/b", "--volumes", "c:/d"];
        let arguments = read(&line).unwrap();
        assert_eq!(values(&arguments, "--env"), ["A=1", "B='2'", "C=\"3", "D"]);
        assert_eq!(values(&arguments, "--volumes"), ["/a:/b", "c:/d"]);
    }

    #[test]
    fn a_value_may_begin_with_a_dash_or_be_empty() {
        let arguments = read(&["--api-key", "-k=y", "--worker-id=--w", "--pull="]).unwrap();
        assert_eq!(values(&arguments, "--api-key"), ["-k=y"]);
        assert_eq!(values(&arguments, "--worker-id"), ["--w"]);
        assert_eq!(values(&arguments, "--pull"), [""]);
    }

    #[test]
    fn a_flag_is_never_the_value_of_another() {
        let missing = |flag| Err(ArgumentsError::MissingValue(flag));
        assert_eq!(read(&["--api-key", "--worker-id", "w"]), missing("--api-key"));
        assert_eq!(read(&["--env=--pull"]), missing("--env"));
        assert_eq!(read(&["-e", "-h"]), missing("--env"));
    }

    #[test]
    fn a_switch_may_be_repeated() {
        let arguments = read(&["--no-cleanup", "--no-cleanup"]);
        assert_eq!(arguments, read(&["--no-cleanup"]));
    }

    #[test]
    fn the_table_says_which_values_may_be_given_twice() {
        for setting in SETTINGS {
            let (Some(flag), Some(_)) = (setting.flag, setting.value_name) else { continue };
            let twice = read(&[flag, "a", &format!("{flag}=b")]);
            match setting.occurs {
                Occurs::Many => assert_eq!(values(&twice.unwrap(), flag), ["a", "b"]),
                Occurs::Once | Occurs::Alone => assert_eq!(twice, Err(ArgumentsError::Repeated(flag))),
            }
        }
    }

    #[test]
    fn an_unknown_flag_is_named_without_its_value() {
        let secret_long = format!("--{}", MARK.repeat(10));
        let cases: [(&[&str], ArgumentsError); 8] = [
            (&["--apikey=hunter2"], ArgumentsError::UnknownFlag("--apikey".into())),
            (&["-khunter2"], ArgumentsError::UnknownFlag("-k".into())),
            (&["--no-cleanup", "hunter2"], ArgumentsError::Stray(2)),
            (&["--api-key", "k", "--", "hunter2"], ArgumentsError::UnknownFlag("--".into())),
            (&["--api+hunter2"], ArgumentsError::Stray(1)),
            (&[&secret_long], ArgumentsError::Stray(1)),
            (&["ö-hunter2"], commands::unknown()),
            (&[""], commands::unknown()),
        ];
        for (line, error) in cases {
            let found = read(line).unwrap_err();
            assert_eq!(found, error, "{line:?}");
            assert!(!format!("{found} {found:?}").contains(MARK), "{found}");
            assert!(found.to_string().ends_with("; see --help"), "{found}");
        }
    }

    #[test]
    fn a_value_must_be_valid_utf_8() {
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let not_unicode = |flag| Err(ArgumentsError::NotUnicode(flag));
        let separate = Arguments::parse([OsString::from("--worker-id"), bytes(b"a\xff")]);
        assert_eq!(separate, not_unicode("--worker-id"));
        assert_eq!(Arguments::parse([bytes(b"--worker-id=\xff")]), not_unicode("--worker-id"));
        assert_eq!(Arguments::parse([bytes(b"-e\xff")]), not_unicode("--env"));
        assert_eq!(Arguments::parse([bytes(b"\xff")]), Err(commands::unknown()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let arguments = read(&["--api-key", MARK, "-e", "TOKEN=hunter2"]).unwrap();
        assert!(!format!("{arguments:?}").contains(MARK));
    }
}
