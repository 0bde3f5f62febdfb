//! Runs the work for a key once at a time: callers that arrive meanwhile wait for the result.
//!
//! The first caller leads. If it is cancelled or panics, one of the waiting callers leads instead.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::sys::cancel::CancelToken;

/// The work in progress, by key.
pub(super) struct SingleFlight<T> {
    /// The callers that wait for each key.
    in_progress: Mutex<HashMap<String, Vec<Sender<T>>>>,
}

/// The caller's token was cancelled before there was a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cancelled;

/// Frees the key when dropped, which wakes the waiting callers.
struct Leader<'a, T> {
    single_flight: &'a SingleFlight<T>,
    key: &'a str,
    completed: bool,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { in_progress: Mutex::new(HashMap::new()) }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// Returns the result of `work`, or that of another caller that is already doing it. `work` returns `None` if it was
    /// cancelled.
    ///
    /// # Errors
    /// [`Cancelled`] if the caller's token is cancelled first.
    pub(super) fn run(
        &self,
        key: &str,
        cancel: &CancelToken,
        mut work: impl FnMut() -> Option<T>,
    ) -> Result<T, Cancelled> {
        while !cancel.is_cancelled() {
            let Some(result) = self.join(key) else {
                let leader = Leader { single_flight: self, key, completed: false };
                if let Some(value) = work() {
                    leader.complete(&value);
                    return Ok(value);
                }
                continue;
            };
            select! {
                // A closed channel means that the leader was cancelled or panicked: try to lead.
                recv(result) -> value => if let Ok(value) = value { return Ok(value) },
                recv(cancel.done()) -> _ => {}
            }
        }
        Err(Cancelled)
    }

    /// Returns where the leader's result will come from, or `None` if the caller now leads.
    fn join(&self, key: &str) -> Option<Receiver<T>> {
        let mut in_progress = self.lock();
        let Some(waiting) = in_progress.get_mut(key) else {
            in_progress.insert(key.to_owned(), Vec::new());
            return None;
        };
        let (sender, receiver) = bounded(1);
        waiting.push(sender);
        Some(receiver)
    }
}

impl<T> SingleFlight<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Sender<T>>>> {
        // Nothing that can panic runs under the lock.
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Leader<'_, T> {
    fn complete(mut self, value: &T) {
        // The key is free from here on. The drop must not remove it again: another caller may lead by then.
        self.completed = true;
        let waiting = self.single_flight.lock().remove(self.key).unwrap_or_default();
        for sender in waiting {
            // Fails if that caller was cancelled.
            let _ = sender.try_send(value.clone());
        }
    }
}

impl<T> Drop for Leader<'_, T> {
    fn drop(&mut self) {
        if !self.completed {
            self.single_flight.lock().remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::sys::cancel::CancelReason;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Waits until `count` callers wait for the leader of `key`.
    fn until_waiting(single_flight: &SingleFlight<u32>, key: &str, count: usize) {
        let start = std::time::Instant::now();
        while single_flight.lock().get(key).map_or(0, Vec::len) < count {
            assert!(start.elapsed() < DEADLINE, "no caller joined");
            std::thread::yield_now();
        }
    }

    #[test]
    fn concurrent_callers_share_the_result() {
        let single_flight = SingleFlight::default();
        let cancel = CancelToken::new();
        let count = AtomicUsize::new(0);
        let lead = || {
            until_waiting(&single_flight, "k", 4);
            Some(u32::try_from(count.fetch_add(1, Ordering::SeqCst)).unwrap())
        };
        let call = || single_flight.run("k", &cancel, lead);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..5).map(|_| scope.spawn(call)).collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap() == Ok(0)));
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert_eq!(single_flight.run("k", &cancel, || Some(7)), Ok(7), "a later call does the work again");
    }

    #[test]
    fn different_keys_do_not_wait_for_each_other() {
        let single_flight = SingleFlight::default();
        let cancel = CancelToken::new();
        let inner = || single_flight.run("b", &cancel, || Some(2)).ok();
        assert_eq!(single_flight.run("a", &cancel, inner), Ok(2));
    }

    #[test]
    fn a_waiting_caller_replaces_a_cancelled_leader() {
        let single_flight = SingleFlight::default();
        let first = CancelToken::new();
        let second = CancelToken::new();
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                single_flight.run("k", &first, || {
                    until_waiting(&single_flight, "k", 1);
                    first.cancel(CancelReason::Requested);
                    None
                })
            });
            until_key(&single_flight, "k");
            assert_eq!(single_flight.run("k", &second, || Some(5)), Ok(5));
            assert_eq!(leader.join().unwrap(), Err(Cancelled));
        });
    }

    #[test]
    fn a_waiting_caller_can_be_cancelled_alone() {
        let single_flight = SingleFlight::default();
        let first = CancelToken::new();
        let second = CancelToken::new();
        std::thread::scope(|scope| {
            let leader = scope.spawn(|| {
                single_flight.run("k", &first, || {
                    until_waiting(&single_flight, "k", 1);
                    second.cancel(CancelReason::Requested);
                    Some(1)
                })
            });
            until_key(&single_flight, "k");
            let waited = single_flight.run("k", &second, || Some(2));
            assert!(waited == Err(Cancelled) || waited == Ok(1), "{waited:?}");
            assert_eq!(leader.join().unwrap(), Ok(1));
        });
    }

    #[test]
    fn a_panicking_leader_frees_the_key() {
        let single_flight = SingleFlight::<u32>::default();
        let cancel = CancelToken::new();
        let work = std::panic::AssertUnwindSafe(|| single_flight.run("k", &cancel, || panic!("broken")));
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(single_flight.run("k", &cancel, || Some(3)), Ok(3));
    }

    fn until_key(single_flight: &SingleFlight<u32>, key: &str) {
        let start = std::time::Instant::now();
        while !single_flight.lock().contains_key(key) {
            assert!(start.elapsed() < DEADLINE, "no caller leads");
            std::thread::yield_now();
        }
    }
}
