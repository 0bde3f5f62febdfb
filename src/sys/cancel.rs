//! Cancellation tokens. A cancel returns at once and runs hooks that unblock threads, for example by shutting down a socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Why work is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The control plane cancelled the task.
    Requested,
    /// The worker is stopping.
    Shutdown,
    /// The task exceeded its time limit.
    TimedOut,
    /// The task's preparation exceeded its time limit.
    PreparedTooLong,
    /// The run has already ended at the control plane.
    RunOver,
    /// The connection ended before the claim was confirmed, so the run may be running elsewhere.
    ClaimLost,
    /// Another part of the same task has failed.
    Sibling,
}

/// A cancellation token. All clones are the same token.
#[derive(Clone)]
pub struct CancelToken(Arc<Inner>);

/// The item of a channel that only closes.
#[derive(Debug, Clone, Copy)]
pub enum Never {}

type Hook = Box<dyn FnOnce() + Send>;

struct Inner {
    state: Mutex<State>,
    done: Receiver<Never>,
}

struct State {
    reason: Option<CancelReason>,
    hooks: BTreeMap<u64, Hook>,
    next_hook: u64,
    /// Dropped by a cancel, which closes `done`.
    open: Option<Sender<Never>>,
}

/// Keeps a hook registered until it is dropped.
#[must_use = "dropping it removes the hook"]
pub struct Watch {
    token: Weak<Inner>,
    id: Option<u64>,
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

impl CancelToken {
    /// Returns a token that is not cancelled.
    pub fn new() -> Self {
        let (open, done) = bounded(0);
        let state = State { reason: None, hooks: BTreeMap::new(), next_hook: 0, open: Some(open) };
        Self(Arc::new(Inner { state: Mutex::new(state), done }))
    }

    /// Cancels the token and runs its hooks. Only the first cancel, and its reason, counts.
    pub fn cancel(&self, reason: CancelReason) {
        let hooks = {
            let mut state = self.0.lock();
            if state.reason.is_some() {
                return;
            }
            state.reason = Some(reason);
            state.open = None;
            std::mem::take(&mut state.hooks)
        };
        // Outside the lock, because a hook may drop a watch of this token.
        for hook in hooks.into_values() {
            hook();
        }
    }

    /// Returns why the token was cancelled; `None` if it was not.
    pub fn reason(&self) -> Option<CancelReason> {
        self.0.lock().reason
    }

    /// Whether the token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// Returns a channel that closes when the token is cancelled, for `select!`.
    pub fn done(&self) -> &Receiver<Never> {
        &self.0.done
    }

    /// Sleeps for `duration`. Returns `false` if a cancel ended the sleep early.
    pub fn sleep(&self, duration: Duration) -> bool {
        matches!(self.0.done.recv_timeout(duration), Err(RecvTimeoutError::Timeout))
    }

    /// Runs `hook` when the token is cancelled, or now if it already was. The hook must not block.
    pub fn watch(&self, hook: impl FnOnce() + Send + 'static) -> Watch {
        let mut state = self.0.lock();
        if state.reason.is_some() {
            drop(state);
            hook();
            return Watch { token: Weak::new(), id: None };
        }
        let id = state.next_hook;
        state.next_hook += 1;
        state.hooks.insert(id, Box::new(hook));
        Watch { token: Arc::downgrade(&self.0), id: Some(id) }
    }

    /// Returns a token that is cancelled when this one is, for the same reason, and that can be cancelled on its own. The link
    /// lasts as long as the watch.
    pub fn child(&self) -> (Self, Watch) {
        let child = Self::new();
        let parent = Arc::downgrade(&self.0);
        let linked = child.clone();
        let watch = self.watch(move || {
            let reason = parent.upgrade().and_then(|inner| inner.lock().reason);
            linked.cancel(reason.unwrap_or(CancelReason::Sibling));
        });
        (child, watch)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some(inner), Some(id)) = (self.token.upgrade(), self.id) {
            let hook = inner.lock().hooks.remove(&id);
            drop(hook);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn only_the_first_reason_counts() {
        let token = CancelToken::new();
        assert!(!token.is_cancelled());
        token.cancel(CancelReason::Requested);
        token.cancel(CancelReason::Shutdown);
        assert_eq!(token.reason(), Some(CancelReason::Requested));
    }

    #[test]
    fn a_cancel_ends_a_blocked_read() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let token = CancelToken::new();
        let clone = near.try_clone().unwrap();
        let watch = token.watch(move || drop(clone.shutdown(Shutdown::Both)));
        let reader = std::thread::spawn(move || near.read(&mut [0; 8]).unwrap());
        token.cancel(CancelReason::Requested);
        assert_eq!(reader.join().unwrap(), 0);
        drop((watch, far));
    }

    #[test]
    fn a_hook_runs_once_unless_its_watch_is_dropped() {
        let count = Arc::new(AtomicUsize::new(0));
        let bump = |count: &Arc<AtomicUsize>| {
            let count = Arc::clone(count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let token = CancelToken::new();
        drop(token.watch(bump(&count)));
        let kept = token.watch(bump(&count));
        token.cancel(CancelReason::Shutdown);
        let late = token.watch(bump(&count));
        assert_eq!(count.load(Ordering::SeqCst), 2);
        drop((kept, late));
    }

    #[test]
    fn a_cancel_reaches_children_but_not_parents() {
        let parent = CancelToken::new();
        let (first, _first_watch) = parent.child();
        let (second, _second_watch) = parent.child();
        first.cancel(CancelReason::Sibling);
        assert!(!parent.is_cancelled());
        parent.cancel(CancelReason::Requested);
        assert_eq!(first.reason(), Some(CancelReason::Sibling));
        assert_eq!(second.reason(), Some(CancelReason::Requested));
        let (late, _late_watch) = parent.child();
        assert_eq!(late.reason(), Some(CancelReason::Requested));
    }

    #[test]
    fn a_cancel_ends_a_sleep() {
        let token = CancelToken::new();
        assert!(token.sleep(Duration::from_millis(1)));
        let sleeper = token.clone();
        let thread = std::thread::spawn(move || sleeper.sleep(Duration::from_secs(3600)));
        token.cancel(CancelReason::Requested);
        assert!(!thread.join().unwrap());
    }
}
