//! Work that may block, each on a thread of its own: checks of the engine and its disk, and sweeps. The main thread takes the results
//! as events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, warn};

use super::disk::DiskWatch;
use crate::coordinator::Event;
use crate::docker::{Docker, Error};
use crate::logging::{error_chain, value};
use crate::sys::cancel::CancelToken;
use crate::sys::pool::spawn_detached;
use crate::task::processes::Processes;
use crate::task::{adopt, failed};

/// When a sweep that failed is repeated.
const SWEEP_AGAIN: Duration = Duration::from_secs(60);

/// The most results that wait: one each of a check of the disk, a ping, a regular check and a sweep, and two of the late sweep.
const RESULTS: usize = 6;

/// Starts the threads. The coordinator starts no work that is under way already, except the regular check.
pub(super) struct Background {
    pub(super) docker: Docker,
    /// `None` if there is no disk to check.
    pub(super) disk: Option<DiskWatch>,
    pub(super) worker_id: String,
    pub(super) processes: Arc<Processes>,
    /// How long containers of failed tasks are kept.
    pub(super) keep_failed: Duration,
    /// Ends sweeps when it is cancelled.
    pub(super) stopping: CancelToken,
    pub(super) results: Results,
}

/// Takes the events.
pub(super) struct Results {
    events: Sender<Event>,
    /// A regular check is under way.
    checking: Arc<AtomicBool>,
}

/// Ends with the regular check, in whatever way that ends.
struct Checking(Arc<AtomicBool>);

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Results {
    /// Returns the sender and the receiver of the events.
    pub(super) fn new() -> (Self, Receiver<Event>) {
        let (events, received) = bounded(RESULTS);
        (Self { events, checking: Arc::default() }, received)
    }

    /// Runs `work` on a thread of this name and sends its events, or those of `otherwise` without a thread or after a panic.
    fn start(
        &self,
        name: &str,
        work: impl FnOnce() -> Vec<Event> + Send + 'static,
        otherwise: fn(String) -> Vec<Event>,
    ) {
        let events = self.events.clone();
        let run = move || {
            let done = catch_unwind(AssertUnwindSafe(work));
            send(&events, done.unwrap_or_else(|_| otherwise("a panic".to_owned())));
        };
        if let Err(error) = spawn_detached(name, run) {
            send(&self.events, otherwise(error.to_string()));
        }
    }

    /// Makes a regular check, unless one is under way. Its result is sent if something cannot be used, or else if `tell` is set.
    /// Without that, the main thread sleeps on.
    fn check(&self, tell: bool, work: impl FnOnce() -> (Option<String>, Option<String>) + Send + 'static) {
        if self.checking.swap(true, Ordering::AcqRel) {
            return;
        }
        let checking = Checking(Arc::clone(&self.checking));
        let check = move || {
            let _checking = checking;
            let (engine, disk) = work();
            let is_told = tell || engine.is_some() || disk.is_some();
            is_told.then_some(Event::Checked { engine, disk }).into_iter().collect()
        };
        self.start("oz-ping", check, |error| {
            warn!("engine check failed error={}", value(&error));
            Vec::new()
        });
    }
}

/// If the channel is full, the main thread has a result of the same kind that it did not take yet.
fn send(results: &Sender<Event>, events: Vec<Event>) {
    events.into_iter().for_each(|event| drop(results.try_send(event)));
}

impl Background {
    /// Checks the free space of the disk: [`Event::DiskChecked`]. A network file system can hang.
    pub(super) fn check_disk(&self) {
        let disk = self.disk.clone();
        let check = move || vec![Event::DiskChecked { low: disk.as_ref().and_then(DiskWatch::low) }];
        self.results.start("oz-disk", check, |error| {
            warn!("disk check failed error={}", value(&error));
            vec![Event::DiskChecked { low: None }]
        });
    }

    /// Asks whether the engine answers: [`Event::EnginePinged`].
    pub(super) fn ping_engine(&self) {
        let docker = self.docker.clone();
        let ping = move || vec![Event::EnginePinged { error: ping(&docker) }];
        self.results.start("oz-ping", ping, |error| vec![Event::EnginePinged { error: Some(error) }]);
    }

    /// Makes the regular check of the engine and its disk: [`Event::Checked`] if there is something to tell.
    pub(super) fn check(&self, tell: bool) {
        let (docker, disk) = (self.docker.clone(), self.disk.clone());
        self.results.check(tell, move || (ping(&docker), disk.as_ref().and_then(DiskWatch::low)));
    }

    /// Removes kept containers that are due: [`Event::FailedSwept`]. If `is_late`, also removes what the engine created late:
    /// [`Event::LateSwept`].
    pub(super) fn sweep(&self, is_late: bool) {
        let (docker, stopping, keep) = (self.docker.clone(), self.stopping.clone(), self.keep_failed);
        let (worker_id, processes) = (self.worker_id.clone(), Arc::clone(&self.processes));
        let sweep = move || {
            let mut events = Vec::new();
            if is_late {
                let swept = adopt::late_sweep(&docker, &stopping, &worker_id, &processes);
                let swept = log_sweep("late sweep", swept);
                let again = swept.as_ref().is_none_or(|swept| !swept.is_complete);
                let unstarted = swept.map(|swept| swept.unstarted).unwrap_or_default();
                events.push(Event::LateSwept { unstarted, again });
            }
            let failed = failed::sweep(&docker, &stopping, &worker_id, &processes, keep);
            let due = log_sweep("sweep of failed containers", failed).unwrap_or(Some(SWEEP_AGAIN));
            events.push(Event::FailedSwept { due });
            events
        };
        self.results.start("oz-sweep", sweep, not_swept(is_late));
    }
}

/// Returns the events of a sweep that did not end, or had no thread.
fn not_swept(is_late: bool) -> fn(String) -> Vec<Event> {
    let failed = |error: String| {
        warn!("sweep failed error={}", value(&error));
        vec![Event::FailedSwept { due: Some(SWEEP_AGAIN) }]
    };
    let late = |error: String| {
        warn!("late sweep failed error={}", value(&error));
        let late = Event::LateSwept { unstarted: Vec::new(), again: true };
        vec![late, Event::FailedSwept { due: Some(SWEEP_AGAIN) }]
    };
    if is_late { late } else { failed }
}

/// Returns why the engine does not answer, for people.
fn ping(docker: &Docker) -> Option<String> {
    docker.ping(&CancelToken::new()).err().map(|error| error_chain(&error))
}

/// Logs the result of a sweep, and returns it if it succeeded.
fn log_sweep<T>(sweep: &str, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(done) => {
            debug!("{sweep} done");
            return Some(done);
        }
        Err(error) if error.is_cancelled() => {}
        Err(error) => warn!("{sweep} failed error={}", value(&error_chain(&error))),
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Returns the engine's error in the next event.
    fn next(events: &Receiver<Event>) -> Option<String> {
        match events.recv_timeout(DEADLINE) {
            Ok(Event::Checked { engine: error, .. } | Event::EnginePinged { error }) => error,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until no regular check is under way.
    fn idle(results: &Results) {
        let end = Instant::now() + DEADLINE;
        while results.checking.load(Ordering::Acquire) {
            assert!(Instant::now() < end, "the check goes on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_regular_check_tells_of_problems_and_otherwise_on_request_only() {
        let (results, events) = Results::new();
        results.check(false, || (None, None));
        idle(&results);
        results.check(false, || (Some("away".to_owned()), None));
        assert_eq!(next(&events).as_deref(), Some("away"));
        idle(&results);
        results.check(true, || (None, None));
        assert_eq!(next(&events), None);
        assert!(events.is_empty());
    }

    #[test]
    fn one_regular_check_runs_at_a_time_also_after_a_panic() {
        let (results, events) = Results::new();
        let (open, gate) = bounded::<()>(0);
        results.check(true, move || {
            let _ = gate.recv();
            panic!("on purpose")
        });
        results.check(true, || unreachable!("one is under way"));
        drop(open);
        idle(&results);
        results.check(true, || (None, None));
        assert_eq!(next(&events), None);
    }

    #[test]
    fn a_late_sweep_that_does_not_end_is_repeated() {
        let (results, events) = Results::new();
        for is_late in [true, false] {
            results.start("oz-sweep", || panic!("on purpose"), not_swept(is_late));
            let next = || events.recv_timeout(DEADLINE).unwrap();
            if is_late {
                let event = next();
                assert!(matches!(event, Event::LateSwept { again: true, .. }), "{event:?}");
            }
            let event = next();
            assert!(matches!(event, Event::FailedSwept { due: Some(SWEEP_AGAIN) }), "{event:?}");
        }
    }

    #[test]
    fn work_that_panics_has_an_answer() {
        let (results, events) = Results::new();
        let otherwise = |error| vec![Event::EnginePinged { error: Some(error) }];
        results.start("oz-ping", || panic!("on purpose"), otherwise);
        assert_eq!(next(&events).as_deref(), Some("a panic"));
    }
}
