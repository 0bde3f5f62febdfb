//! One task that holds a slot: whether its claim is confirmed, and how far its report is.
//!
//! Owns the steps from one state to the next. It must not know the other tasks or decide what is sent when.

use std::sync::Arc;
use std::time::Instant;

use crate::protocol::{Outgoing, Report};
use crate::sys::cancel::CancelReason;

pub(super) struct Job {
    pub(super) task_id: String,
    /// Number of the claim, until it is confirmed.
    claim: Option<u64>,
    pub(super) phase: Phase,
    /// When it will have run for as long as it may.
    pub(super) ends: Option<Instant>,
    /// Why it was told to end, if it was.
    pub(super) ending: Option<CancelReason>,
}

/// What to say to an assignment of a task that is here.
pub(super) enum Answer {
    /// Its present state.
    Say(Outgoing),
    /// That was said on this connection, and is on its way.
    Said,
    /// Its former execution is void: it may start anew once that is cleaned up.
    Void,
}

pub(super) enum Phase {
    /// The pool works on it.
    Working,
    /// As `Working`, but nobody wants the result: the run belongs to the control plane again.
    Dropped,
    /// The report is made and not confirmed; `seq` is its number when it was sent on the present connection.
    Reporting { report: Arc<Report>, seq: Option<u64> },
    /// The job cleans up. The report is kept for an assignment that comes meanwhile.
    Settled { report: Option<Arc<Report>> },
}

/// What the end of a connection costs a job.
pub(super) enum Lost {
    Nothing,
    /// Its work is of no use any more.
    Work,
    /// Its report is of no use any more.
    Report,
}

impl Job {
    /// A job whose claim goes out under that number; `None` for one that an earlier process has claimed.
    pub(super) fn new(task_id: &str, claim: Option<u64>) -> Self {
        Self { task_id: task_id.to_owned(), claim, phase: Phase::Working, ends: None, ending: None }
    }

    pub(super) fn answer(&self) -> Answer {
        match &self.phase {
            Phase::Working => Answer::Say(Outgoing::Claimed { task_id: self.task_id.clone() }),
            Phase::Reporting { seq: Some(_), .. } => Answer::Said,
            Phase::Reporting { report, seq: None } | Phase::Settled { report: Some(report) } => {
                Answer::Say(Outgoing::Report(Arc::clone(report)))
            }
            Phase::Dropped | Phase::Settled { report: None } => Answer::Void,
        }
    }

    /// Whether the pool works on it, and the result is wanted.
    pub(super) fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working)
    }

    /// Whether it is working, and nobody has told it to end.
    pub(super) fn goes_on(&self) -> bool {
        self.is_working() && self.ending.is_none()
    }

    /// Whether the control plane is known to count it as running here.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim.is_none()
    }

    /// Whether there is a report that waits for a connection.
    pub(super) fn unsent(&self) -> bool {
        matches!(self.phase, Phase::Reporting { seq: None, .. })
    }

    /// Takes the report; `false` when nobody wants it.
    pub(super) fn finished(&mut self, report: Arc<Report>) -> bool {
        let wanted = matches!(self.phase, Phase::Working);
        self.phase =
            if wanted { Phase::Reporting { report, seq: None } } else { Phase::Settled { report: None } };
        wanted
    }

    pub(super) fn send_report(&mut self, number: u64) -> Option<Outgoing> {
        let Phase::Reporting { report, seq } = &mut self.phase else { return None };
        *seq = Some(number);
        Some(Outgoing::Report(Arc::clone(report)))
    }

    /// `true` on the step from unconfirmed to confirmed, while there is work that waits for it.
    pub(super) fn claim_confirmed(&mut self, number: u64) -> bool {
        let now = self.claim.is_some_and(|claim| claim <= number);
        if now {
            self.claim = None;
        }
        now && matches!(self.phase, Phase::Working)
    }

    /// `true` on the step from reporting to settled.
    pub(super) fn report_confirmed(&mut self, number: u64) -> bool {
        match &self.phase {
            Phase::Reporting { report, seq: Some(seq) } if *seq <= number => {
                self.phase = Phase::Settled { report: Some(Arc::clone(report)) };
                true
            }
            _ => false,
        }
    }

    pub(super) fn connection_lost(&mut self) -> Lost {
        let claimed = self.claim.is_none();
        match (&mut self.phase, claimed) {
            (Phase::Working, false) => {
                self.phase = Phase::Dropped;
                Lost::Work
            }
            (Phase::Reporting { .. }, false) => {
                self.phase = Phase::Settled { report: None };
                Lost::Report
            }
            (Phase::Reporting { seq, .. }, true) => {
                *seq = None;
                Lost::Nothing
            }
            _ => Lost::Nothing,
        }
    }

    /// Gives up on the report; `true` when there was one that had not been confirmed.
    pub(super) fn give_up(&mut self) -> bool {
        let lost = matches!(self.phase, Phase::Reporting { .. });
        if lost {
            self.phase = Phase::Settled { report: None };
        }
        lost
    }
}
