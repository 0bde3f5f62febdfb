//! The state of one task that holds a slot: its claim and its report.
//!
//! ```text
//!         claim lost, run taken back      finished
//! Working --------------------------> Dropped -----+
//!    |                                             v
//!    | finished                                 Settled ---> (done: the slot is free)
//!    v                         lost, given up,     ^
//!    |               received without look-ups     |
//! Reporting ---------------------------------------+
//!    |
//!    | received
//!    v
//! (the slot is free; the report is kept until it is stored)
//! ```

use std::sync::Arc;
use std::time::Instant;

use time::OffsetDateTime;

use super::claims::ClaimCheck;
use super::settle::Received;
use crate::job::{AdoptedTask, Leftover};
use crate::protocol::{Assignment, Dialect, EncodedReport, ExecutionKey, Outgoing};
use crate::sys::cancel::CancelReason;

pub(super) struct JobState {
    pub(super) key: ExecutionKey,
    /// When the control plane assigned the run, by its clock.
    pub(super) assigned_at: Option<OffsetDateTime>,
    /// The look-ups of the claim, until it is known to be stored.
    pub(super) check: Option<ClaimCheck>,
    /// What the control plane expects for it.
    pub(super) dialect: Dialect,
    claim: Claim,
    phase: Phase,
    /// When it took its slot.
    began: Instant,
    /// When the container was started, once it was.
    pub(super) started_at: Option<Instant>,
    /// Whether the container has exited.
    pub(super) exited: bool,
    /// When the time of the task's preparation is up or, once the container was started, that of the task.
    pub(super) ends_at: Option<Instant>,
    /// Until when the control plane is told that the execution is closed, if it wants to know.
    pub(super) close_by: Option<Instant>,
    /// Why the task is being ended, if it is.
    pub(super) ending: Option<CancelReason>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// The job has no thread yet.
    Unsent,
    /// Sent under this number.
    Sent(u64),
    /// Confirmed, by this process or an earlier one.
    Confirmed,
}

enum Phase {
    /// The task runs or is prepared.
    Working,
    /// As `Working`, but the run belongs to the control plane again: the result is not wanted.
    Dropped,
    /// The task ended and its report is not confirmed. `seq` is the report's number on this connection, once it was sent.
    Reporting { report: Arc<EncodedReport>, left: Arc<Leftover>, seq: Option<u64> },
    /// The job cleans up. The report is kept, to answer an assignment that arrives before the end.
    Settled { report: Option<Arc<EncodedReport>> },
}

/// How to answer an assignment of an execution that the worker already holds.
pub(super) enum Answer {
    /// Send the task's state.
    Send(Outgoing),
    /// Nothing: the state was sent on this connection already.
    AlreadySent,
    /// It was dropped: it starts again once that is cleaned up.
    StartAgain,
}

/// What a job loses when its connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    Nothing,
    Work,
    Report,
}

/// What a job is doing, for the log.
pub(super) enum Step {
    /// Pulls images, fills volumes and creates the container, or waits for the confirmation of its claim.
    Preparing,
    /// Its container runs.
    Running { since: Instant },
    /// Reads the output of its container.
    Collecting,
    /// Ends, because its run belongs to the control plane again.
    Dropped,
    /// Waits until its report is confirmed, or until the report can be sent.
    Reporting { sent: bool },
    /// Removes what it has created.
    CleaningUp,
}

impl JobState {
    /// A job that is not claimed yet.
    pub(super) fn new(assignment: &Assignment, now: Instant) -> Self {
        let Assignment { key, dialect, updated_at: assigned_at, .. } = assignment;
        Self { assigned_at: *assigned_at, ..Self::of(key, *dialect, Claim::Unsent, now) }
    }

    /// A job that an earlier process claimed.
    pub(super) fn adopted(task: &AdoptedTask, now: Instant) -> Self {
        Self::of(&task.key, task.dialect, Claim::Confirmed, now)
    }

    fn of(key: &ExecutionKey, dialect: Dialect, claim: Claim, now: Instant) -> Self {
        Self {
            key: key.clone(),
            assigned_at: None,
            check: None,
            dialect,
            claim,
            phase: Phase::Working,
            began: now,
            started_at: None,
            exited: false,
            ends_at: None,
            close_by: None,
            ending: None,
        }
    }

    pub(super) fn answer(&self) -> Answer {
        match &self.phase {
            Phase::Working if self.dialect.repeats_claims() => Answer::Send(self.claim()),
            Phase::Working | Phase::Reporting { seq: Some(_), .. } => Answer::AlreadySent,
            Phase::Settled { .. } if self.dialect.starts_ended_again(&self.key) => Answer::StartAgain,
            Phase::Reporting { report, seq: None, .. } | Phase::Settled { report: Some(report) } => {
                Answer::Send(Outgoing::Report(Arc::clone(report)))
            }
            Phase::Dropped | Phase::Settled { report: None } => Answer::StartAgain,
        }
    }

    pub(super) fn step(&self) -> Step {
        match (&self.phase, self.started_at) {
            (Phase::Working, _) if self.exited => Step::Collecting,
            (Phase::Working, Some(since)) => Step::Running { since },
            (Phase::Working, None) => Step::Preparing,
            (Phase::Dropped, _) => Step::Dropped,
            (Phase::Reporting { seq, .. }, _) => Step::Reporting { sent: seq.is_some() },
            (Phase::Settled { .. }, _) => Step::CleaningUp,
        }
    }

    /// Returns when it took its slot, or when its container was started if that was earlier.
    pub(super) fn began(&self) -> Instant {
        self.started_at.map_or(self.began, |started_at| started_at.min(self.began))
    }

    /// Whether a report is not confirmed.
    pub(super) fn is_reporting(&self) -> bool {
        matches!(self.phase, Phase::Reporting { .. })
    }

    /// Whether the task has not ended and its result is wanted.
    pub(super) fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working)
    }

    /// Whether it is working and is not being ended.
    pub(super) fn is_running(&self) -> bool {
        self.is_working() && self.ending.is_none()
    }

    /// Whether the claim is confirmed.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim == Claim::Confirmed
    }

    /// Whether the claim was sent and is not confirmed.
    pub(super) fn is_claim_sent(&self) -> bool {
        matches!(self.claim, Claim::Sent(_))
    }

    /// When the container starts without an answer to the look-up of its claim; `None` if nothing waits for one.
    pub(super) fn start_by(&self) -> Option<Instant> {
        self.check.and_then(|check| check.start_by).filter(|_| self.is_running())
    }

    /// Whether a report waits for a connection.
    pub(super) fn has_unsent_report(&self) -> bool {
        matches!(self.phase, Phase::Reporting { seq: None, .. })
    }

    /// Takes the report. Returns whether it is wanted.
    pub(super) fn finished(&mut self, report: Arc<EncodedReport>, left: Arc<Leftover>) -> bool {
        let wanted = self.is_working();
        self.phase = if wanted {
            Phase::Reporting { report, left, seq: None }
        } else {
            Phase::Settled { report: None }
        };
        wanted
    }

    /// Makes the result unwanted: the run belongs to the control plane again.
    pub(super) fn drop_work(&mut self) {
        self.phase = Phase::Dropped;
        self.check = None;
    }

    /// Returns the claim to send under this number, if one is due.
    pub(super) fn send_claim(&mut self, number: u64) -> Option<Outgoing> {
        if self.claim != Claim::Unsent || !self.is_working() {
            return None;
        }
        self.claim = Claim::Sent(number);
        Some(self.claim())
    }

    /// Returns the claim.
    pub(super) fn claim(&self) -> Outgoing {
        Outgoing::Claimed { key: self.key.clone(), dialect: self.dialect }
    }

    /// Returns the report to send under this number, if there is one.
    pub(super) fn send_report(&mut self, number: u64) -> Option<Outgoing> {
        let Phase::Reporting { report, seq, .. } = &mut self.phase else { return None };
        *seq = Some(number);
        Some(Outgoing::Report(Arc::clone(report)))
    }

    /// Returns whether this confirms the claim of a job that still works.
    pub(super) fn confirm_claim(&mut self, number: u64) -> bool {
        let confirmed = matches!(self.claim, Claim::Sent(claim) if claim <= number);
        if confirmed {
            self.claim = Claim::Confirmed;
        }
        confirmed && self.is_working()
    }

    /// Returns the report if this confirms it.
    pub(super) fn confirm_report(&mut self, number: u64) -> Option<Received> {
        match &self.phase {
            Phase::Reporting { report, left, seq: Some(seq) } if *seq <= number => {
                let (report, left) = (Arc::clone(report), Arc::clone(left));
                self.phase = Phase::Settled { report: Some(Arc::clone(&report)) };
                Some(Received { key: self.key.clone(), report, assigned_at: self.assigned_at, left })
            }
            _ => None,
        }
    }

    pub(super) fn connection_lost(&mut self) -> Lost {
        let claimed = self.is_claimed();
        match &mut self.phase {
            Phase::Working if !claimed => {
                self.phase = Phase::Dropped;
                Lost::Work
            }
            Phase::Reporting { .. } if !claimed => {
                self.phase = Phase::Settled { report: None };
                Lost::Report
            }
            Phase::Reporting { seq, .. } => {
                *seq = None;
                Lost::Nothing
            }
            _ => Lost::Nothing,
        }
    }

    /// Returns the report if the control plane has received it.
    pub(super) fn settled_report(&self) -> Option<Arc<EncodedReport>> {
        match &self.phase {
            Phase::Settled { report } => report.clone(),
            _ => None,
        }
    }

    /// Gives up an unconfirmed report. Returns whether there was one.
    pub(super) fn give_up_report(&mut self) -> bool {
        let lost = matches!(self.phase, Phase::Reporting { .. });
        if lost {
            self.phase = Phase::Settled { report: None };
        }
        lost
    }
}
