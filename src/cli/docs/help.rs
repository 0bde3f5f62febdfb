//! What `--help` prints.

use std::fmt::Write as _;

use super::flags;
use super::wrap::wrap;
use crate::cli::{SETTINGS, Setting};
use crate::exit::Exit;

/// The widest line, in characters.
const WIDTH: usize = 100;
/// The indentation of a description.
const INDENT: &str = "          ";

/// The help text, with a final line break.
pub(super) fn help() -> String {
    let mut text = String::from(
        "Runs the agent tasks of an Oz control plane in Docker containers on this host.\n\n\
         Usage: oz-agent-worker --worker-id ID [SETTING...]\n\n\
         Settings (a flag overrides its variable; an empty variable counts as unset):\n",
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
}
