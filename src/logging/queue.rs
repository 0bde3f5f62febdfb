//! The lines on their way to stderr: whoever logs never waits for who reads.
//!
//! Owns the bound, what happens beyond it (lines are dropped, and counted in a line of their own), and the thread that
//! writes. It must not know how a line looks.
//!
//! A log that is not read, as that of a stuck service manager, fills its pipe, and then a write blocks. That must not
//! stop the thread that claims tasks and sends reports.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, Log, Metadata, Record};

/// Lines that wait, at most.
const LINES: usize = 4096;

/// How long the end of the process waits for lines to be written.
const FLUSH: Duration = Duration::from_secs(1);

enum Entry {
    Line {
        level: Level,
        target: String,
        message: String,
    },
    /// Everything before this has been written once the sender is dropped.
    Flush(Sender<()>),
}

/// Hands lines to a thread that has the real logger.
pub(super) struct Queue<L: 'static> {
    entries: Sender<Entry>,
    dropped: Arc<AtomicU64>,
    logger: &'static L,
}

impl<L: Log> Queue<L> {
    /// Starts the thread, which lasts as long as the process.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn start(logger: L) -> io::Result<Self> {
        let logger: &'static L = Box::leak(Box::new(logger));
        let (entries, queued) = bounded(LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&dropped);
        Builder::new().name("oz-log".to_owned()).spawn(move || write(logger, &queued, &counter))?;
        Ok(Self { entries, dropped, logger })
    }
}

impl<L: Log> Log for Queue<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (target, message) = (record.target().to_owned(), record.args().to_string());
        let line = Entry::Line { level: record.level(), target, message };
        if self.entries.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines are written, but not for ever.
    fn flush(&self) {
        let (written, done) = bounded(0);
        if self.entries.send_timeout(Entry::Flush(written), FLUSH).is_ok() {
            // Nothing is ever sent: the end of the channel, or of the patience, is what is waited for.
            let _ = done.recv_timeout(FLUSH);
        }
    }
}

fn write(logger: &impl Log, queued: &Receiver<Entry>, dropped: &AtomicU64) {
    for entry in queued {
        match entry {
            Entry::Line { level, target, message } => line(logger, level, &target, &message),
            Entry::Flush(written) => {
                logger.flush();
                drop(written);
            }
        }
        let lines = dropped.swap(0, Ordering::Relaxed);
        if lines > 0 {
            line(logger, Level::Warn, module_path!(), &format!("log lines dropped lines={lines}"));
        }
    }
}

fn line(logger: &impl Log, level: Level, target: &str, message: &str) {
    logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Waits for a permit before each line, and passes it on.
    struct Slow {
        permits: Receiver<()>,
        lines: Sender<String>,
    }

    impl Log for Slow {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.level() <= Level::Info
        }

        fn log(&self, record: &Record<'_>) {
            let _ = self.permits.recv();
            let _ = self.lines.send(format!("{} {}", record.level(), record.args()));
        }

        fn flush(&self) {}
    }

    fn slow() -> (Queue<Slow>, Sender<()>, Receiver<String>) {
        let ((permit, permits), (lines, written)) = (bounded(0), bounded(2 * LINES));
        (Queue::start(Slow { permits, lines }).unwrap(), permit, written)
    }

    #[test]
    fn whoever_logs_goes_on_when_nobody_reads_and_what_is_dropped_is_counted() {
        let (queue, permit, written) = slow();
        let more = 10;
        // One more may have left the queue for the writer.
        for number in 0..=LINES + more {
            line(&queue, Level::Info, "t", &number.to_string());
        }
        drop(permit);
        assert_eq!(written.recv_timeout(DEADLINE).unwrap(), "INFO 0");
        let told = written.recv_timeout(DEADLINE).unwrap();
        let lines: usize = told.strip_prefix("WARN log lines dropped lines=").unwrap().parse().unwrap();
        assert!((more..=more + 1).contains(&lines), "{told}");
        assert_eq!(written.recv_timeout(DEADLINE).unwrap(), "INFO 1");
    }

    #[test]
    fn a_flush_waits_for_what_was_logged_before() {
        let (queue, permit, written) = slow();
        line(&queue, Level::Debug, "t", "not enabled");
        line(&queue, Level::Warn, "t", "last words");
        drop(permit);
        queue.flush();
        assert_eq!(written.try_recv(), Ok("WARN last words".to_owned()));
        assert!(written.is_empty());
    }
}
