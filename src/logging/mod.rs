//! The log: one line per event, to stderr, in UTC, as text or as JSON.
//!
//! simple_logger decides which events are logged. It does not write them: it takes two writes for a line, and panics if the reader of
//! stderr has closed the pipe.

mod line;
mod queue;
mod setting_names;
mod stderr;

use std::any::Any;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::panic::Location;

use log::{Level, LevelFilter, Record, SetLoggerError};
use simple_logger::SimpleLogger;
use time::OffsetDateTime;

pub use line::Format;
use line::{is_unsafe, write_escaped, write_quoted};
use queue::Queue;
pub use setting_names::SettingNames;
use stderr::{Lines, output};

/// The variable with which systemd names the journal that stderr is.
pub const JOURNAL_STREAM: &str = "JOURNAL_STREAM";
/// The target of the worker's own events, which are logged at the configured level.
const OWN_TARGET: &str = "oz_agent_worker";
/// How much of a value is shown, in characters.
const LONGEST_VALUE: usize = 256;
/// How much of a message of the worker is shown, in characters. Its end can say what to do about an error.
const LONGEST_MESSAGE: usize = 4096;

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The process has a logger already.
    #[error("the log cannot be started")]
    Taken(#[from] SetLoggerError),
    /// No thread could be started.
    #[error("the log cannot be started")]
    Thread(#[from] io::Error),
}

/// Records whether stderr is a journal. `variable` is the value of [`JOURNAL_STREAM`].
pub fn detect_journal(variable: Option<&OsStr>) {
    stderr::detect_journal(variable);
}

/// Returns the priority that begins a line on a journal; empty if stderr is none. For lines that the log does not write.
pub fn priority(level: Level) -> &'static str {
    if output().is_journal { line::priority(level) } else { "" }
}

/// Reports panics as log lines, also before the log is started. The standard library's report shows formatted messages, which may
/// contain a secret.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let event = panic_event(thread.name(), info.location(), info.payload());
        let line = output().line(OffsetDateTime::now_utc(), Level::Error, module_path!(), &event);
        // If stderr is closed, there is nowhere to report it. `eprintln!` would panic, which aborts the process in a hook.
        let _ = io::stderr().write_all(line.as_bytes());
    }));
}

/// Starts the log. Events of other crates are logged from `warn` on. Before the process ends,
/// `log::logger().flush()` waits up to two seconds for the last lines.
///
/// # Errors
/// When the process has a logger already, or no thread can be started.
pub fn init(level: LevelFilter, format: Format) -> Result<(), LogError> {
    stderr::set_format(format);
    let simple = SimpleLogger::new()
        .with_level(level.min(LevelFilter::Warn))
        .with_module_level(OWN_TARGET, level)
        .with_utc_timestamps();
    let max_level = simple.max_level();
    log::set_boxed_logger(Box::new(Queue::start(Lines::new(simple, output()))?))?;
    log::set_max_level(max_level);
    Ok(())
}

/// Returns how many lines of this process were dropped because stderr was not read.
pub fn dropped_lines() -> u64 {
    queue::dropped()
}

/// A value in logfmt: in quotes, with the escapes of JSON, if it is empty or has spaces, quotes, `=` or control characters. Cut after
/// 256 characters, with an ellipsis.
pub fn value(text: &str) -> impl Display + '_ {
    Value(text, LONGEST_VALUE)
}

/// A value in logfmt, cut after 4096 characters: for messages of the worker itself.
pub fn message(text: &str) -> impl Display + '_ {
    Value(text, LONGEST_MESSAGE)
}

/// An error with its causes, on one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// A text, and how many characters of it are shown.
struct Value<'a>(&'a str, usize);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(whole, limit) = *self;
        let end = whole.char_indices().nth(limit).map(|(index, _)| index);
        let (text, ellipsis) = match end.and_then(|end| whole.split_at_checked(end)) {
            Some((start, _)) => (start, "…"),
            None => (whole, ""),
        };
        // Readers of logfmt take U+FFFD without quotes for an error.
        let needs_quotes = |c: char| c.is_whitespace() || matches!(c, '"' | '=' | '\u{fffd}') || is_unsafe(c);
        if !text.is_empty() && !text.contains(needs_quotes) {
            return write!(f, "{text}{ellipsis}");
        }
        write_quoted(f, text, ellipsis)
    }
}

/// The message with unsafe characters escaped, so that it stays on one line. Output of [`value`] has none.
fn clean(message: String) -> String {
    if !message.contains(is_unsafe) {
        return message;
    }
    let mut clean = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        // Writing to a string cannot fail.
        let _ = if is_unsafe(c) { write_escaped(&mut clean, c) } else { clean.write_char(c) };
    }
    clean
}

/// Returns the text of an event, on one line. That of another crate is not logfmt.
fn event(record: &Record<'_>) -> String {
    let text = record.args().to_string();
    let is_own = record.target().split("::").next() == Some(OWN_TARGET);
    clean(if is_own { text } else { format!("library message text={}", message(&text)) })
}

/// The event for a panic. Only a literal message is shown, since a formatted one may contain a secret.
fn panic_event(thread: Option<&str>, location: Option<&Location<'_>>, payload: &dyn Any) -> String {
    let location = location.map_or(Cow::Borrowed("unknown"), |location| location.to_string().into());
    let mut event =
        format!("panic thread={} location={}", value(thread.unwrap_or("unnamed")), value(&location));
    if let Some(message) = payload.downcast_ref::<&'static str>() {
        // Writing to a string cannot fail.
        let _ = write!(event, " text={}", value(message));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_escaped() {
        let cases = [
            ("plain", "plain"),
            ("wss://h:1/x-y_z.%20,[1]", "wss://h:1/x-y_z.%20,[1]"),
            ("back\\slash", "back\\slash"),
            ("übel", "übel"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
            ("say \"x\\y\"", "\"say \\\"x\\\\y\\\"\""),
            ("a\nb\tc\rd", "\"a\\nb\\tc\\rd\""),
            ("\u{1b}[1m\u{0}\u{9b}", "\"\\u001b[1m\\u0000\\u009b\""),
            ("\u{2028}\u{202e}", "\"\\u2028\\u202e\""),
            ("\u{fffd}", "\"\u{fffd}\""),
            ("\u{a0}", "\"\u{a0}\""),
        ];
        for (text, expected) in cases {
            assert_eq!(value(text).to_string(), expected, "{text:?}");
        }
    }

    #[test]
    fn long_values_are_cut_with_an_ellipsis() {
        let whole = "ü".repeat(LONGEST_VALUE);
        assert_eq!(value(&whole).to_string(), whole);
        assert_eq!(value(&format!("{whole}\n")).to_string(), format!("{whole}…"));
        let spaces = " ".repeat(LONGEST_VALUE + 1);
        assert_eq!(value(&spaces).to_string(), format!("\"{}…\"", " ".repeat(LONGEST_VALUE)));
        assert_eq!(message(&spaces).to_string(), format!("\"{spaces}\""));
        assert_eq!(message(&" ".repeat(5000)).to_string().chars().count(), LONGEST_MESSAGE + 3);
    }

    /// Returns the text that a logger gets for a record.
    fn text_of(target: &str, text: &str) -> String {
        event(&Record::builder().target(target).args(format_args!("{text}")).build())
    }

    #[test]
    fn the_message_cannot_begin_another_line() {
        let text = text_of(OWN_TARGET, "a=\"\\n\" ü\r\nINFO forged\u{85}\u{2028}\u{1b}[2J");
        assert_eq!(text, "a=\"\\n\" ü\\r\\nINFO forged\\u0085\\u2028\\u001b[2J");
    }

    /// So that it is logfmt.
    #[test]
    fn the_text_of_another_crate_is_a_value() {
        let cases = [
            ("oz_agent_worker::app", "a=b c"),
            ("oz_agent_workers", "library message text=\"a=b c\""),
            ("rustls::x", "library message text=\"a=b c\""),
        ];
        for (target, expected) in cases {
            assert_eq!(text_of(target, "a=b c"), expected, "{target}");
        }
    }

    #[test]
    fn a_panic_is_one_line_without_a_formatted_message() {
        let location = Location::caller();
        let literal = panic_event(Some("oz task"), Some(location), &"index\nwrong");
        assert!(literal.starts_with("panic thread=\"oz task\" location=src/logging/mod.rs:"), "{literal}");
        assert!(literal.ends_with(" text=\"index\\nwrong\""), "{literal}");
        let formatted: Box<dyn Any> = Box::new(String::from("key hunter2"));
        assert_eq!(panic_event(None, None, formatted.as_ref()), "panic thread=unnamed location=unknown");
    }

    #[test]
    #[ignore = "run by the test below in a separate process"]
    fn panics_with_a_secret() {
        report_panics();
        // As of a slice that ends within a character.
        let secret = String::from("ab\u{e9}hunter2");
        assert_eq!(secret.get(..3).unwrap_or_else(|| panic!("byte 3 of {secret}")), "");
    }

    #[test]
    fn a_panic_is_reported_without_its_formatted_message() {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "logging::tests::panics_with_a_secret", "--ignored", "--nocapture"]);
        let output = command.output().unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            !output.status.success() && text.contains(" ERROR [oz_agent_worker::logging] panic thread="),
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
