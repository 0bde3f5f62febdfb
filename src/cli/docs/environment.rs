//! A sample of a file with the worker's variables, for systemd's `EnvironmentFile=` and for a shell's `set -a; . file`.
//!
//! Owns its form. It must not know where a package puts it. Each variable has one line that begins with `#NAME=`, so that
//! to set it is to take one character away, and a file in which nothing was set can be told from one in which something
//! was.

use std::fmt::Write as _;

use super::wrap::wrap;
use crate::cli::{EXTERNAL, Occurs, SETTINGS, Setting};

/// The widest line, in characters.
const WIDTH: usize = 78;
/// The one variable that is read by systemd's unit and by nobody else.
const UNIT_ARGUMENTS: &str = "OZ_WORKER_ARGS";
/// What a comment begins with. A variable has no blank there.
const COMMENT: &str = "# ";

const HEAD: [&str; 5] = [
    "The settings of oz-agent-worker, one NAME=VALUE a line. To set one, take away the # before it. What is not set has its \
     default; an empty value counts as not set.",
    "systemd reads this file for the service (EnvironmentFile=): /etc/oz-agent-worker/worker.env, or ID.env beside it for \
     the instance ID. The worker itself does not look for it. After a change: systemctl restart oz-agent-worker",
    "It can hold the key, so nobody but root and the service may read it.",
    "systemd takes a value as it is: there is no export, and $NAME or $(command) is not replaced. Put a value with blanks, \
     quotes, $ or backslashes into 'single quotes', which means the same to systemd and to a shell.",
    "A shell reads it with: set -a; . FILE; set +a",
];

/// The sample, with a final line break.
pub(super) fn sample() -> String {
    let mut text = HEAD.map(|paragraph| wrap(paragraph, COMMENT, WIDTH)).join("#\n");
    for required in [true, false] {
        heading(if required { "What has to be set" } else { "What can be set" }, &mut text);
        let settings = SETTINGS.iter().filter(|setting| setting.required.is_some() == required);
        settings.for_each(|setting| ours(setting, &mut text));
    }
    variable(UNIT_ARGUMENTS, "", &[&flags_only()], &mut text);
    heading("What other programs read as well", &mut text);
    for external in EXTERNAL {
        variable(external.variable, "", &[external.help], &mut text);
    }
    text
}

/// What has no variable.
fn flags_only() -> String {
    let names =
        SETTINGS.iter().filter(|setting| setting.variable.is_none() && setting.occurs != Occurs::Alone);
    let names: Vec<_> = names.filter_map(|setting| setting.flag).collect();
    format!(
        "Flags, as on a command line: for {}, which have no variable. systemd's unit takes them from here; the worker \
         itself does not look at this one.",
        names.join(", ")
    )
}

fn heading(words: &str, text: &mut String) {
    let _ = writeln!(text, "\n{COMMENT}---- {words} ----");
}

fn ours(setting: &Setting, text: &mut String) {
    let Some(name) = setting.variable else { return };
    let default = setting.default.map(|default| format!("Default: {default}"));
    let parts = [setting.required, Some(setting.help), default.as_deref()];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    variable(name, value(setting), &parts, text);
}

/// The default where it is one that could be typed; some are words.
fn value(setting: &Setting) -> &'static str {
    setting.default.filter(|default| !default.contains(' ')).unwrap_or_default()
}

fn variable(name: &str, value: &str, parts: &[&str], text: &mut String) {
    text.push('\n');
    parts.iter().for_each(|part| text.push_str(&wrap(part, COMMENT, WIDTH)));
    let _ = writeln!(text, "#{name}={value}");
}
