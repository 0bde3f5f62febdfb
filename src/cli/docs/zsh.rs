//! The completion for zsh.

use super::shell::{quoted, zsh_part};
use super::{NAME, flags, summary};
use crate::cli::{COMMANDS, Command, Occurs, SETTINGS, Setting, ValueHint};

const HEAD: &str = "\
#compdef @NAME@
# zsh completion for @NAME@. Put it as _@NAME@ into a folder of $fpath, such as
# /usr/share/zsh/vendor-completions, or type: source <(@NAME@ --print zsh)

_@NAME@() {
    local -a own=('1:sub-command:(@COMMANDS@)')
    if (( CURRENT > 2 )); then
        case $words[2] in
@CASES@        esac
    fi
    _arguments $own \\
";

/// zsh runs the file as the body of the function when it loads it from `fpath`, and as a script when it is sourced.
const TAIL: &str = "}

if [[ $funcstack[1] == _@NAME@ ]]; then
    _@NAME@ \"$@\"
else
    compdef _@NAME@ @NAME@
fi
";

/// The completion, with a final line break.
pub(super) fn completion() -> String {
    let lines: Vec<_> = SETTINGS.iter().filter_map(specification).collect();
    let lines = lines.join(" \\\n");
    let names: Vec<_> = COMMANDS.iter().map(|command| command.name).collect();
    let cases: String = COMMANDS.iter().map(|command| of_command(command)).collect();
    let head = HEAD.replace("@COMMANDS@", &names.join(" ")).replace("@CASES@", &cases);
    [&head, &lines, "\n", TAIL].concat().replace("@NAME@", NAME)
}

/// The case of a sub-command: its options, and nothing else if it takes no settings.
fn of_command(command: &Command) -> String {
    let options = command.options.iter().filter_map(specification).map(|line| format!("        {line}\n"));
    let options: String = options.collect();
    let end = if command.takes_settings { "" } else { "            _arguments $own\n            return\n" };
    format!(
        "        {name})\n            own=('1:sub-command:({name})'\n{options}            )\n{end}            ;;\n",
        name = command.name
    )
}

/// A specification such as `'*'{-v+,--volumes=}'[summary]:VALUE:_files'`. With `+` the value may follow the flag directly,
/// with `=` after an equals sign.
fn specification(setting: &Setting) -> Option<String> {
    let flags = flags(setting);
    setting.flag?;
    let before = match setting.occurs {
        Occurs::Alone => "(- *)".to_owned(),
        Occurs::Many => "*".to_owned(),
        Occurs::Once if flags.len() > 1 => format!("({})", flags.join(" ")),
        Occurs::Once => String::new(),
    };
    let mark = |flag: &&str| match (setting.value_name, flag.starts_with("--")) {
        (None, _) => (*flag).to_owned(),
        (Some(_), true) => format!("{flag}="),
        (Some(_), false) => format!("{flag}+"),
    };
    let marked: Vec<_> = flags.iter().map(mark).collect();
    let after = format!("[{}]{}", zsh_part(summary(setting)), value(setting));
    Some(match marked.as_slice() {
        [only] => format!("        {}", quoted(&format!("{before}{only}{after}"))),
        several => format!("        {}{{{}}}{}", quoted(&before), several.join(","), quoted(&after)),
    })
}

/// The placeholder of the value and the action that completes it; a space means nothing.
fn value(setting: &Setting) -> String {
    let Some(name) = setting.value_name else { return String::new() };
    let action = match setting.values {
        ValueHint::Any => " ".to_owned(),
        ValueHint::Words(words) => format!("({})", words.join(" ")),
        ValueHint::Path => "_files".to_owned(),
        ValueHint::PathFirst => "_files -S \"\"".to_owned(),
    };
    format!(":{}:{action}", zsh_part(name))
}
