//! The signals of the process: they stop it or log its state, and none kills it unexpectedly.
//!
//! SIGTERM and SIGINT have a handler. The others in [`WAITED`] are blocked in all threads, and the thread `oz-signals` waits for
//! them, so that it knows which one came. Programs that the worker starts are not affected: the standard library unblocks all
//! signals in a child.

use crossbeam_channel::{Receiver, Sender, bounded};
use log::warn;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::pool::spawn_detached;

/// The capacity of the channel for stops. More than three have no effect.
const STOPS: usize = 8;

/// The signals that `oz-signals` waits for.
const WAITED: [Signal; 4] = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT];

/// What signals ask for.
pub(super) struct Signals {
    /// One item for each signal that stops the process.
    pub(super) stop: Receiver<()>,
    /// An item if the state is to be logged.
    pub(super) state: Receiver<()>,
}

/// Signals cannot be received.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignalError {
    #[error("cannot set the handler for SIGTERM and SIGINT")]
    Handler(#[from] ctrlc::Error),
    #[error("cannot start the thread that waits for signals")]
    Thread(#[from] std::io::Error),
}

/// Blocks the signals without a handler, in this thread and those that it starts. Call it before any other thread is started.
///
/// SIGXFSZ is only blocked: a write beyond the limit of a file's size, such as that of the log, then fails with an error.
///
/// # Errors
/// The system refuses it, which is a defect.
pub(super) fn block() -> Result<(), Errno> {
    let mut blocked = waited();
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block()
}

/// Turns signals into messages, once [`block`] was called. A signal that stops the process also cancels `starting`.
///
/// # Errors
/// The handler cannot be set, or the system has no more threads.
pub(super) fn listen(starting: &CancelToken) -> Result<Signals, SignalError> {
    let (stop, stops) = bounded(STOPS);
    let (log_state, state) = bounded(1);
    let starting = starting.clone();
    let stop = move || {
        starting.cancel(CancelReason::Shutdown);
        // If the channel is full, a further signal has no effect.
        let _ = stop.try_send(());
    };
    ctrlc::set_handler(stop.clone())?;
    spawn_detached("oz-signals", move || wait(&stop, &log_state))?;
    Ok(Signals { stop: stops, state })
}

fn waited() -> SigSet {
    WAITED.into_iter().collect()
}

/// Handles the blocked signals for as long as the process runs.
fn wait(stop: &impl Fn(), log_state: &Sender<()>) {
    let signals = waited();
    // It fails only for an invalid set.
    while let Ok(signal) = signals.wait() {
        match signal {
            Signal::SIGHUP => {
                warn!(
                    "signal received signal=SIGHUP note=\"SIGHUP stops the worker; settings are read only at a start, so restart the \
                     worker to change them\""
                );
                stop();
            }
            Signal::SIGUSR1 => {
                // If the channel is full, the state is about to be logged.
                let _ = log_state.try_send(());
            }
            ignored => warn!("signal ignored signal={ignored}"),
        }
    }
}
