//! What `--help` prints.

use std::fmt::Write as _;

use super::flags;
use super::wrap::wrap;
use crate::cli::{COMMANDS, Command, SETTINGS, Setting};
use crate::exit::Exit;

/// The widest line, in characters.
const WIDTH: usize = 100;
/// The indentation of a description.
const INDENT: &str = "          ";

/// The help text, with a final line break.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Runs the agent tasks of an Oz control plane in Docker containers on this host.\n\n\
         Usage: oz-agent-worker --worker-id ID [SETTING...]\n",
    );
    for command in COMMANDS {
        let _ = writeln!(text, "       oz-agent-worker {}", command.usage());
    }
    text.push_str("\nSub-commands (--help after one shows its options):\n");
    for command in COMMANDS {
        let _ = writeln!(text, "\n  {}", command.name);
        text.push_str(&wrap(command.help, INDENT, WIDTH));
    }
    text.push_str("\nSettings (a flag overrides its variable; an empty variable counts as unset):\n");
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

/// The help of a sub-command, with a final line break.
pub(super) fn of_command(command: &Command) -> String {
    let mut text = format!("Usage: oz-agent-worker {}\n\n", command.usage());
    text.push_str(&wrap(command.help, "", WIDTH));
    text.push_str("\nOptions:\n");
    command.options.iter().for_each(|option| describe(option, &mut text));
    if command.takes_settings {
        text.push_str("\nIt takes the settings of the worker too: see oz-agent-worker --help\n");
    }
    text
}

fn describe(setting: &Setting, text: &mut String) {
    let names = flags(setting);
    let names = if names.is_empty() { setting.variable.unwrap_or_default().into() } else { names.join(", ") };
    let value = setting.value_name.map(|name| format!(" {name}")).unwrap_or_default();
    let _ = writeln!(text, "\n  {names}{value}");
    text.push_str(&wrap(setting.help, INDENT, WIDTH));
    if let (Some(_), Some(variable)) = (setting.flag, setting.variable) {
        let _ = writeln!(text, "{INDENT}Variable: {variable}");
    }
    if let Some(default) = setting.default {
        let _ = writeln!(text, "{INDENT}Default: {default}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_narrow_and_has_every_description() {
        let help = help();
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line, line.trim_end());
        }
        for setting in SETTINGS {
            assert!(setting.value_name.is_none_or(|name| help.contains(name)), "{setting:?}");
            assert!(help.contains(&wrap(setting.help, INDENT, WIDTH)), "{setting:?}");
        }
        for (exit, meaning) in Exit::ALL {
            let code = exit.code();
            assert!(help.contains(&format!("\n  {code:<8}{meaning}\n")), "{code}");
        }
        assert!(!help.contains("\n\n\n") && help.ends_with('\n'));
    }

    #[test]
    fn the_help_of_a_command_has_its_options() {
        for command in COMMANDS {
            assert!(help().contains(&wrap(command.help, INDENT, WIDTH)), "{}", command.name);
            let help = of_command(command);
            assert!(help.starts_with(&format!("Usage: oz-agent-worker {} [--", command.name)), "{help}");
            for option in command.options {
                assert!(help.contains(&wrap(option.help, INDENT, WIDTH)), "{option:?}");
            }
            assert!(help.lines().all(|line| line.chars().count() <= WIDTH), "{help}");
        }
    }
}
