//! The log: one line per event, to stderr, in UTC.
//!
//! simple_logger prints with `eprintln!`, which panics if the reader of stderr has closed the pipe. [`Guard`] keeps that
//! panic from ending a worker with tasks. The panic hook writes to stderr itself, since a panic in a hook would abort the
//! process.

mod queue;

use std::any::Any;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use simple_logger::SimpleLogger;
use time::OffsetDateTime;

use queue::Queue;

/// The target of the worker's own events, which are logged at the configured level.
const OWN_TARGET: &str = "oz_agent_worker";
/// How much of a value is shown, in characters.
const LONGEST_VALUE: usize = 256;
/// How much of a message of the worker is shown, in characters. Its end can say what to do about an error.
const LONGEST_MESSAGE: usize = 4096;

thread_local! {
    /// Whether this thread is inside the logger, where a panic is about stderr and is not reported.
    static IN_LOGGER: Cell<bool> = const { Cell::new(false) };
}

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

/// Reports panics as log lines, also before the log is started. The standard library's report shows formatted messages, which may
/// contain a secret.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        if let Some(event) = panic_event(thread.name(), info.location(), info.payload()) {
            let line =
                format!("{} ERROR [{}] {event}\n", timestamp(OffsetDateTime::now_utc()), module_path!());
            // If stderr is closed, there is nowhere to report it.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }));
}

/// Starts the log. Events of other crates are logged from `warn` on. Before the process ends,
/// `log::logger().flush()` waits up to two seconds for the last lines.
///
/// # Errors
/// When the process has a logger already, or no thread can be started.
pub fn init(level: LevelFilter) -> Result<(), LogError> {
    let inner = SimpleLogger::new()
        .with_level(level.min(LevelFilter::Warn))
        .with_module_level(OWN_TARGET, level)
        .with_utc_timestamps();
    let max_level = inner.max_level();
    log::set_boxed_logger(Box::new(Queue::start(Guard::new(inner, stderr_is_open))?))?;
    log::set_max_level(max_level);
    Ok(())
}

/// Returns how many lines of this process were dropped because stderr was not read.
pub fn dropped_lines() -> u64 {
    queue::dropped()
}

/// A value in logfmt: in quotes with escapes if it is empty or has spaces, quotes, `=` or control characters. Cut after 256
/// characters, with an ellipsis.
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
        let needs_quotes = |c: char| c.is_whitespace() || c == '"' || c == '=' || is_unsafe(c);
        if !text.is_empty() && !text.contains(needs_quotes) {
            return write!(f, "{text}{ellipsis}");
        }
        f.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if is_unsafe(c) => write_escaped(f, c)?,
                c => f.write_char(c)?,
            }
        }
        write!(f, "{ellipsis}\"")
    }
}

/// Whether a character could begin a new line, move the cursor or change the direction of the text that follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn write_escaped(to: &mut impl fmt::Write, c: char) -> fmt::Result {
    write!(to, "{}", c.escape_default())
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

/// Catches panics of a logger, so that they do not end the thread that logs.
struct Guard<L> {
    inner: L,
    /// Whether stderr is closed permanently. If so, the logger is not called, because each event would unwind.
    is_closed: AtomicBool,
    /// Checks whether stderr is still open. It is after a panic caused by a full disk, and logging may work again.
    is_open: fn() -> bool,
}

impl<L: Log> Guard<L> {
    fn new(inner: L, is_open: fn() -> bool) -> Self {
        Self { inner, is_closed: AtomicBool::new(false), is_open }
    }

    fn protected(&self, work: impl FnOnce(&L)) {
        if self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let outer = IN_LOGGER.replace(true);
        // The inner logger has no state that a panic could leave inconsistent.
        let result = catch_unwind(AssertUnwindSafe(|| work(&self.inner)));
        IN_LOGGER.set(outer);
        if result.is_err() && !(self.is_open)() {
            self.is_closed.store(true, Ordering::Relaxed);
        }
    }
}

impl<L: Log> Log for Guard<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.is_closed.load(Ordering::Relaxed) || !self.enabled(record.metadata()) {
            return;
        }
        // Formatted outside of `protected`: a panic in a `Display` is a defect and not about stderr.
        let message = clean(record.args().to_string());
        self.protected(|inner| {
            let mut builder = Record::builder();
            builder.metadata(record.metadata().clone()).module_path(record.module_path());
            inner.log(
                &builder.file(record.file()).line(record.line()).args(format_args!("{message}")).build(),
            );
        });
    }

    fn flush(&self) {
        self.protected(Log::flush);
    }
}

/// Whether stderr has a reader. The line break that this writes ends the line of a failed event.
fn stderr_is_open() -> bool {
    !matches!(io::stderr().write_all(b"\n"), Err(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// The event for a panic; `None` for a panic inside the logger. Only a literal message is shown, since a formatted one may
/// contain a secret.
fn panic_event(thread: Option<&str>, location: Option<&Location<'_>>, payload: &dyn Any) -> Option<String> {
    if IN_LOGGER.get() {
        return None;
    }
    let location = location.map_or(Cow::Borrowed("unknown"), |location| location.to_string().into());
    let mut event =
        format!("panic thread={} location={}", value(thread.unwrap_or("unnamed")), value(&location));
    if let Some(message) = payload.downcast_ref::<&'static str>() {
        // Writing to a string cannot fail.
        let _ = write!(event, " message={}", value(message));
    }
    Some(event)
}

/// The time as simple_logger formats it.
fn timestamp(now: OffsetDateTime) -> String {
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
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use log::Level;

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
            ("\u{1b}[1m\u{0}\u{9b}", "\"\\u{1b}[1m\\u{0}\\u{9b}\""),
            ("\u{2028}\u{202e}", "\"\\u{2028}\\u{202e}\""),
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

    #[derive(Default)]
    struct Fake {
        calls: AtomicUsize,
        lines: Mutex<Vec<String>>,
        panics: AtomicBool,
    }

    impl Log for &Fake {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Info
        }

        fn log(&self, record: &Record<'_>) {
            self.calls.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics.load(Ordering::SeqCst), "stderr: broken pipe");
            self.lines.lock().unwrap().push(format!(
                "{} {} {}",
                record.level(),
                record.target(),
                record.args()
            ));
        }

        fn flush(&self) {
            self.calls.fetch_add(1, Ordering::SeqCst);
            assert!(!self.panics.load(Ordering::SeqCst), "stderr: broken pipe");
        }
    }

    fn log_to(logger: &impl Log, level: Level, message: &str) {
        logger.log(&Record::builder().level(level).target("t").args(format_args!("{message}")).build());
    }

    #[test]
    fn the_message_cannot_begin_another_line() {
        let fake = Fake::default();
        let guard = Guard::new(&fake, || true);
        log_to(&guard, Level::Warn, "a=\"\\n\" ü\r\nINFO forged\u{85}\u{2028}\u{1b}[2J");
        log_to(&guard, Level::Debug, "not enabled");
        let expected = "WARN t a=\"\\n\" ü\\r\\nINFO forged\\u{85}\\u{2028}\\u{1b}[2J";
        assert_eq!(*fake.lines.lock().unwrap(), [expected]);
    }

    #[test]
    fn a_logger_that_panics_is_not_called_again_after_stderr_is_closed() {
        let fake = Fake::default();
        fake.panics.store(true, Ordering::SeqCst);
        let guard = Guard::new(&fake, || false);
        log_to(&guard, Level::Error, "one");
        assert!(!IN_LOGGER.get());
        log_to(&guard, Level::Error, "two");
        guard.flush();
        assert_eq!(fake.calls.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_logger_that_panics_is_called_again_while_stderr_is_open() {
        let fake = Fake::default();
        fake.panics.store(true, Ordering::SeqCst);
        let guard = Guard::new(&fake, || true);
        log_to(&guard, Level::Error, "disk full");
        guard.flush();
        fake.panics.store(false, Ordering::SeqCst);
        log_to(&guard, Level::Error, "two");
        assert_eq!(*fake.lines.lock().unwrap(), ["ERROR t two"]);
    }

    #[test]
    fn a_panic_is_one_line_without_a_formatted_message() {
        let location = Location::caller();
        let literal = panic_event(Some("oz task"), Some(location), &"index\nwrong").unwrap();
        assert!(literal.starts_with("panic thread=\"oz task\" location=src/logging/mod.rs:"), "{literal}");
        assert!(literal.ends_with(" message=\"index\\nwrong\""), "{literal}");
        let formatted: Box<dyn Any> = Box::new(String::from("key hunter2"));
        assert_eq!(
            panic_event(None, None, formatted.as_ref()).unwrap(),
            "panic thread=unnamed location=unknown"
        );
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

    #[test]
    fn a_panic_inside_the_logger_is_not_reported() {
        let fake = Fake::default();
        Guard::new(&fake, || true).protected(|_| assert_eq!(panic_event(None, None, &"x"), None));
        assert!(panic_event(None, None, &"x").is_some());
    }

    #[test]
    fn timestamps_look_like_those_of_the_logger() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_007);
        assert_eq!(timestamp(now), "2001-09-09T01:46:40.007Z");
    }
}
