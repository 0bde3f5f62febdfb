//! A reader of log lines in logfmt, by the rules of Go's `go-logfmt`, which most programs use. Independent of the worker's own code.

use serde_json::Value;

const LEVELS: [&str; 4] = ["ERROR ", "WARN  ", "INFO  ", "DEBUG "];

/// Returns what follows the time, the level and the module of a log line; `None` if the line is not of the log.
pub fn event(line: &str) -> Option<&str> {
    let (time, rest) = line.split_once(' ')?;
    let is_time = time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T';
    let rest = LEVELS.iter().find_map(|level| rest.strip_prefix(level)).filter(|_| is_time)?;
    rest.strip_prefix('[')?.split_once("] ").map(|(_, event)| event)
}

/// Returns the event words and the pairs of an event.
///
/// # Errors
/// What is not logfmt, or why it is not well formed.
pub fn parse(event: &str) -> Result<(String, Vec<(String, String)>), String> {
    let mut words = Vec::new();
    let mut rest = event;
    while let Some(word) = rest.split(' ').next().filter(|word| !word.contains('=')) {
        if word.is_empty() || word.contains('"') {
            return Err(format!("the event words {event:?}"));
        }
        words.push(word);
        match rest.split_once(' ') {
            Some((_, next)) => rest = next,
            None => return Ok((words.join(" "), Vec::new())),
        }
    }
    let mut pairs = Vec::new();
    loop {
        let (key, after) = rest.split_once('=').ok_or_else(|| format!("no key in {rest:?}"))?;
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Err(format!("the key {key:?}"));
        }
        let (value, after) = value(after)?;
        if pairs.iter().any(|(other, _)| other == key) {
            return Err(format!("the key {key} comes twice"));
        }
        pairs.push((key.to_owned(), value));
        match after.strip_prefix(' ') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok((words.join(" "), pairs)),
            None => return Err(format!("text behind a value: {after:?}")),
        }
    }
}

/// Returns the value that a text begins with, and the rest.
fn value(text: &str) -> Result<(String, &str), String> {
    if !text.starts_with('"') {
        let end = text.find(' ').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        let is_wrong = |c: char| matches!(c, '"' | '=' | '\u{fffd}') || c.is_control();
        if value.is_empty() || value.contains(is_wrong) {
            return Err(format!("the value {value:?}"));
        }
        return Ok((value.to_owned(), rest));
    }
    // A quoted value is a JSON string.
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    match values.next() {
        Some(Ok(Value::String(value))) => Ok((value, text.split_at(values.byte_offset()).1)),
        other => Err(format!("{other:?} in {text:?}")),
    }
}

/// Asserts that each line of the log is well formed. The last line may be cut.
pub fn assert_well_formed(lines: &[String]) {
    let (_, whole) = lines.split_last().unwrap_or((&String::new(), &[]));
    for (line, event) in whole.iter().filter_map(|line| Some((line, event(line)?))) {
        if let Err(error) = parse(event) {
            panic!("not logfmt: {error}: {line}");
        }
    }
}
