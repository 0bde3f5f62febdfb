//! The completion for fish.

use std::fmt::Write as _;

use super::shell::fish_quoted;
use super::{NAME, flags, summary};
use crate::cli::{COMMANDS, Command, Occurs, SETTINGS, Setting, ValueHint};

const HEAD: &str = "\
# fish completion for @NAME@. Put it as @NAME@.fish into /usr/share/fish/vendor_completions.d
# or ~/.config/fish/completions, or type: @NAME@ --print fish | source

# Whether a flag with a value has not been typed yet. As the last word it is waiting for its value.
function __oz_agent_worker_lacks
    set -l words (commandline -opc)
    for word in $words[2..-2] (string match -- '*=*' $words[-1])
        contains -- (string split -m 1 -- = $word)[1] $argv; and return 1
    end
    return 0
end

complete -c @NAME@ -f
complete -c @NAME@ -n __fish_use_subcommand -a '@COMMANDS@'
";

/// The completion, with a final line break.
pub(super) fn completion() -> String {
    let lines: String = SETTINGS.iter().filter_map(setting).collect();
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let of_commands: String = COMMANDS.iter().map(|command| of_command(command)).collect();
    [HEAD, &lines, &of_commands].concat().replace("@COMMANDS@", &names.join(" ")).replace("@NAME@", NAME)
}

/// The lines of a sub-command's options.
fn of_command(command: &Command) -> String {
    let condition = format!("__fish_seen_subcommand_from {}", command.name);
    command.options.iter().filter_map(|option| line(option, &condition)).collect()
}

/// The line of a setting of the worker.
fn setting(setting: &Setting) -> Option<String> {
    let long = setting.flag?.trim_start_matches('-');
    let without = COMMANDS.iter().filter(|command| !command.takes_settings).map(|command| command.name);
    let without: Vec<_> = without.collect();
    let mut place = format!("not __fish_seen_subcommand_from {}", without.join(" "));
    if setting.occurs != Occurs::Many {
        let _ = write!(place, "; and {}", condition(setting, long));
    }
    line(setting, &place)
}

/// The line of a setting that is offered if `condition` holds.
fn line(setting: &Setting, condition: &str) -> Option<String> {
    let long = setting.flag?.trim_start_matches('-');
    let mut line = format!("complete -c {NAME} -n '{condition}'");
    if let Some(short) = setting.short {
        let _ = write!(line, " -s {}", short.trim_start_matches('-'));
    }
    let _ = write!(line, " -l {long}");
    match setting.values {
        _ if setting.value_name.is_none() => {}
        ValueHint::Any => line.push_str(" -x"),
        ValueHint::Words(words) => {
            let _ = write!(line, " -x -a {}", fish_quoted(&words.join(" ")));
        }
        ValueHint::Path | ValueHint::PathFirst => line.push_str(" -r -F"),
    }
    let _ = writeln!(line, " -d {}", fish_quoted(summary(setting)));
    Some(line)
}

/// The condition under which a flag that may be given once is still offered.
fn condition(setting: &Setting, long: &str) -> String {
    let short = setting.short.map(|short| format!("-s {} ", short.trim_start_matches('-')));
    match setting.value_name {
        Some(_) => format!("__oz_agent_worker_lacks {}", flags(setting).join(" ")),
        None => format!("not __fish_contains_opt {}{long}", short.unwrap_or_default()),
    }
}
