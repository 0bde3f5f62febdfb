//! How a line of the log is written. Pure.
//!
//! The text of an event is logfmt: event words, then `key=value`. A quoted value has the escapes of a JSON string, so that the line
//! in JSON has it unchanged.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use log::Level;
use time::OffsetDateTime;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Time, level, module, event words and pairs.
    Text,
    /// One object a line.
    Json,
}

/// What stderr gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) format: Format,
    /// Stderr is a journal, which takes a priority in front of each line and has the time.
    pub(super) is_journal: bool,
}

/// The fields that every object has; `time` only without a journal.
const FIELDS: [&str; 4] = ["time", "level", "target", "message"];

impl Output {
    /// Returns the line of an event, with a line break. `event` is on one line already.
    pub(super) fn line(self, now: OffsetDateTime, level: Level, target: &str, event: &str) -> String {
        let priority = if self.is_journal { priority(level) } else { "" };
        let time = (!self.is_journal).then(|| timestamp(now));
        match self.format {
            Format::Text => {
                let time = time.map(|time| time + " ").unwrap_or_default();
                format!("{priority}{time}{level:<5} [{target}] {event}\n")
            }
            Format::Json => {
                let time = time.map(|time| format!("\"time\":\"{time}\",")).unwrap_or_default();
                format!("{priority}{{{time}\"level\":\"{level}\",{}}}\n", Object { target, event })
            }
        }
    }
}

/// The priority of syslog(3) in front of a line of a journal.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// The fields of an event.
struct Object<'a> {
    target: &'a str,
    event: &'a str,
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nothing of an event that is not logfmt is lost.
        let (words, pairs) = parse(self.event).unwrap_or((self.event, Vec::new()));
        f.write_str("\"target\":")?;
        write_quoted(f, self.target, "")?;
        f.write_str(",\"message\":")?;
        write_quoted(f, words, "")?;
        let mut names: BTreeSet<String> = FIELDS.map(str::to_owned).into();
        for (key, value) in pairs {
            let mut name = key.to_owned();
            while !names.insert(name.clone()) {
                name.push('_');
            }
            f.write_char(',')?;
            write_quoted(f, &name, "")?;
            f.write_char(':')?;
            if value.starts_with('"') {
                f.write_str(value)?;
            } else {
                write_quoted(f, value, "")?;
            }
        }
        Ok(())
    }
}

/// Returns the event words, and each key with its value, which is quoted if it was. `None` if it is not logfmt.
pub(super) fn parse(event: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let starts = std::iter::once(0).chain(event.match_indices(' ').map(|(at, _)| at + 1));
    let start = starts.filter_map(|at| event.split_at_checked(at)).find(|(_, rest)| key(rest).is_some());
    let (words, mut rest) = start.unwrap_or((event, ""));
    let words = words.trim_end();
    if words.contains(['=', '"']) {
        return None;
    }
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = key(rest)?;
        let (value, after) = after.split_at_checked(end_of_value(after)?)?;
        pairs.push((key, value));
        rest = match after.strip_prefix(' ') {
            Some(rest) if !rest.is_empty() => rest,
            None if after.is_empty() => "",
            _ => return None,
        };
    }
    Some((words, pairs))
}

/// Returns the key that a text begins with, and what is behind its `=`.
fn key(text: &str) -> Option<(&str, &str)> {
    let (key, rest) = text.split_once('=')?;
    let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!key.is_empty() && key.chars().all(is_key)).then_some((key, rest))
}

/// Returns the length of the value that a text begins with; `None` if it is not valid.
fn end_of_value(text: &str) -> Option<usize> {
    let Some(inner) = text.strip_prefix('"') else {
        let end = text.find(' ').unwrap_or(text.len());
        let is_plain = !text.split_at(end).0.contains(['"', '=']);
        return (end > 0 && is_plain).then_some(end);
    };
    let mut escaped = false;
    let end = inner.find(|c| {
        let is_end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    })?;
    let length = end + 2;
    let is_json = serde_json::from_str::<String>(text.split_at(length).0).is_ok();
    is_json.then_some(length)
}

/// Writes a text and `tail` in quotes with the escapes of JSON.
pub(super) fn write_quoted(to: &mut impl fmt::Write, text: &str, tail: &str) -> fmt::Result {
    to.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(to, "\\{c}")?,
            c if is_unsafe(c) => write_escaped(to, c)?,
            c => to.write_char(c)?,
        }
    }
    write!(to, "{tail}\"")
}

/// Whether a character could begin a new line, move the cursor or change the direction of the text that follows.
pub(super) fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes an unsafe character, of which none needs more than four hexadecimal digits.
pub(super) fn write_escaped(to: &mut impl fmt::Write, c: char) -> fmt::Result {
    match c {
        '\n' => to.write_str("\\n"),
        '\r' => to.write_str("\\r"),
        '\t' => to.write_str("\\t"),
        c => write!(to, "\\u{:04x}", u32::from(c)),
    }
}

/// The time in RFC 3339 with milliseconds.
pub(super) fn timestamp(now: OffsetDateTime) -> String {
    let (date, time) = (now.date(), now.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
