//! One task from its claim to its last trace: images, volumes, container, output, report, clean-up.
//!
//! Owns the order of these steps and what is left to clean up at each of them. It talks to the engine only. It must
//! not know the WebSocket or the other tasks: it tells what happened by [`JobEvent`] and waits at a [`JobSignals`] for what the
//! coordinator decides.

pub mod adopt;
mod cleanup;
mod container;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod image;
mod names;
mod outcome;
pub mod output;
pub mod plan;
mod prepare;
mod retry;
mod run;
mod sidecar;
mod single_flight;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::job::{JobId, Settlement, Work};
use crate::sys::cancel::CancelToken;

pub use run::{Options, Tasks};

/// One task for a thread of the pool.
pub struct Job {
    /// Its name in events.
    pub id: JobId,
    /// What to work on.
    pub work: Work,
    /// Ends it early.
    pub cancel: CancelToken,
    /// Where it waits for decisions.
    pub signals: JobSignals,
}

/// The job's side of the two decisions that it waits for.
pub struct JobSignals {
    released: Receiver<()>,
    settled: Receiver<Settlement>,
}

/// The other side. Dropping it lets nothing through: what was not released stays unstarted.
pub struct JobControl {
    release: Sender<()>,
    settle: Sender<Settlement>,
}

impl JobControl {
    /// Makes both sides.
    pub fn new() -> (Self, JobSignals) {
        let (release, released) = bounded(1);
        let (settle, settled) = bounded(1);
        (Self { release, settle }, JobSignals { released, settled })
    }

    /// The claim is confirmed: the container may be started.
    pub fn release(&self) {
        // Full means that it is done already.
        let _ = self.release.try_send(());
    }

    /// Says what has become of the report.
    pub fn settle(&self, settlement: Settlement) {
        let _ = self.settle.try_send(settlement);
    }
}

impl JobSignals {
    /// Waits until the claim is confirmed; `false` when the job was cancelled before.
    fn wait_release(&self, cancel: &CancelToken) -> bool {
        select! {
            recv(self.released) -> released => released.is_ok() && !cancel.is_cancelled(),
            recv(cancel.done()) -> _ => false,
        }
    }

    /// Waits until the report is settled; when nobody is left to settle it, it was not delivered.
    fn wait_settled(&self) -> Settlement {
        self.settled.recv().unwrap_or(Settlement::Undelivered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cancel::CancelReason;

    #[test]
    fn only_a_release_opens_the_gate() {
        let cancel = CancelToken::new();
        let (control, signals) = JobControl::new();
        control.release();
        control.release();
        assert!(signals.wait_release(&cancel));
        drop(control);
        assert!(!signals.wait_release(&cancel), "a control that has gone lets nothing through");
        let (control, signals) = JobControl::new();
        cancel.cancel(CancelReason::Shutdown);
        assert!(!signals.wait_release(&cancel));
        control.release();
        assert!(!signals.wait_release(&cancel), "cancelled is cancelled");
    }

    #[test]
    fn the_first_settlement_is_remembered() {
        let (control, signals) = JobControl::new();
        control.settle(Settlement::Delivered);
        control.settle(Settlement::Unwanted);
        assert_eq!(signals.wait_settled(), Settlement::Delivered);
        drop(control);
        assert_eq!(
            signals.wait_settled(),
            Settlement::Undelivered,
            "a control that has gone delivers nothing"
        );
    }
}
