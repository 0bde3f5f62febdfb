//! What `--print settings` prints: every setting with its origin and its value, without secrets.

use std::io;
use std::path::Path;

use super::arguments::{find, split as split_argument};
use super::config::{default_tasks, urls, worker_id};
use super::invocation::Invocation;
use super::names::UNIT_ARGUMENTS;
use super::read::is_usual_name;
use super::settings::Echo;
use super::split::split;
use super::table::{MAX_CONCURRENT_TASKS, REST_URL, SERVER_ROOT_URL, WEB_SOCKET_URL, WORKER_ID};
use super::{Arguments, EXTERNAL, Occurs, SETTINGS, Setting};
use crate::logging::message;
use crate::net::url::redacted;
use crate::sys::environment::Environment;

/// In place of a secret.
const HIDDEN: &str = "(hidden)";
/// The origin of a setting that is not set and has no default.
const UNSET: &str = "unset";
const DEFAULT: &str = "default";

/// Where settings come from.
pub(crate) struct Listing<'a> {
    /// The command line.
    pub(crate) arguments: &'a Arguments,
    /// The environment with the variables of the settings file.
    pub(crate) environment: &'a Environment,
    /// The number of processors.
    pub(crate) cores: usize,
}

struct Row {
    name: String,
    origin: String,
    value: String,
}

impl Listing<'_> {
    /// Returns one line for each setting, with a final line break: its name, its origin and its value. `read_file` reads what the
    /// worker's id is made of. An invalid value is listed as it was given.
    pub(crate) fn text(&self, read_file: &dyn Fn(&Path) -> io::Result<String>) -> String {
        let own = SETTINGS.iter().filter(|setting| setting.occurs != Occurs::Alone);
        let mut rows: Vec<_> = own.map(|setting| self.setting(setting, read_file)).collect();
        rows.push(self.variable(UNIT_ARGUMENTS, redacted_arguments));
        rows.extend(EXTERNAL.iter().map(|external| {
            let lower = external.variable.to_ascii_lowercase();
            let is_lower = external.variable.ends_with("_PROXY")
                && self.set(external.variable).is_none()
                && self.set(&lower).is_some();
            let name = if is_lower { &lower } else { external.variable };
            self.variable(name, |text| shown(text, external.echo))
        }));
        let width = |part: fn(&Row) -> usize| rows.iter().map(part).max().unwrap_or_default();
        let (name, origin) = (width(|row| row.name.len()), width(|row| row.origin.chars().count()));
        let line = |row: &Row| {
            let line = format!("{:name$}  {:origin$}  {}", row.name, row.origin, row.value);
            format!("{}\n", line.trim_end())
        };
        rows.iter().map(line).collect()
    }

    /// Returns the settings that are given, with the origin of each.
    pub(crate) fn given(&self, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Vec<(String, String)> {
        let own = SETTINGS.iter().filter(|setting| setting.occurs != Occurs::Alone);
        let rows = own.map(|setting| self.setting(setting, read_file));
        let rows = rows.filter(|row| row.origin != UNSET && row.origin != DEFAULT);
        rows.map(|row| (row.name, row.origin)).collect()
    }

    fn setting(&self, setting: &Setting, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Row {
        let name = setting.variable.or(setting.flag).unwrap_or_default();
        let row = |origin: &str, value: String| Row { name: name.into(), origin: origin.into(), value };
        let mut row = if self.arguments.has(setting) {
            let values = self.arguments.values(setting).iter().map(|value| entry(setting, value.expose()));
            let values = values.collect::<Vec<_>>().join(" ");
            let value = if setting.value_name.is_none() { "true".to_owned() } else { values };
            row(setting.flag.unwrap_or_default(), value)
        } else if self.set(name).is_some() {
            self.variable(name, |text| list(setting, text))
        } else {
            let (origin, value) = setting.default.map_or((UNSET, ""), |value| (DEFAULT, value));
            self.derived(setting, read_file).unwrap_or_else(|| row(origin, value.to_owned()))
        };
        if setting.variable == WORKER_ID.setting.variable {
            // Placeholders are replaced.
            let id = worker_id(&self.invocation(), read_file);
            row.value = id.map_or(row.value, |id| message(&id).to_string());
        }
        row
    }

    /// Returns the row of a setting that is not given, and whose default depends on the host or on another setting.
    fn derived(&self, setting: &Setting, read_file: &dyn Fn(&Path) -> io::Result<String>) -> Option<Row> {
        let invocation = self.invocation();
        let is = |other: &Setting| setting.variable == other.variable;
        let from = |other: &Setting| {
            let given = invocation.given(other).ok().flatten();
            let name = if self.arguments.has(other) { other.flag } else { other.variable };
            given.and(name).map_or(DEFAULT.to_owned(), |name| format!("from {name}"))
        };
        let (origin, value) = if is(&WORKER_ID.setting) {
            (DEFAULT.to_owned(), worker_id(&invocation, read_file).ok()?)
        } else if is(&MAX_CONCURRENT_TASKS.setting) {
            (DEFAULT.to_owned(), default_tasks(self.cores).to_string())
        } else if is(&WEB_SOCKET_URL.setting) {
            (from(&SERVER_ROOT_URL.setting), urls(&invocation).ok()?.0.to_string())
        } else if is(&SERVER_ROOT_URL.setting) {
            (from(&WEB_SOCKET_URL.setting), urls(&invocation).ok()?.1)
        } else if is(&REST_URL.setting) {
            (DEFAULT.to_owned(), urls(&invocation).ok()?.1)
        } else {
            return None;
        };
        Some(Row { name: setting.variable?.to_owned(), origin, value: shown(&value, setting.echo) })
    }

    fn invocation(&self) -> Invocation<'_> {
        Invocation { arguments: self.arguments, environment: self.environment }
    }

    /// Returns the row of a variable. `show` returns what is shown of its value.
    fn variable(&self, name: &str, show: impl FnOnce(&str) -> String) -> Row {
        let (origin, value) = match self.set(name) {
            Some(text) => (self.origin(name), show(&text)),
            None => (UNSET.to_owned(), String::new()),
        };
        Row { name: name.to_owned(), origin, value }
    }

    /// Returns the value of a variable, unless it is empty.
    fn set(&self, name: &str) -> Option<String> {
        let value = self.environment.get(name).filter(|value| !value.is_empty())?;
        Some(value.to_string_lossy().into_owned())
    }

    /// Returns where a variable is set: in the environment, or in a line of the settings file.
    fn origin(&self, name: &str) -> String {
        self.environment.origin(name).unwrap_or("environment").to_owned()
    }
}

/// Returns the text of a variable as it may be shown; of a list each entry.
fn list(setting: &Setting, text: &str) -> String {
    if setting.occurs != Occurs::Many {
        return entry(setting, text);
    }
    match (split(text), setting.echo) {
        (Some(words), _) => words.iter().map(|word| entry(setting, word)).collect::<Vec<_>>().join(" "),
        (None, Echo::Whole) => message(text).to_string(),
        (None, _) => HIDDEN.to_owned(),
    }
}

/// Returns one value of a setting as it may be shown. Of a variable for tasks that is its name.
fn entry(setting: &Setting, text: &str) -> String {
    let is_variable = setting.occurs == Occurs::Many && setting.echo == Echo::Nothing;
    match text.split_once('=') {
        Some((name, _)) if is_variable => format!("{}={HIDDEN}", message(name)),
        None if is_variable && is_usual_name(text) => text.to_owned(),
        _ => shown(text, setting.echo),
    }
}

fn shown(text: &str, echo: Echo) -> String {
    match echo {
        Echo::Whole => message(text).to_string(),
        Echo::Url => message(&redacted(text)).to_string(),
        Echo::Nothing => HIDDEN.to_owned(),
    }
}

/// Returns a command line as it may be shown. Whatever is no known flag and not its value may be a secret.
fn redacted_arguments(text: &str) -> String {
    let Some(words) = split(text) else { return HIDDEN.to_owned() };
    let mut all = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let (name, inline) = split_argument(word);
        match (find(name), inline) {
            (None, _) => all.push(HIDDEN.to_owned()),
            (Some((_, setting)), Some(value)) => all.push(format!("{name}={}", entry(setting, value))),
            (Some((_, setting)), None) => {
                all.push(name.to_owned());
                let value = setting.value_name.and_then(|_| rest.next());
                all.extend(value.map(|value| entry(setting, value)));
            }
        }
    }
    all.join(" ")
}
