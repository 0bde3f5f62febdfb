//! The threads `oz-poller-N`, which look up runs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossbeam_channel::Sender;
use log::debug;

use super::{ControlPlane, LookupError, Session};
use crate::job::{LookupAnswer, LookupFailure, MAX_LOOKUPS, RunLookup};
use crate::logging::{error_chain, message, value};
use crate::protocol::RunView;
use crate::sys::pool::Pool;

/// Looks up runs, each on a thread of its own. Dropping it waits for the look-ups that are under way.
pub struct RunPoller {
    pool: Pool<RunLookup>,
}

impl RunPoller {
    /// Sends each answer to `answers`, which must have room for [`MAX_LOOKUPS`].
    pub fn new(control_plane: ControlPlane, answers: Sender<LookupAnswer>) -> Self {
        let shared = Arc::new(SharedSession { control_plane, current: Mutex::new(Weak::new()) });
        let make = move || {
            let (shared, mut session) = (Arc::clone(&shared), None);
            move |lookup: &RunLookup| {
                // Kept as long as the thread, which waits some seconds for the next look-up.
                session.get_or_insert_with(|| shared.get()).look_up(&lookup.task_id, lookup.limit)
            }
        };
        Self::with(make, answers)
    }

    /// `make` returns what looks up runs, for each thread.
    fn with<L: FnMut(&RunLookup) -> Result<RunView, LookupError> + 'static>(
        make: impl Fn() -> L + Send + Sync + 'static,
        answers: Sender<LookupAnswer>,
    ) -> Self {
        let make_work = move || {
            let (mut look_up, answers) = (make(), answers.clone());
            move |lookup: RunLookup| {
                // The panic hook logs a panic.
                let result = catch_unwind(AssertUnwindSafe(|| look_up(&lookup)));
                let answer = match result {
                    Ok(result) => answer(&lookup.task_id, result),
                    Err(_) => {
                        let error = "the look-up panicked".to_owned();
                        Err(LookupFailure { systemic: false, absent: false, error })
                    }
                };
                // Fails only when the process is about to end and the main thread has stopped listening.
                let _ = answers.send((lookup.number, answer));
            }
        };
        Self { pool: Pool::with_own("oz-poller", MAX_LOOKUPS, make_work) }
    }

    /// Starts a look-up; never blocks. The caller starts at most [`MAX_LOOKUPS`] before it takes an answer.
    ///
    /// # Errors
    /// There will be no answer: the system has no more threads.
    pub fn look_up(&self, lookup: RunLookup) -> io::Result<()> {
        self.pool.give(lookup)
    }

    /// Makes the drop wait for nothing, for a process that ends at once.
    pub fn abandon(&mut self) {
        self.pool.abandon();
    }
}

/// The session of all threads. It ends with the last of them, so that an idle worker has no connection.
struct SharedSession {
    control_plane: ControlPlane,
    current: Mutex<Weak<Session>>,
}

impl SharedSession {
    fn get(&self) -> Arc<Session> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.upgrade().unwrap_or_else(|| {
            let session = Arc::new(self.control_plane.session());
            *current = Arc::downgrade(&session);
            session
        })
    }
}

/// Logs the result of a look-up.
fn answer(task_id: &str, result: Result<RunView, LookupError>) -> Result<RunView, LookupFailure> {
    let task = value(task_id);
    match result {
        Ok(run) => {
            debug!("run looked up task={task} state={}", run.state);
            Ok(run)
        }
        Err(error) => {
            let (systemic, absent) = (error.is_systemic(), error.is_absent());
            let error = error_chain(&error);
            debug!("run look-up failed task={task} error={}", message(&error));
            Err(LookupFailure { systemic, absent, error })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::protocol::RunState;

    const DEADLINE: Duration = Duration::from_secs(30);
    const CLAIMED: RunView = RunView { state: RunState::Claimed, updated_at: None };

    fn lookup(number: u64, id: &str) -> RunLookup {
        RunLookup { number, task_id: id.to_owned(), limit: DEADLINE }
    }

    /// Returns a result that depends on the id.
    fn scripted(lookup: &RunLookup) -> Result<RunView, LookupError> {
        match lookup.task_id.as_str() {
            "claimed" => Ok(CLAIMED),
            "unknown" => Err(LookupError::Unknown),
            "panic" => panic!("on purpose"),
            _ => Err(LookupError::Status { at: "http://h:80".to_owned(), status: 503 }),
        }
    }

    fn failure([systemic, absent]: [bool; 2], error: &str) -> Result<RunView, LookupFailure> {
        Err(LookupFailure { systemic, absent, error: error.to_owned() })
    }

    #[test]
    fn each_look_up_has_one_answer_even_after_a_panic() {
        let (sender, answers) = bounded(MAX_LOOKUPS);
        let poller = RunPoller::with(|| scripted, sender);
        let cases = [
            ("claimed", Ok(CLAIMED)),
            ("panic", failure([false, false], "the look-up panicked")),
            ("unknown", failure([false, true], "the control plane does not know this run")),
            ("down", failure([true, false], "http://h:80 answered 503")),
        ];
        for (number, (id, expected)) in (0..).zip(cases) {
            poller.look_up(lookup(number, id)).unwrap();
            assert_eq!(answers.recv_timeout(DEADLINE).unwrap(), (number, expected));
        }
    }

    /// A poller whose look-ups arrive on the second channel and end once the third is dropped.
    fn gated() -> (RunPoller, Receiver<LookupAnswer>, Receiver<String>, Sender<()>) {
        let (sender, answers) = bounded(MAX_LOOKUPS);
        let (arrive, arrived) = bounded(2 * MAX_LOOKUPS);
        let (gate, open) = bounded::<()>(0);
        let make = move || {
            let (arrive, open) = (arrive.clone(), open.clone());
            move |_: &RunLookup| {
                arrive.send(std::thread::current().name().unwrap_or_default().to_owned()).unwrap();
                let _ = open.recv();
                Ok(CLAIMED)
            }
        };
        (RunPoller::with(make, sender), answers, arrived, gate)
    }

    #[test]
    fn four_look_ups_are_under_way_at_once() {
        let (poller, answers, arrived, gate) = gated();
        (0..5).for_each(|number| poller.look_up(lookup(number, "a")).unwrap());
        let mut names: Vec<_> = (0..4).map(|_| arrived.recv_timeout(DEADLINE).unwrap()).collect();
        names.sort();
        assert_eq!(names, ["oz-poller-0", "oz-poller-1", "oz-poller-2", "oz-poller-3"]);
        assert!(arrived.is_empty(), "the fifth waits");
        drop(gate);
        let mut numbers: Vec<_> = (0..5).map(|_| answers.recv_timeout(DEADLINE).unwrap().0).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_abandoned_poller_waits_for_nothing() {
        let (mut poller, _answers, arrived, gate) = gated();
        poller.look_up(lookup(0, "a")).unwrap();
        arrived.recv_timeout(DEADLINE).unwrap();
        poller.abandon();
        drop(poller);
        drop(gate);
    }

    #[test]
    fn a_session_ends_with_its_last_thread() {
        let key = crate::control_plane::key::ApiKey::new(crate::secret::Secret::new("k3y")).unwrap();
        let control_plane = ControlPlane::new("http://h", &key).unwrap();
        let shared = SharedSession { control_plane, current: Mutex::new(Weak::new()) };
        let first = shared.get();
        assert!(Arc::ptr_eq(&first, &shared.get()));
        drop(first);
        assert_eq!(shared.current.lock().unwrap().strong_count(), 0);
    }
}
