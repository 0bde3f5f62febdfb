//! The threads `oz-poller-N`, which look up the states of runs in batches.

use std::io;
use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use log::{Level, debug, log};

use super::{ControlPlane, LookupError};
use crate::job::JobId;
use crate::logging::{error_chain, message, value};
use crate::protocol::RunState;
use crate::sys::cancel::Never;
use crate::sys::pool::Pool;

/// The jobs of a batch whose run has a known state.
pub type RunStates = Vec<(JobId, RunState)>;

/// Looks up one batch at a time, on a thread that ends with it. Dropping it waits for the current look-up, at most until its
/// deadline, and skips the rest.
pub struct RunPoller {
    pool: Pool<Vec<(JobId, String)>>,
    /// Dropped to stop the thread after the current look-up.
    open: Option<Sender<Never>>,
}

impl RunPoller {
    /// Sends to `answers` once per batch, even if no state was found.
    pub fn new(control_plane: ControlPlane, answers: Sender<RunStates>) -> Self {
        let begin = move || {
            let session = control_plane.session();
            move |id: &str| session.run_state(id)
        };
        Self::with(begin, answers)
    }

    /// Calls `begin` for each batch, and the function that it returns for each id.
    fn with<L>(begin: impl Fn() -> L + Send + Sync + 'static, answers: Sender<RunStates>) -> Self
    where
        L: FnMut(&str) -> Result<RunState, LookupError>,
    {
        let (open, closed) = bounded(0);
        let work = move |runs: Vec<(JobId, String)>| {
            let mut found = Vec::new();
            // The panic hook logs a panic. The states found before it are valid.
            let _ = catch_unwind(AssertUnwindSafe(|| poll_all(&runs, &closed, &mut begin(), &mut found)));
            select! {
                send(answers, found) -> _ => {}
                recv(closed) -> _ => {}
            }
        };
        Self { pool: Pool::new("oz-poller", 1, work), open: Some(open) }
    }

    /// Takes a batch of jobs with the ids of their runs; never blocks.
    ///
    /// # Errors
    /// There will be no answer: the system has no more threads, or another batch waits already, besides the current one.
    pub fn poll(&self, runs: Vec<(JobId, String)>) -> io::Result<()> {
        self.pool.give(runs)
    }

    /// Makes the drop wait for nothing, for a process that ends at once.
    pub fn abandon(&mut self) {
        self.open = None;
        self.pool.abandon();
    }
}

impl Drop for RunPoller {
    fn drop(&mut self) {
        // Before the pool waits for its thread.
        self.open = None;
    }
}

/// Looks up each run until a systemic failure or until `closed` is disconnected. Logs at most one warning.
fn poll_all(
    runs: &[(JobId, String)],
    closed: &Receiver<Never>,
    look_up: &mut impl FnMut(&str) -> Result<RunState, LookupError>,
    found: &mut RunStates,
) {
    let mut warned = false;
    for (left, (job, id)) in (0..runs.len()).rev().zip(runs) {
        if matches!(closed.try_recv(), Err(TryRecvError::Disconnected)) {
            return;
        }
        let task = value(id);
        match look_up(id) {
            Ok(state) => {
                debug!("run looked up task={task} state={state}");
                found.push((*job, state));
            }
            Err(error @ (LookupError::Unknown | LookupError::InvalidId)) => {
                debug!("run not found task={task} error={}", message(&error.to_string()));
            }
            Err(error) => {
                let level = if replace(&mut warned, true) { Level::Debug } else { Level::Warn };
                let systemic = error.is_systemic();
                let skipped = if systemic { left } else { 0 };
                let error = error_chain(&error);
                log!(level, "run look-up failed task={task} skipped={skipped} error={}", message(&error));
                if systemic {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::control_plane::rest::AnswerError;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    fn at() -> String {
        "http://h:80".to_owned()
    }

    /// Returns a result that depends on the id's first letter.
    fn scripted(id: &str) -> Result<RunState, LookupError> {
        match id.chars().next() {
            Some('c') => Ok(RunState::Cancelled),
            Some('u') => Err(LookupError::Unknown),
            Some('w') => Err(LookupError::Answer { at: at(), source: AnswerError::NoState }),
            Some('p') => panic!("on purpose"),
            _ => Err(LookupError::Status { at: at(), status: 503 }),
        }
    }

    /// Returns a batch with job ids from 0.
    fn batch(ids: &[&str]) -> Vec<(JobId, String)> {
        (0..).map(JobId).zip(ids.iter().map(|&id| id.to_owned())).collect()
    }

    /// Returns the ids that were looked up, and the jobs whose state was found.
    fn poll(ids: &[&str]) -> (Vec<String>, Vec<JobId>) {
        let (_open, closed) = bounded(0);
        let mut looked_up = Vec::new();
        let mut found = Vec::new();
        let mut look_up = |id: &str| {
            looked_up.push(id.to_owned());
            scripted(id)
        };
        poll_all(&batch(ids), &closed, &mut look_up, &mut found);
        (looked_up, found.into_iter().map(|(job, _)| job).collect())
    }

    #[test]
    fn a_failure_of_one_run_does_not_stop_the_batch() {
        let all = ["u1", "c1", "w1", "w2", "c2"];
        assert_eq!(poll(&all), (ids(&all), vec![JobId(1), JobId(4)]));
    }

    #[test]
    fn a_systemic_failure_ends_the_batch() {
        assert_eq!(poll(&["c1", "x1", "c2", "c3"]), (ids(&["c1", "x1"]), vec![JobId(0)]));
    }

    #[test]
    fn each_batch_has_one_answer_even_after_a_panic() {
        let (sender, answers) = bounded(1);
        let poller = RunPoller::with(|| scripted, sender);
        let cases: [(&[&str], &[u64]); 5] =
            [(&["c1"], &[0]), (&["c1", "p", "c2"], &[0]), (&["x"], &[]), (&[], &[]), (&["u", "c9"], &[1])];
        for (ids, expected) in cases {
            poller.poll(batch(ids)).unwrap();
            let expected: Vec<_> = expected.iter().map(|job| (JobId(*job), RunState::Cancelled)).collect();
            assert_eq!(answers.recv_timeout(DEADLINE).unwrap(), expected, "{ids:?}");
        }
    }

    #[test]
    fn one_batch_may_be_queued() {
        let (sender, answers) = bounded(4);
        let (arrive, arrived) = bounded(4);
        let (gate, open) = bounded::<()>(0);
        let begin = move || {
            let (arrive, open) = (arrive.clone(), open.clone());
            move |id: &str| {
                let thread = std::thread::current().name().map(str::to_owned);
                arrive.send(thread).unwrap();
                let _ = open.recv();
                scripted(id)
            }
        };
        let poller = RunPoller::with(begin, sender);
        poller.poll(batch(&["c1"])).unwrap();
        assert_eq!(arrived.recv_timeout(DEADLINE).unwrap().as_deref(), Some("oz-poller-0"));
        poller.poll(batch(&["c2"])).unwrap();
        assert!(poller.poll(batch(&["c3"])).is_err());
        drop(gate);
        for _ in 0..2 {
            answers.recv_timeout(DEADLINE).unwrap();
        }
        poller.poll(batch(&["c4"])).unwrap();
        assert_eq!(answers.recv_timeout(DEADLINE).unwrap().len(), 1);
    }

    #[test]
    fn a_drop_waits_for_the_current_look_up_only() {
        let (sender, _answers) = bounded(0);
        let (arrive, arrived) = bounded(4);
        let (gate, open) = bounded::<()>(0);
        let count = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&count);
        let begin = move || {
            let (arrive, open, counter) = (arrive.clone(), open.clone(), Arc::clone(&counter));
            move |_: &str| {
                counter.fetch_add(1, Ordering::SeqCst);
                arrive.send(()).unwrap();
                let _ = open.recv();
                Ok(RunState::Pending)
            }
        };
        let poller = RunPoller::with(begin, sender);
        poller.poll(batch(&["1", "2", "3"])).unwrap();
        arrived.recv_timeout(DEADLINE).unwrap();
        poller.poll(batch(&["4"])).unwrap();
        let (dropped, end) = bounded(1);
        let poller = Mutex::new(Some(poller));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let poller = poller.lock().unwrap().take().unwrap();
                drop(poller);
                dropped.send(()).unwrap();
            });
            assert!(
                end.recv_timeout(Duration::from_millis(50)).is_err(),
                "the drop waits for the current look-up"
            );
            drop(gate);
            end.recv_timeout(DEADLINE).expect("the drop does not end");
        });
        assert_eq!(count.load(Ordering::SeqCst), 1, "the rest is skipped");
    }

    #[test]
    fn an_abandoned_poller_waits_for_nothing() {
        let (sender, _answers) = bounded(0);
        let (arrive, arrived) = bounded(4);
        let (gate, open) = bounded::<()>(0);
        let begin = move || {
            let (arrive, open) = (arrive.clone(), open.clone());
            move |_: &str| {
                arrive.send(()).unwrap();
                let _ = open.recv();
                Ok(RunState::Pending)
            }
        };
        let mut poller = RunPoller::with(begin, sender);
        poller.poll(batch(&["1"])).unwrap();
        arrived.recv_timeout(DEADLINE).unwrap();
        poller.abandon();
        drop(poller);
        drop(gate);
    }
}
