//! The completion for bash. It needs bash 4 and nothing of the package bash-completion.

use super::{NAME, flags};
use crate::cli::{COMMANDS, Command, SETTINGS, Setting, ValueHint};

const HEAD: &str = "\
# bash completion for @NAME@. Put it into /usr/share/bash-completion/completions or
# ~/.local/share/bash-completion/completions, or type: source <(@NAME@ --print bash)

_oz_agent_worker() {
    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} joined='' own='' words=''
    COMPREPLY=()
    # bash splits --flag=value: the = is a separate word.
    if [[ $word == = ]]; then
        word='' joined=1
    elif [[ $flag == = ]]; then
        flag=${COMP_WORDS[COMP_CWORD - 2]} joined=1
    fi
    if [[ $COMP_CWORD -eq 1 ]]; then
        words='@COMMANDS@ '
    else
        case ${COMP_WORDS[1]} in
@CASES@        esac
    fi
    case $flag in
";

const TAIL: &str = "    \
    esac
    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")
}

complete -F _oz_agent_worker @NAME@
";

/// The completion, with a final line break.
pub(super) fn completion() -> String {
    let anything = |setting: &&Setting| setting.value_name.is_some() && setting.values == ValueHint::Any;
    let nothing: Vec<_> = SETTINGS.iter().filter(anything).flat_map(flags).collect();
    let nothing = format!("    {})\n        return\n        ;;\n", nothing.join(" | "));
    let values: String = SETTINGS.iter().filter_map(value).collect();
    let all: Vec<_> = SETTINGS.iter().flat_map(flags).collect();
    // After anything else only a flag can follow, and nothing follows the `=` of a switch.
    let rest = format!("    *)\n        [[ $joined || $own ]] || words+='{}'\n        ;;\n", all.join(" "));
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let head = HEAD.replace("@COMMANDS@", &names.join(" "));
    let cases: String = COMMANDS.iter().map(|command| of_command(command)).collect();
    let head = head.replace("@CASES@", &cases);
    [&head, &nothing, &values, &rest, TAIL].concat().replace("@NAME@", NAME)
}

/// The case of a sub-command: its options, and nothing else if it takes no settings.
fn of_command(command: &Command) -> String {
    let all: Vec<_> = command.options.iter().flat_map(flags).collect();
    let is_text = |option: &&Setting| option.value_name.is_some() && option.values == ValueHint::Any;
    let texts: Vec<_> = command.options.iter().filter(is_text).flat_map(flags).collect();
    let own = if command.takes_settings { "" } else { " own=1" };
    format!(
        "        {})\n            [[ ' {} ' != *\" $flag \"* ]] || return\n            [[ $joined ]] || words='{} '{own}\n            ;;\n",
        command.name,
        texts.join(" "),
        all.join(" ")
    )
}

/// The case that completes the value of a setting; `None` if it can be anything.
fn value(setting: &Setting) -> Option<String> {
    let files = "mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n        return";
    let action = match setting.values {
        ValueHint::Any => return None,
        ValueHint::Words(words) => format!("words='{}'", words.join(" ")),
        // compopt fails if the function is called outside of a completion, as in tests.
        ValueHint::Path => format!("compopt -o filenames 2>/dev/null\n        {files}"),
        ValueHint::PathFirst => format!("compopt -o filenames -o nospace 2>/dev/null\n        {files}"),
    };
    Some(format!("    {})\n        {action}\n        ;;\n", flags(setting).join(" | ")))
}
