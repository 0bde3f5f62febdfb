//! A sample environment file, for systemd's `EnvironmentFile=` and for a shell's `set -a; . FILE`.
//!
//! Each variable has one line that begins with `#NAME=`: removing the `#` sets it.

use std::fmt::Write as _;

use super::wrap::wrap;
use crate::cli::names::UNIT_ARGUMENTS;
use crate::cli::{EXTERNAL, SETTINGS, Setting};

/// The widest line, in characters.
const WIDTH: usize = 78;
const UNIT_ARGUMENTS_HELP: &str =
    "Flags as on the command line. The systemd unit reads this variable; the worker itself does not.";
/// How a comment begins. The `#` before a variable has no space after it.
const COMMENT: &str = "# ";

const HEAD: [&str; 5] = [
    "The settings of oz-agent-worker, one NAME=VALUE per line. To set a variable, remove the # before it. A variable that is \
     not set, or is empty, has its default.",
    "systemd reads this file for the service (EnvironmentFile=): /etc/oz-agent-worker/worker.env, or ID.env in the same \
     directory for the instance ID. The worker itself reads it only as its --settings-file. After a change: systemctl restart oz-agent-worker, which waits for running tasks for up to the drain time of the running worker",
    "The file can contain the API key: only root and the service should be able to read it.",
    "systemd does not know export and does not expand $NAME or $(command). Put a value with spaces, quotes, $ or backslashes \
     into 'single quotes', which mean the same to systemd and to a shell.",
    "A shell reads the file with: set -a; . FILE; set +a",
];

/// The sample, with a final line break.
pub(super) fn sample() -> String {
    let mut text = HEAD.map(|paragraph| wrap(paragraph, COMMENT, WIDTH)).join("#\n");
    for required in [true, false] {
        heading(if required { "Required settings" } else { "Optional settings" }, &mut text);
        let settings = SETTINGS.iter().filter(|setting| setting.required == required);
        settings.for_each(|setting| own(setting, &mut text));
    }
    variable(UNIT_ARGUMENTS, "", &[UNIT_ARGUMENTS_HELP], &mut text);
    heading("Variables of other programs", &mut text);
    for external in EXTERNAL {
        variable(external.variable, "", &[external.help], &mut text);
    }
    text
}

fn heading(words: &str, text: &mut String) {
    let _ = writeln!(text, "\n{COMMENT}---- {words} ----");
}

fn own(setting: &Setting, text: &mut String) {
    let Some(name) = setting.variable else { return };
    let default = setting.default.map(|default| format!("Default: {default}"));
    let parts: Vec<_> = std::iter::once(setting.help).chain(default.as_deref()).collect();
    variable(name, value(setting), &parts, text);
}

/// The default if it is a value; a default with spaces is a description.
fn value(setting: &Setting) -> &'static str {
    setting.default.filter(|default| !default.contains(' ')).unwrap_or_default()
}

fn variable(name: &str, value: &str, parts: &[&str], text: &mut String) {
    text.push('\n');
    parts.iter().for_each(|part| text.push_str(&wrap(part, COMMENT, WIDTH)));
    let _ = writeln!(text, "#{name}={value}");
}
