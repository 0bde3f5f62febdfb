//! The queue of log lines, which a separate thread writes to stderr.
//!
//! Writes block if the reader of stderr stalls, such as a stuck service manager. With the queue, other threads never wait: lines
//! that do not fit are dropped and counted.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use log::{Level, Log, Metadata, Record};

/// The most lines in the queue.
const LINES: usize = 4096;

/// How long a flush waits for the lines before it.
const FLUSH: Duration = Duration::from_secs(2);

/// How many lines of this process did not fit.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns how many lines of this process were dropped.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Entry {
    Line {
        level: Level,
        target: String,
        message: String,
    },
    /// The sender is dropped once all entries before this one are written.
    Flush(Sender<()>),
}

/// A logger that passes lines to a thread, which calls the real logger, and flushes it when there are no more.
pub(super) struct Queue<L: 'static> {
    entries: Arc<Entries>,
    logger: &'static L,
}

/// Not a channel: its receiver spins and yields before each wait, which took longer than the line.
#[derive(Default)]
struct Entries {
    state: Mutex<State>,
    added: Condvar,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// How many lines did not fit since this was last taken.
    dropped: u64,
    /// The thread waits for an entry.
    waiting: bool,
}

impl Entries {
    fn add(&self, entry: Entry) {
        let mut state = self.lock();
        if state.entries.len() >= LINES && matches!(entry, Entry::Line { .. }) {
            state.dropped += 1;
            DROPPED.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.entries.push_back(entry);
        if std::mem::take(&mut state.waiting) {
            drop(state);
            self.added.notify_one();
        }
    }

    /// Waits for the next entry. Calls `idle` first if there is none.
    fn next(&self, idle: impl FnOnce()) -> Entry {
        if let Some(entry) = self.lock().entries.pop_front() {
            return entry;
        }
        idle();
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                state.waiting = false;
                return entry;
            }
            state.waiting = true;
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns how many lines were dropped since the last call.
    fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.lock().dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Log> Queue<L> {
    /// Starts the thread, which lasts as long as the process.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(logger: L) -> io::Result<Self> {
        let logger: &'static L = Box::leak(Box::new(logger));
        let entries = Arc::<Entries>::default();
        let queued = Arc::clone(&entries);
        Builder::new().name("oz-log".to_owned()).spawn(move || {
            loop {
                write(logger, queued.next(|| logger.flush()));
                let lines = queued.take_dropped();
                if lines > 0 {
                    line(logger, Level::Warn, module_path!(), &format!("log lines dropped lines={lines}"));
                }
            }
        })?;
        Ok(Self { entries, logger })
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
        self.entries.add(Entry::Line {
            level: record.level(),
            target: record.target().to_owned(),
            message: record.args().to_string(),
        });
    }

    /// Waits until all lines are written, at most [`FLUSH`].
    fn flush(&self) {
        let (written, done) = bounded(0);
        self.entries.add(Entry::Flush(written));
        // Nothing is sent: the writer drops the sender.
        let _ = done.recv_timeout(FLUSH);
    }
}

fn write(logger: &impl Log, entry: Entry) {
    match entry {
        Entry::Line { level, target, message } => line(logger, level, &target, &message),
        Entry::Flush(written) => {
            logger.flush();
            drop(written);
        }
    }
}

fn line(logger: &impl Log, level: Level, target: &str, message: &str) {
    logger.log(&Record::builder().level(level).target(target).args(format_args!("{message}")).build());
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::Receiver;

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

    /// A logger that says when it is flushed, and waits for a permit after each line.
    struct Flushed {
        permits: Receiver<()>,
        calls: Sender<String>,
    }

    impl Log for Flushed {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            self.calls.send(record.args().to_string()).unwrap();
            let _ = self.permits.recv();
        }

        fn flush(&self) {
            self.calls.send("flush".to_owned()).unwrap();
        }
    }

    #[test]
    fn lines_that_are_in_the_queue_are_flushed_together() {
        let ((permit, permits), (calls, called)) = (bounded(0), bounded(16));
        let queue = Queue::start(Flushed { permits, calls }).unwrap();
        let next = || called.recv_timeout(DEADLINE).unwrap();
        assert_eq!(next(), "flush", "the thread is idle");
        line(&queue, Level::Info, "t", "1");
        assert_eq!(next(), "1");
        line(&queue, Level::Info, "t", "2");
        line(&queue, Level::Info, "t", "3");
        drop(permit);
        assert_eq!([next(), next(), next()], ["2", "3", "flush"]);
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
