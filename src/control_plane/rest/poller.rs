//! The thread `oz-poller`: takes a batch of ids, asks for one after the other, and gives one answer a batch.
//!
//! Owns when the rest of a batch is not asked for any more, and the log lines. It must not know HTTP, nor what follows from
//! a state.

use std::io;
use std::mem::replace;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, select};
use log::{Level, debug, log};

use super::{ControlPlane, LookupError, RunState};
use crate::logging::error_chain;
use crate::logging::{message, value};
use crate::sys::cancel::Never;
use crate::sys::pool::Pool;

/// What is known of a batch: each id that a state was told for, with it. One comes for each batch that was taken, even
/// when nothing is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers(pub Vec<(String, RunState)>);

/// The handle of the thread. Dropping it waits for the look-up that is under way, so for a deadline at most, and lets the
/// rest be.
pub struct RunPoller {
    pool: Pool<Vec<String>>,
    /// Dropped to say that nobody wants to know any more.
    open: Option<Sender<Never>>,
}

impl RunPoller {
    /// Starts the thread, which tells `answers`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(control_plane: ControlPlane, answers: Sender<Answers>) -> io::Result<Self> {
        let session = move || {
            let session = control_plane.session();
            move |id: &str| session.run_state(id)
        };
        Self::start_with(session, answers)
    }

    /// `begin` is called for each batch and gives what looks up one id.
    fn start_with<L>(
        begin: impl Fn() -> L + Send + Sync + 'static,
        answers: Sender<Answers>,
    ) -> io::Result<Self>
    where
        L: FnMut(&str) -> Result<RunState, LookupError>,
    {
        let (open, closed) = bounded(0);
        let work = move |ids: Vec<String>| {
            let mut found = Vec::new();
            // The panic hook has logged it, and what was found until then holds.
            let _ = catch_unwind(AssertUnwindSafe(|| ask_all(&ids, &closed, &mut begin(), &mut found)));
            select! {
                send(answers, Answers(found)) -> _ => {}
                recv(closed) -> _ => {}
            }
        };
        Ok(Self { pool: Pool::single("oz-poller", work)?, open: Some(open) })
    }

    /// Hands over a batch; never blocks. `false` when another one waits already, besides the one that is worked on.
    pub fn ask(&self, task_ids: Vec<String>) -> bool {
        self.pool.give(task_ids)
    }

    /// Lets the thread be, for a process that ends at once.
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

/// Asks until the end, or until a failure that the next id would meet as well. At most one line a batch is a warning.
fn ask_all(
    ids: &[String],
    closed: &Receiver<Never>,
    look_up: &mut impl FnMut(&str) -> Result<RunState, LookupError>,
    found: &mut Vec<(String, RunState)>,
) {
    let mut warned = false;
    for (left, id) in (0..ids.len()).rev().zip(ids) {
        if matches!(closed.try_recv(), Err(TryRecvError::Disconnected)) {
            return;
        }
        let task = value(id);
        match look_up(id) {
            Ok(state) => {
                debug!("run looked up task={task} state={state}");
                found.push((id.clone(), state));
            }
            Err(error @ (LookupError::Unknown | LookupError::Unaskable)) => {
                debug!("run not found task={task} error={}", message(&error.to_string()));
            }
            Err(error) => {
                let level = if replace(&mut warned, true) { Level::Debug } else { Level::Warn };
                let given_up = error.is_systemic();
                let not_asked = if given_up { left } else { 0 };
                let error = error_chain(&error);
                log!(level, "run look-up failed task={task} not_asked={not_asked} error={}", message(&error));
                if given_up {
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

    /// Answers by the id's first letter, and keeps what was asked.
    fn scripted(id: &str) -> Result<RunState, LookupError> {
        match id.chars().next() {
            Some('c') => Ok(RunState::Cancelled),
            Some('u') => Err(LookupError::Unknown),
            Some('w') => Err(LookupError::Answer { at: at(), source: AnswerError::NoState }),
            Some('p') => panic!("on purpose"),
            _ => Err(LookupError::Status { at: at(), status: 503 }),
        }
    }

    fn asked(batch: &[&str]) -> (Vec<String>, Vec<String>) {
        let (_open, closed) = bounded(0);
        let (mut asked, mut found) = (Vec::new(), Vec::new());
        let mut look_up = |id: &str| {
            asked.push(id.to_owned());
            scripted(id)
        };
        ask_all(&ids(batch), &closed, &mut look_up, &mut found);
        (asked, found.into_iter().map(|(id, _)| id).collect())
    }

    #[test]
    fn what_is_about_one_run_does_not_stop_the_others() {
        let batch = ["u1", "c1", "w1", "w2", "c2"];
        assert_eq!(asked(&batch), (ids(&batch), ids(&["c1", "c2"])));
    }

    #[test]
    fn what_the_next_would_meet_as_well_ends_the_batch() {
        assert_eq!(asked(&["c1", "x1", "c2", "c3"]), (ids(&["c1", "x1"]), ids(&["c1"])));
    }

    #[test]
    fn each_batch_has_one_answer_even_after_a_panic() {
        let (sender, answers) = bounded(1);
        let lookups = RunPoller::start_with(|| scripted, sender).unwrap();
        let cases: [(&[&str], &[&str]); 5] = [
            (&["c1"], &["c1"]),
            (&["c1", "p", "c2"], &["c1"]),
            (&["x"], &[]),
            (&[], &[]),
            (&["c9"], &["c9"]),
        ];
        for (batch, expected) in cases {
            assert!(lookups.ask(ids(batch)));
            let Answers(found) = answers.recv_timeout(DEADLINE).unwrap();
            let expected: Vec<_> = expected.iter().map(|id| (id.to_string(), RunState::Cancelled)).collect();
            assert_eq!(found, expected, "{batch:?}");
        }
    }

    #[test]
    fn one_batch_may_wait_and_no_more() {
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
        let lookups = RunPoller::start_with(begin, sender).unwrap();
        assert!(lookups.ask(ids(&["c1"])));
        assert_eq!(arrived.recv_timeout(DEADLINE).unwrap().as_deref(), Some("oz-poller"));
        assert!(lookups.ask(ids(&["c2"])));
        assert!(!lookups.ask(ids(&["c3"])));
        drop(gate);
        for _ in 0..2 {
            answers.recv_timeout(DEADLINE).unwrap();
        }
        assert!(lookups.ask(ids(&["c4"])));
        assert_eq!(answers.recv_timeout(DEADLINE).unwrap().0.len(), 1);
    }

    #[test]
    fn dropping_it_ends_after_the_look_up_under_way_though_nobody_takes_the_answer() {
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
        let lookups = RunPoller::start_with(begin, sender).unwrap();
        assert!(lookups.ask(ids(&["1", "2", "3"])));
        arrived.recv_timeout(DEADLINE).unwrap();
        assert!(lookups.ask(ids(&["4"])));
        let (dropped, end) = bounded(1);
        let lookups = Mutex::new(Some(lookups));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let lookups = lookups.lock().unwrap().take().unwrap();
                drop(lookups);
                dropped.send(()).unwrap();
            });
            assert!(end.recv_timeout(Duration::from_millis(50)).is_err(), "it waits for the one under way");
            drop(gate);
            end.recv_timeout(DEADLINE).expect("the drop does not end");
        });
        assert_eq!(count.load(Ordering::SeqCst), 1, "the rest was not asked for");
    }

    #[test]
    fn abandoning_it_waits_for_nothing() {
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
        let mut lookups = RunPoller::start_with(begin, sender).unwrap();
        assert!(lookups.ask(ids(&["1"])));
        arrived.recv_timeout(DEADLINE).unwrap();
        lookups.abandon();
        drop(lookups);
        drop(gate);
    }
}
