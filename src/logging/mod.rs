//! The log: one line an event, to stderr, in UTC.
//!
//! Owns how a line looks, what a value from outside may do to it (nothing), and what happens when stderr is closed
//! (nothing) or not read (lines are dropped). It must not know any event.
//!
//! simple_logger prints with `eprintln!`, which panics when the reader of a pipe has gone. That must not end a worker
//! with tasks, so the logger stands behind [`Guard`], and panics are reported by a hook that writes for itself: a panic
//! inside of a hook would abort the process.

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

/// The target of the events that are logged at the level of the settings.
const OWN_TARGET: &str = "oz_agent_worker";
/// The most characters of a value that are shown.
const LONGEST_VALUE: usize = 256;
/// The same for a message of our own: what to do about an error stands at its end.
const LONGEST_MESSAGE: usize = 4096;

thread_local! {
    /// Whether this thread is inside the logger, where a panic is about stderr and is nobody's business.
    static IN_LOGGER: Cell<bool> = const { Cell::new(false) };
}

/// There is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is a logger already.
    #[error("the log cannot be started")]
    Taken(#[from] SetLoggerError),
    /// The system has no more threads.
    #[error("the log cannot be started")]
    Thread(#[from] io::Error),
}

/// Starts the log, and has panics reported in it. Events of other crates are logged from `warn` on. Before the process
/// ends, `log::logger().flush()` waits a moment for the last lines.
///
/// # Errors
/// When there is a logger already, or no thread for it.
pub fn init(level: LevelFilter) -> Result<(), LogError> {
    let inner = SimpleLogger::new()
        .with_level(level.min(LevelFilter::Warn))
        .with_module_level(OWN_TARGET, level)
        .with_utc_timestamps();
    let max_level = inner.max_level();
    log::set_boxed_logger(Box::new(Queue::start(Guard::new(inner, stderr_is_open))?))?;
    log::set_max_level(max_level);
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        if let Some(event) = panic_event(thread.name(), info.location(), info.payload()) {
            let line =
                format!("{} ERROR [{}] {event}\n", timestamp(OffsetDateTime::now_utc()), module_path!());
            // Nobody is left to be told that stderr is closed.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }));
    Ok(())
}

/// A value as logfmt has it: as it is, or in quotes with escapes when it has spaces, quotes, `=` or control characters
/// or is empty; at most 256 characters of it and an ellipsis.
pub fn value(text: &str) -> impl Display + '_ {
    Value(text, LONGEST_VALUE)
}

/// The same with a bound of 4096 characters: for what this worker says itself, paths and the like included.
pub fn message(text: &str) -> impl Display + '_ {
    Value(text, LONGEST_MESSAGE)
}

/// An error with its causes, in one line.
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

/// A text and how many characters of it are shown.
struct Value<'a>(&'a str, usize);

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.0.char_indices().nth(self.1).map(|(index, _)| index);
        let text = end.and_then(|end| self.0.get(..end)).unwrap_or(self.0);
        let ellipsis = if end.is_some() { "…" } else { "" };
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

/// Whether a character could begin a new line, move the cursor or turn the direction of what follows.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn write_escaped(to: &mut impl fmt::Write, c: char) -> fmt::Result {
    write!(to, "{}", c.escape_default())
}

/// The whole message without anything that could forge a line. What went through [`value`] is not touched again.
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

/// Keeps a logger that panics from ending the thread that logs.
struct Guard<L> {
    inner: L,
    /// Set once stderr is closed for good, so that a busy worker does not unwind at every event.
    gone: AtomicBool,
    /// A full disk makes the logger panic too, but may get better.
    is_open: fn() -> bool,
}

impl<L: Log> Guard<L> {
    fn new(inner: L, is_open: fn() -> bool) -> Self {
        Self { inner, gone: AtomicBool::new(false), is_open }
    }

    fn protected(&self, work: impl FnOnce(&L)) {
        if self.gone.load(Ordering::Relaxed) {
            return;
        }
        let outer = IN_LOGGER.replace(true);
        // The inner logger has no state that a panic could leave half changed.
        let result = catch_unwind(AssertUnwindSafe(|| work(&self.inner)));
        IN_LOGGER.set(outer);
        if result.is_err() && !(self.is_open)() {
            self.gone.store(true, Ordering::Relaxed);
        }
    }
}

impl<L: Log> Log for Guard<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.gone.load(Ordering::Relaxed) || !self.enabled(record.metadata()) {
            return;
        }
        // Formatted outside of the protection: a panic in somebody's `Display` is a bug and has nothing to do with
        // stderr.
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

/// Whether anybody may still read stderr. What it writes ends the line that the failed event may have begun.
fn stderr_is_open() -> bool {
    !matches!(io::stderr().write_all(b"\n"), Err(error) if error.kind() == io::ErrorKind::BrokenPipe)
}

/// The event for a panic, or nothing for one of the logger's own. A message that was put together at run time may hold
/// a secret, so only one that stands in the program as it is is shown.
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

/// The form that simple_logger has.
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
    fn values() {
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
    fn long_values_are_cut() {
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
    fn a_logger_that_panics_is_left_alone_once_stderr_is_gone() {
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
    fn a_logger_that_panics_is_tried_again_while_stderr_is_open() {
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
    fn a_panic_is_one_line_without_what_may_be_secret() {
        let location = Location::caller();
        let fixed = panic_event(Some("oz task"), Some(location), &"index\nwrong").unwrap();
        assert!(fixed.starts_with("panic thread=\"oz task\" location=src/logging/mod.rs:"), "{fixed}");
        assert!(fixed.ends_with(" message=\"index\\nwrong\""), "{fixed}");
        let made: Box<dyn Any> = Box::new(String::from("key hunter2"));
        assert_eq!(panic_event(None, None, made.as_ref()).unwrap(), "panic thread=unnamed location=unknown");
    }

    #[test]
    fn a_panic_inside_the_logger_is_not_reported() {
        let fake = Fake::default();
        Guard::new(&fake, || true).protected(|_| assert_eq!(panic_event(None, None, &"x"), None));
        assert!(panic_event(None, None, &"x").is_some());
    }

    #[test]
    fn timestamps_have_the_form_of_the_logger() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_007);
        assert_eq!(timestamp(now), "2001-09-09T01:46:40.007Z");
    }
}
