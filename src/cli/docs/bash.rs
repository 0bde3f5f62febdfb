//! The completion for bash. It needs bash 4 and nothing of the package bash-completion.
//!
//! Owns the function that bash calls. It must not know which settings there are.

use super::{NAME, flags};
use crate::cli::{SETTINGS, Setting, ValueHint};

const HEAD: &str = "\
# bash completion for @NAME@. Put it into /usr/share/bash-completion/completions or
# ~/.local/share/bash-completion/completions, or type: source <(@NAME@ --print bash)

_oz_agent_worker() {
    local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]} joined='' words=''
    COMPREPLY=()
    # bash takes --flag=value apart: the = is a word of its own.
    if [[ $word == = ]]; then
        word='' joined=1
    elif [[ $flag == = ]]; then
        flag=${COMP_WORDS[COMP_CWORD - 2]} joined=1
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
    // Whatever else is before the cursor: there is nothing but flags, and a switch takes nothing after a `=`.
    let rest = format!("    *)\n        [[ $joined ]] || words='{}'\n        ;;\n", all.join(" "));
    [HEAD, &nothing, &values, &rest, TAIL].concat().replace("@NAME@", NAME)
}

/// What is offered after a flag, if its value cannot be just anything.
fn value(setting: &Setting) -> Option<String> {
    let files = "mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n        return";
    let action = match setting.values {
        ValueHint::Any => return None,
        ValueHint::Words(words) => format!("words='{}'", words.join(" ")),
        // Outside of a completion, as in a test, there is no option to set.
        ValueHint::Path => format!("compopt -o filenames 2>/dev/null\n        {files}"),
        ValueHint::PathFirst => format!("compopt -o filenames -o nospace 2>/dev/null\n        {files}"),
    };
    Some(format!("    {})\n        {action}\n        ;;\n", flags(setting).join(" | ")))
}
