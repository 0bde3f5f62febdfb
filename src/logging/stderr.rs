//! Stderr: whether it is a journal, and lines in one write each.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use log::{Log, Metadata, Record};
use rustix::fs::fstat;
use simple_logger::SimpleLogger;
use time::OffsetDateTime;

use super::line::{Format, Output};

/// Whether the log is in JSON.
static JSON: AtomicBool = AtomicBool::new(false);
/// Whether stderr is a journal.
static JOURNAL: AtomicBool = AtomicBool::new(false);

/// Records whether stderr is a journal. `variable` is the value of `JOURNAL_STREAM`, with which systemd names the device and the inode of
/// the stream that it has opened: stderr may be another one since.
pub(super) fn detect_journal(variable: Option<&OsStr>) {
    let is_journal = variable.and_then(OsStr::to_str).is_some_and(|variable| {
        fstat(io::stderr()).is_ok_and(|stderr| variable == format!("{}:{}", stderr.st_dev, stderr.st_ino))
    });
    JOURNAL.store(is_journal, Ordering::Relaxed);
}

/// Sets the format.
pub(super) fn set_format(format: Format) {
    JSON.store(format == Format::Json, Ordering::Relaxed);
}

/// Returns how lines are written.
pub(super) fn output() -> Output {
    let format = if JSON.load(Ordering::Relaxed) { Format::Json } else { Format::Text };
    Output { format, is_journal: JOURNAL.load(Ordering::Relaxed) }
}

/// A logger for what simple_logger does not write.
pub(super) struct Lines {
    /// Decides which events are logged.
    pub(super) filter: SimpleLogger,
    pub(super) output: Output,
    /// A line was written in part.
    pub(super) is_cut: AtomicBool,
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    /// An error, such as a full disk, is ignored, and the next line is on a line of its own.
    fn log(&self, record: &Record<'_>) {
        let (now, event) = (OffsetDateTime::now_utc(), record.args().to_string());
        let mut line = self.output.line(now, record.level(), record.target(), &event);
        if self.is_cut.load(Ordering::Relaxed) {
            line.insert(0, '\n');
        }
        self.is_cut.store(io::stderr().write_all(line.as_bytes()).is_err(), Ordering::Relaxed);
    }

    fn flush(&self) {}
}
