//! Stderr: whether it is a journal, and writing to it.

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Log, Metadata, Record};
use rustix::fs::fstat;
use simple_logger::SimpleLogger;
use time::OffsetDateTime;

use super::event;
use super::line::{Format, Output};

/// The most bytes of lines that are written at once, except for a longer line: what a pipe takes as a whole (`PIPE_BUF`).
const AT_ONCE: usize = 4096;

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

/// Writes lines to stderr when it is flushed, or has many.
pub(super) struct Lines {
    /// Decides which events are logged.
    filter: SimpleLogger,
    output: Output,
    unwritten: Mutex<Unwritten>,
}

#[derive(Default)]
struct Unwritten {
    lines: String,
    /// A line before these was written in part.
    is_cut: bool,
}

impl Lines {
    /// Logs the events that pass `filter`.
    pub(super) fn new(filter: SimpleLogger, output: Output) -> Self {
        Self { filter, output, unwritten: Mutex::default() }
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unwritten {
    /// An error, such as a full disk, is ignored, and the next line is on a line of its own.
    fn write(&mut self, stderr: &mut impl io::Write) {
        if self.lines.is_empty() {
            return;
        }
        if self.is_cut {
            self.lines.insert(0, '\n');
        }
        self.is_cut = stderr.write_all(self.lines.as_bytes()).is_err();
        self.lines.clear();
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let (now, event) = (OffsetDateTime::now_utc(), event(record));
        let line = self.output.line(now, record.level(), record.target(), &event);
        let mut unwritten = self.unwritten();
        if unwritten.lines.len() + line.len() > AT_ONCE {
            unwritten.write(&mut io::stderr());
        }
        unwritten.lines += &line;
    }

    fn flush(&self) {
        self.unwritten().write(&mut io::stderr());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a number of bytes, and remembers its writes.
    struct Disk {
        free: usize,
        writes: Vec<String>,
    }

    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.free);
            self.free -= taken;
            self.writes.push(String::from_utf8_lossy(&bytes[..taken]).into_owned());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_at_once_and_never_into_a_cut_one() {
        let (mut disk, mut unwritten) = (Disk { free: 6, writes: Vec::new() }, Unwritten::default());
        let mut log = |text: &str, disk: &mut Disk| {
            unwritten.lines += text;
            unwritten.write(disk);
        };
        log("a\nb\n", &mut disk);
        log("", &mut disk);
        log("cut\n", &mut disk);
        disk.free = 100;
        log("c\n", &mut disk);
        log("d\n", &mut disk);
        assert_eq!(disk.writes, ["a\nb\n", "cu", "", "\nc\n", "d\n"]);
    }
}
