//! Monitoring: pages over HTTP about the running worker, on a thread of their own.
//!
//! The pages are made from the state that the main thread hands over when it is asked. While it searches for the engine at start
//! it cannot be asked, and [`Monitor::waiting`] says why it waits.

mod client;
mod http;
mod pages;
mod server;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never};

use self::pages::{Facts, State, page};
use self::server::Server;
use crate::cli::Config;
use crate::logging::dropped_lines;
use crate::metrics::Steps;
use crate::sys::pool::spawn_detached;
use crate::sys::process::ProcessStats;

pub(super) use self::client::{answer_from, reached_at, status_at};
pub(super) use self::pages::{LINK_LATE, Sample};

/// How long the main thread may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long its answer is used again, so that many clients are no load for it.
const FRESH: Duration = Duration::from_millis(100);

/// A question to the main thread.
pub(super) type Query = Sender<Sample>;

/// The address of the pages cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid {setting} {address}: must be an address of this host with a port that this user may use, such as 127.0.0.1:9464"
)]
pub(super) struct Unusable {
    /// As it was set.
    setting: String,
    address: SocketAddr,
    source: io::Error,
}

/// Free space of the engine's disk at its last check.
#[derive(Debug)]
pub(super) struct DiskFree(AtomicU64);

impl Default for DiskFree {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl DiskFree {
    /// Records the free bytes.
    pub(super) fn record(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Returns the free bytes; `None` before the first check.
    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bytes| *bytes != u64::MAX)
    }
}

/// The main thread's side.
pub(super) struct Monitor {
    /// What the tasks' threads measure.
    pub(super) steps: Arc<Steps>,
    pub(super) disk_free: Arc<DiskFree>,
    start: Arc<Mutex<Start>>,
    queries: Receiver<Query>,
}

/// How far the start is.
#[derive(Debug, Default)]
enum Start {
    #[default]
    Searching,
    /// For the engine, and why it cannot be used.
    Waiting(String),
    Done,
}

impl Monitor {
    /// Starts the thread `oz-metrics` if the configuration names an address.
    ///
    /// # Errors
    /// The address cannot be used, or the system has no more threads.
    pub(super) fn start(config: &Config) -> Result<Self, Unusable> {
        let (steps, disk_free) = (Arc::new(Steps::default()), Arc::new(DiskFree::default()));
        let start = Arc::new(Mutex::new(Start::default()));
        let Some((host, port)) = config.metrics_listen else {
            return Ok(Self { steps, disk_free, start, queries: never() });
        };
        let address = SocketAddr::new(host, port);
        let unusable = |source| Unusable { setting: config.names.of("--metrics-listen"), address, source };
        let server = Server::new(address).map_err(unusable)?;
        let (asks, queries) = bounded(1);
        let began = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut source = Source {
            worker_id: config.worker_id.clone(),
            slots: config.max_concurrent_tasks,
            min_free_disk: config.min_free_disk,
            steps: Arc::clone(&steps),
            disk_free: Arc::clone(&disk_free),
            start: Arc::clone(&start),
            queries: asks,
            last: None,
            began: (Instant::now(), began),
        };
        let serve = move || {
            server.run(move |asked, is_local| {
                let state = source.state();
                page(&asked.path, is_local, &state, &source.facts())
            });
        };
        spawn_detached("oz-metrics", serve).map_err(unusable)?;
        Ok(Self { steps, disk_free, start, queries })
    }

    /// Records why the main thread waits for the engine.
    pub(super) fn waiting(&self, reason: &str) {
        self.set(Start::Waiting(reason.to_owned()));
    }

    /// Records that the main thread answers from now on. Returns its questions.
    pub(super) fn running(&mut self) -> Receiver<Query> {
        self.set(Start::Done);
        std::mem::replace(&mut self.queries, never())
    }

    fn set(&self, start: Start) {
        // Nothing that can panic runs under the lock.
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = start;
    }
}

/// Where the pages come from.
struct Source {
    worker_id: String,
    slots: usize,
    min_free_disk: u64,
    steps: Arc<Steps>,
    disk_free: Arc<DiskFree>,
    start: Arc<Mutex<Start>>,
    queries: Sender<Query>,
    /// The last answer, and when it came.
    last: Option<(Instant, State)>,
    /// When the process began.
    began: (Instant, Duration),
}

impl Source {
    fn facts(&self) -> Facts {
        Facts {
            worker_id: self.worker_id.clone(),
            slots: self.slots,
            steps: Arc::clone(&self.steps),
            started: self.began.1,
            uptime: self.began.0.elapsed(),
            process: ProcessStats::now(),
            disk_free: self.disk_free.get(),
            min_free_disk: self.min_free_disk,
            dropped_lines: dropped_lines(),
        }
    }

    fn state(&mut self) -> State {
        match &*self.start.lock().unwrap_or_else(PoisonError::into_inner) {
            Start::Searching => return State::Starting(None),
            Start::Waiting(reason) => return State::Starting(Some(reason.clone())),
            Start::Done => {}
        }
        let last = self.last.take().filter(|(came, _)| came.elapsed() < FRESH);
        let (came, state) = last.unwrap_or_else(|| {
            let state = self.ask();
            (Instant::now(), state)
        });
        self.last = Some((came, state.clone()));
        state
    }

    fn ask(&self) -> State {
        let (answer, answers) = bounded(1);
        // A question that is still there was not answered.
        match self.queries.try_send(answer) {
            Err(error) if error.is_disconnected() => return State::Ended,
            Err(_) => return State::Stuck,
            Ok(()) => {}
        }
        match answers.recv_timeout(ANSWER) {
            Ok(sample) => State::Running(Box::new(sample)),
            Err(RecvTimeoutError::Timeout) => State::Stuck,
            Err(RecvTimeoutError::Disconnected) => State::Ended,
        }
    }
}
