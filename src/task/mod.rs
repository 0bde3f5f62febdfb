//! Runs one task: images, volumes, container, output, report, clean-up.
//!
//! A task reports its progress in job events, and waits at its [`JobSignals`] for two decisions of the coordinator: the release
//! of its container once the claim is confirmed or stored, and the settlement of its report.

pub mod adopt;
mod age;
mod arguments;
mod cleanup;
mod container;
mod definition;
mod early;
mod ending;
mod engine;
pub mod failed;
mod failed_pulls;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod image;
pub(crate) mod labels;
mod last_lines;
mod limits;
pub(crate) mod listing;
mod log_limit;
pub(crate) mod mounts;
mod names;
mod no_output;
mod outcome;
mod output;
pub(crate) mod plan;
mod prepare;
pub mod processes;
mod report;
mod result_log;
mod run;
#[cfg(test)]
#[path = "scripted_engine_tests.rs"]
mod scripted_engine;
mod sidecar;
mod single_flight;
mod trial;
mod wait;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use crate::job::{JobId, Settlement, Work};
use crate::sys::cancel::CancelToken;

pub(crate) use run::{Options, Tasks};
pub(crate) use trial::Tried;

/// One task for a thread of the pool.
pub(crate) struct Job {
    /// Names it in events.
    pub(crate) id: JobId,
    /// The assignment, or the container to adopt.
    pub(crate) work: Work,
    /// Ends the task early.
    pub(crate) cancel: CancelToken,
    /// Cancelled by a second reason to end the task, which ends the reading of its output soon.
    pub(crate) interrupt: CancelToken,
    /// The decisions to wait for.
    pub(crate) signals: JobSignals,
}

/// The job's side: waits for the coordinator's two decisions.
pub(crate) struct JobSignals {
    released: Receiver<()>,
    settled: Receiver<Settlement>,
}

/// The coordinator's side. If it is dropped, a container that was not released is never started, and a report that was not
/// settled counts as undelivered.
pub(crate) struct JobControl {
    release: Sender<()>,
    settle: Sender<Settlement>,
}

impl JobControl {
    /// Returns both sides.
    pub(crate) fn new() -> (Self, JobSignals) {
        let (release, released) = bounded(1);
        let (settle, settled) = bounded(1);
        (Self { release, settle }, JobSignals { released, settled })
    }

    /// Lets the job start its container: the claim is confirmed or stored.
    pub(crate) fn release(&self) {
        // If the channel is full, the job was released before.
        let _ = self.release.try_send(());
    }

    /// Tells the job the outcome of its report. Only the first settlement counts.
    pub(crate) fn settle(&self, settlement: Settlement) {
        let _ = self.settle.try_send(settlement);
    }
}

impl JobSignals {
    /// Waits until the claim is confirmed. Returns `false` if the job was cancelled or the coordinator's side was dropped.
    fn wait_release(&self, cancel: &CancelToken) -> bool {
        select! {
            recv(self.released) -> released => released.is_ok() && !cancel.is_cancelled(),
            recv(cancel.done()) -> _ => false,
        }
    }

    /// Waits until the report is settled. Returns `Undelivered` if the coordinator's side was dropped.
    fn wait_settled(&self) -> Settlement {
        self.settled.recv().unwrap_or(Settlement::Undelivered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cancel::CancelReason;

    #[test]
    fn a_job_starts_only_after_its_release() {
        let cancel = CancelToken::new();
        let (control, signals) = JobControl::new();
        control.release();
        control.release();
        assert!(signals.wait_release(&cancel));
        drop(control);
        assert!(!signals.wait_release(&cancel), "a dropped control releases nothing");
        let (control, signals) = JobControl::new();
        cancel.cancel(CancelReason::Shutdown);
        assert!(!signals.wait_release(&cancel));
        control.release();
        assert!(!signals.wait_release(&cancel), "a cancel comes before a release");
    }

    #[test]
    fn only_the_first_settlement_counts() {
        let (control, signals) = JobControl::new();
        control.settle(Settlement::Delivered);
        control.settle(Settlement::Unwanted);
        assert_eq!(signals.wait_settled(), Settlement::Delivered);
        drop(control);
        assert_eq!(signals.wait_settled(), Settlement::Undelivered, "a dropped control delivers nothing");
    }
}
