//! One piece of work at a time for one key: who comes second waits for the first one's result.
//!
//! Owns who leads and who waits. It must not know what the work is. A leader that is cancelled, or that panics, gives
//! no result: one of those who wait then leads.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::sys::cancel::CancelToken;

/// Work under way, by key.
pub(super) struct SingleFlight<T> {
    under_way: Mutex<HashMap<String, Vec<Sender<T>>>>,
}

/// The caller's token was cancelled before there was a result.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cancelled;

/// Ends the flight when the leader is done with it in any way; those who wait for it wake up.
struct Leader<'a, T> {
    single_flight: &'a SingleFlight<T>,
    key: &'a str,
    completed: bool,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { under_way: Mutex::new(HashMap::new()) }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// Does `work`, or waits for the one who does it already. `work` gives `None` when it was cancelled.
    ///
    /// # Errors
    /// [`Cancelled`] with the caller's token.
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
                // A closed channel says that the leader has left: try to lead.
                recv(result) -> value => if let Ok(value) = value { return Ok(value) },
                recv(cancel.done()) -> _ => {}
            }
        }
        Err(Cancelled)
    }

    /// Where the result will come from, or `None`: the caller leads.
    fn join(&self, key: &str) -> Option<Receiver<T>> {
        let mut under_way = self.lock();
        let Some(waiting) = under_way.get_mut(key) else {
            under_way.insert(key.to_owned(), Vec::new());
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
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Leader<'_, T> {
    fn complete(mut self, value: &T) {
        // From here on the key is free, and a flight that begins is another's, which the drop must not end.
        self.completed = true;
        let waiting = self.single_flight.lock().remove(self.key).unwrap_or_default();
        for sender in waiting {
            // One whose receiver has gone was cancelled.
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

    /// Waits until so many callers wait for the leader of `key`.
    fn until_waiting(single_flight: &SingleFlight<u32>, key: &str, count: usize) {
        let start = std::time::Instant::now();
        while single_flight.lock().get(key).map_or(0, Vec::len) < count {
            assert!(start.elapsed() < DEADLINE, "nobody joined");
            std::thread::yield_now();
        }
    }

    #[test]
    fn those_who_come_meanwhile_share_the_result() {
        let single_flight = SingleFlight::default();
        let (cancel, count) = (CancelToken::new(), AtomicUsize::new(0));
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
        assert_eq!(single_flight.run("k", &cancel, || Some(7)), Ok(7), "a later call does the work anew");
    }

    #[test]
    fn other_keys_do_not_wait() {
        let single_flight = SingleFlight::default();
        let cancel = CancelToken::new();
        let inner = || single_flight.run("b", &cancel, || Some(2)).ok();
        assert_eq!(single_flight.run("a", &cancel, inner), Ok(2));
    }

    #[test]
    fn a_cancelled_leader_is_followed_by_one_who_waits() {
        let single_flight = SingleFlight::default();
        let (first, second) = (CancelToken::new(), CancelToken::new());
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
    fn one_who_waits_can_be_cancelled_alone() {
        let single_flight = SingleFlight::default();
        let (first, second) = (CancelToken::new(), CancelToken::new());
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
    fn a_leader_that_panics_leaves_the_key_free() {
        let single_flight = SingleFlight::<u32>::default();
        let cancel = CancelToken::new();
        let work = std::panic::AssertUnwindSafe(|| single_flight.run("k", &cancel, || panic!("broken")));
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(single_flight.run("k", &cancel, || Some(3)), Ok(3));
    }

    fn until_key(single_flight: &SingleFlight<u32>, key: &str) {
        let start = std::time::Instant::now();
        while !single_flight.lock().contains_key(key) {
            assert!(start.elapsed() < DEADLINE, "nobody leads");
            std::thread::yield_now();
        }
    }
}
