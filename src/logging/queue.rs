//! The queue of log lines, which a separate thread writes to stderr.
//!
//! Writes block if the reader of stderr stalls, such as a stuck service manager. With the queue, other threads never wait: lines
//! that do not fit are dropped and counted.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, Log, Metadata, Record};

/// The most lines in the queue.
const LINES: usize = 4096;

/// How long a flush waits for a place in the queue, and then for the lines before it.
const FLUSH: Duration = Duration::from_secs(1);

enum Entry {
    Line {
        level: Level,
        target: String,
        message: String,
    },
    /// The sender is dropped once all entries before this one are written.
    Flush(Sender<()>),
}

/// A logger that passes lines to a thread, which calls the real logger.
pub(super) struct Queue<L: 'static> {
    entries: Sender<Entry>,
    dropped: Arc<AtomicU64>,
    logger: &'static L,
}

impl<L: Log> Queue<L> {
    /// Starts the thread, which lasts as long as the process.
    ///
    /// # Errors
    /// When no thread can be started.
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
        let line = Entry::Line {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
        };
        if self.entries.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines are written, at most twice [`FLUSH`].
    fn flush(&self) {
        let (written, done) = bounded(0);
        if self.entries.send_timeout(Entry::Flush(written), FLUSH).is_ok() {
            // Nothing is sent: the writer drops the sender.
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

    /// A logger that waits for a permit before each line.
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
        let (permit, permits) = bounded(0);
        let (lines, written) = bounded(2 * LINES);
        (Queue::start(Slow { permits, lines }).unwrap(), permit, written)
    }

    #[test]
    fn logging_does_not_block_and_dropped_lines_are_counted() {
        let (queue, permit, written) = slow();
        let more = 10;
        // One more may have left the queue for the writer.
        for number in 0..=LINES + more {
            line(&queue, Level::Info, "t", &number.to_string());
        }
        drop(permit);
        assert_eq!(written.recv_timeout(DEADLINE).unwrap(), "INFO 0");
        let line = written.recv_timeout(DEADLINE).unwrap();
        let lines: usize = line.strip_prefix("WARN log lines dropped lines=").unwrap().parse().unwrap();
        assert!((more..=more + 1).contains(&lines), "{line}");
        assert_eq!(written.recv_timeout(DEADLINE).unwrap(), "INFO 1");
    }

    #[test]
    fn a_flush_waits_for_earlier_lines() {
        let (queue, permit, written) = slow();
        line(&queue, Level::Debug, "t", "not enabled");
        line(&queue, Level::Warn, "t", "last words");
        drop(permit);
        queue.flush();
        assert_eq!(written.try_recv(), Ok("WARN last words".to_owned()));
        assert!(written.is_empty());
    }
}
