//! The state of the worker for service managers, for `/status` and for metrics.

use std::time::{Duration, Instant};

use super::Coordinator;
use super::event::Status;
use super::job::{JobState, Step};
use super::stop::Stop;
use crate::metrics::Tally;
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelReason;

/// The state at one moment, with all jobs and counts.
#[derive(Debug, Clone)]
pub struct View {
    /// The short form.
    pub status: Status,
    /// The assignments that wait for a slot.
    pub backlog: usize,
    /// Reports of ended tasks that are not known to be stored.
    pub unsettled: usize,
    /// Every task that holds a slot.
    pub jobs: Vec<JobView>,
    /// How long the present outage of the engine has lasted; `None` without one.
    pub outage: Option<Duration>,
    /// What was counted.
    pub tally: Tally,
}

/// A task that holds a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// The execution.
    pub key: ExecutionKey,
    /// What it is doing: `preparing`, `running`, `collecting`, `dropped`, `reporting` or `cleaning_up`.
    pub phase: &'static str,
    /// How long its container has run, in seconds, while it runs.
    pub running_s: Option<u64>,
    /// Whether its report is `sent` or `waiting`, while it reports.
    pub report: Option<&'static str>,
    /// Whether its claim is confirmed.
    pub claimed: bool,
    /// Whether its last call to the engine got no answer.
    pub engine_away: bool,
    /// Why it is being ended, if it is.
    pub ending: Option<&'static str>,
}

impl Coordinator {
    /// Returns the worker's state, for service managers.
    pub fn status(&self) -> Status {
        Status {
            link: self.link,
            refusal: self.refusals.current().map(str::to_owned),
            engine_away: self.engine_problem().cloned(),
            disk_low: self.beat.disk_low().cloned(),
            tasks: self.jobs.len(),
            slots: self.rules.slots,
            stop: self.stop.as_ref().map(Stop::status),
        }
    }

    /// Returns the worker's state with all jobs and counts.
    pub fn view(&self, now: Instant) -> View {
        let reporting = self.jobs.values().filter(|job| job.is_reporting()).count();
        View {
            status: self.status(),
            backlog: self.backlog.len(),
            unsettled: reporting + self.settling.unsettled(),
            jobs: self.job_views(now),
            outage: self.outage(now),
            tally: self.tally.clone(),
        }
    }

    pub(super) fn job_views(&self, now: Instant) -> Vec<JobView> {
        let away = |id| self.engine_away.contains_key(id);
        self.jobs.iter().map(|(id, job)| job_view(job, away(id), now)).collect()
    }
}

pub(super) fn job_view(job: &JobState, engine_away: bool, now: Instant) -> JobView {
    let (mut running_s, mut report) = (None, None);
    let phase = match job.step() {
        Step::Preparing => "preparing",
        Step::Running { since } => {
            running_s = Some(now.saturating_duration_since(since).as_secs());
            "running"
        }
        Step::Collecting => "collecting",
        Step::Dropped => "dropped",
        Step::Reporting { sent } => {
            report = Some(if sent { "sent" } else { "waiting" });
            "reporting"
        }
        Step::CleaningUp => "cleaning_up",
    };
    let ending = job.ending.map(word);
    JobView { key: job.key.clone(), phase, running_s, report, claimed: job.is_claimed(), engine_away, ending }
}

fn word(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::Requested => "cancelled",
        CancelReason::Shutdown => "shutdown",
        CancelReason::TimedOut => "timed_out",
        CancelReason::PreparedTooLong => "prepared_too_long",
        CancelReason::RunOver => "run_over",
        CancelReason::ClaimLost => "claim_lost",
        CancelReason::Sibling => "sibling",
    }
}
