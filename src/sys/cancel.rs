//! Cancellation: one token a piece of work, which ends whatever that work is blocked in.
//!
//! Owns the reason, the hooks that unblock a thread (shutting down a socket, cancelling a child) and a sleep that a
//! cancel ends. It must not know what is cancelled, and it never waits for it: `cancel` returns at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Why a piece of work is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReason {
    /// The control plane cancelled the task.
    Requested,
    /// The worker is stopping.
    Shutdown,
    /// The task has run longer than it may.
    TimedOut,
    /// The run is over at the control plane.
    RunOver,
    /// The connection ended before the claim was confirmed, so the run may be running elsewhere.
    ClaimLost,
    /// Another part of the same work has failed, so that this part is of no use any more.
    Sibling,
}

/// A cloneable handle: all clones are one token.
#[derive(Clone)]
pub struct CancelToken(Arc<Inner>);

/// What is sent when a token is cancelled: nothing ever is, the channel is closed.
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
    /// Dropped by the cancel, which closes `done` for everybody.
    open: Option<Sender<Never>>,
}

/// Keeps a hook registered; dropping it takes the hook back.
#[must_use = "the hook is taken back when this is dropped"]
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
    /// A token that nobody has cancelled.
    pub fn new() -> Self {
        let (open, done) = bounded(0);
        let state = State { reason: None, hooks: BTreeMap::new(), next_hook: 0, open: Some(open) };
        Self(Arc::new(Inner { state: Mutex::new(state), done }))
    }

    /// Marks the token and runs every hook. The first reason stays; a second cancel does nothing.
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
        // Outside the lock: a hook may cancel a child or drop a watch of this very token.
        for hook in hooks.into_values() {
            hook();
        }
    }

    /// Why it was cancelled, if it was.
    pub fn reason(&self) -> Option<CancelReason> {
        self.0.lock().reason
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// A channel that closes when the token is cancelled, for `select!`.
    pub fn done(&self) -> &Receiver<Never> {
        &self.0.done
    }

    /// Waits for `duration`, or less when the token is cancelled; `true` says that the whole time has passed.
    pub fn sleep(&self, duration: Duration) -> bool {
        matches!(self.0.done.recv_timeout(duration), Err(RecvTimeoutError::Timeout))
    }

    /// Runs `hook` on the cancel, or now when that has been. The hook must not block.
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

    /// A token that is cancelled with this one (for the same reason), and also on its own. The link lasts as long
    /// as the watch.
    pub fn child(&self) -> (Self, Watch) {
        let child = Self::new();
        let (parent, linked) = (Arc::downgrade(&self.0), child.clone());
        let watch = self.watch(move || {
            let reason = parent.upgrade().and_then(|inner| inner.lock().reason);
            linked.cancel(reason.unwrap_or(CancelReason::Sibling));
        });
        (child, watch)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, and the state is whole at every step.
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
    fn the_first_reason_stays() {
        let token = CancelToken::new();
        assert!(!token.is_cancelled());
        token.cancel(CancelReason::Requested);
        token.cancel(CancelReason::Shutdown);
        assert_eq!(token.reason(), Some(CancelReason::Requested));
    }

    #[test]
    fn a_blocked_read_ends_with_the_cancel() {
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
    fn a_hook_runs_once_and_never_after_its_watch_is_dropped() {
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
    fn a_child_follows_its_parent_but_not_the_other_way() {
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
    fn a_sleep_ends_with_the_cancel() {
        let token = CancelToken::new();
        assert!(token.sleep(Duration::from_millis(1)));
        let sleeper = token.clone();
        let thread = std::thread::spawn(move || sleeper.sleep(Duration::from_secs(3600)));
        token.cancel(CancelReason::Requested);
        assert!(!thread.join().unwrap());
    }
}
