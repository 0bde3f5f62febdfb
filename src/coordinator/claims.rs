//! Claims: whether the control plane has stored them. Its answer decides whether a task may start.

use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::event::Effect;
use super::lookups::{Priority, Query};
use super::{Coordinator, debug, info, warn};
use crate::job::{JobId, MAX_LOOKUPS};
use crate::protocol::{ExecutionKey, RunState, RunView};
use crate::sys::cancel::CancelReason;

/// An assignment that has waited longer than this is looked up before it is claimed. Control planes may take a run back after
/// 10 s.
pub(super) const CLAIM_UNSEEN: Duration = Duration::from_secs(8);

/// How long the claim of such an assignment waits for the look-up.
pub(super) const BEFORE_CLAIM: Duration = Duration::from_secs(2);

/// How long a start waits for the look-up after the claim's confirmation.
const BEFORE_START: Duration = Duration::from_secs(3);

/// How long it waits while assignments wait for a slot, and as many starts before it wait as look-ups can be under way. Else a
/// control plane that takes a second for each answer would fill the slots with tasks that wait.
const SHORT_WAIT: Duration = Duration::from_millis(100);

/// The first delay between sending a claim again and looking again. The control plane stores a claim some milliseconds after it
/// has confirmed it.
const FIRST_DELAY: Duration = Duration::from_millis(20);

/// The longest such delay.
const LAST_DELAY: Duration = Duration::from_secs(5);

/// How long a claim is looked up at most, and how long a task waits while the control plane says that its run is not claimed.
const MAX_CHECK: Duration = Duration::from_secs(600);

/// Whose a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has ended.
    Over,
    /// Its claim is stored.
    Running,
    /// It was sent to this worker, and its claim is not stored.
    Ours,
    /// It waits for a worker, or was sent to another one or to this one again.
    TakenBack,
    /// It was sent to a worker, and the times do not say to which.
    Unclear,
}

/// Returns whose a run is that was assigned to this worker at `assigned_at`, by the control plane's clock.
pub(super) fn standing(run: &RunView, assigned_at: Option<OffsetDateTime>) -> Standing {
    match run.state {
        RunState::Succeeded | RunState::Failed | RunState::Cancelled => Standing::Over,
        RunState::InProgress => Standing::Running,
        RunState::Queued | RunState::Pending => Standing::TakenBack,
        RunState::Claimed => match run.updated_at.zip(assigned_at) {
            Some((changed, assigned)) if changed <= assigned => Standing::Ours,
            Some(_) => Standing::TakenBack,
            None => Standing::Unclear,
        },
    }
}

/// The look-ups of one job's claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimCheck {
    /// When the container starts without an answer; `None` if nothing waits for one.
    pub(super) start_by: Option<Instant>,
    /// Until when the claim is looked up.
    until: Instant,
    delay: Duration,
}

impl ClaimCheck {
    pub(super) fn new(now: Instant) -> Self {
        Self { start_by: None, until: now + MAX_CHECK, delay: FIRST_DELAY }
    }
}

impl Coordinator {
    /// Looks up a claim that was just confirmed. The container does not start before the answer, if one can be expected in time.
    pub(super) fn check_claim(&mut self, id: JobId, now: Instant) {
        let limit = self.wait_of_start(self.waiting_starts().count());
        let waits = self.lookups.expected(now).is_some_and(|expected| expected <= limit);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.dialect.state_decides_for(&job.key) {
            return self.effects.push(Effect::Release { job: id });
        }
        let mut check = ClaimCheck::new(now);
        check.start_by = waits.then(|| now + BEFORE_START);
        job.check = Some(check);
        if waits {
            self.lookups.add_limited(Priority::Claim, now, Query::Claim(id), BEFORE_START);
        } else {
            self.release(id);
            self.lookups.add(Priority::Report, now, Query::Claim(id));
        }
    }

    fn drop_check(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.check = None;
        }
    }

    pub(super) fn release(&mut self, id: JobId) {
        if let Some(check) = self.jobs.get_mut(&id).and_then(|job| job.check.as_mut()) {
            check.start_by = None;
        }
        self.effects.push(Effect::Release { job: id });
    }

    /// The jobs whose start waits for an answer, the oldest first, and when each starts without one.
    fn waiting_starts(&self) -> impl Iterator<Item = (JobId, Instant)> {
        let waiting = self.jobs.iter().filter_map(|(id, job)| Some((*id, job.start_by()?)));
        waiting.enumerate().map(|(place, (id, start_by))| {
            (id, start_by.checked_sub(BEFORE_START - self.wait_of_start(place)).unwrap_or(start_by))
        })
    }

    /// Returns how long a start waits before which this number of others wait.
    fn wait_of_start(&self, place: usize) -> Duration {
        if place >= MAX_LOOKUPS && !self.backlog.is_empty() { SHORT_WAIT } else { BEFORE_START }
    }

    /// Starts the containers whose look-up got no answer in time.
    pub(super) fn start_unanswered(&mut self, now: Instant) {
        let late = self.waiting_starts().filter(|(_, start_by)| now >= *start_by);
        let late: Vec<JobId> = late.map(|(id, _)| id).collect();
        for id in late {
            if let Some(job) = self.jobs.get(&id) {
                self.effects.push(debug(format!("claim not looked up in time {}", job.key)));
            }
            self.lookups.demote(&Query::Claim(id));
            self.release(id);
        }
    }

    pub(super) fn next_unanswered(&self) -> Option<Instant> {
        self.waiting_starts().map(|(_, start_by)| start_by).min()
    }

    pub(super) fn claim_looked_up(&mut self, id: JobId, run: Option<&RunView>, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.is_working()) else { return };
        let claim = job.claim();
        let Some(check) = job.check.as_mut() else { return };
        let (waits, is_late, key) = (check.start_by.is_some(), now >= check.until, job.key.clone());
        let standing = run.map_or(Standing::Unclear, |run| standing(run, job.assigned_at));
        match standing {
            Standing::Running => {
                job.check = None;
                if waits {
                    self.effects.push(Effect::Release { job: id });
                }
            }
            Standing::Over => {
                if let Some(run) = run {
                    self.run_is_over(id, run.state);
                }
                self.drop_check(id);
            }
            Standing::TakenBack if job.started_at.is_some() => job.check = None,
            Standing::TakenBack => {
                let state = run.map_or("unknown", |run| run.state.word());
                let reason = format!("claim lost {key} reason=\"the run was taken back\" state={state}");
                self.effects.push(warn(reason));
                job.drop_work();
                self.effects.push(Effect::Cancel { job: id, reason: CancelReason::ClaimLost });
            }
            Standing::Ours if !is_late => {
                let delay = check.delay;
                check.delay = (delay * 2).min(LAST_DELAY);
                if waits {
                    check.start_by = Some(now + delay + BEFORE_START);
                }
                self.effects.push(debug(format!("claim not stored, sending it again {key}")));
                self.send(None, claim);
                let priority = if waits { Priority::Claim } else { Priority::Report };
                self.lookups.add_limited(priority, now + delay, Query::Claim(id), BEFORE_START);
            }
            Standing::Ours | Standing::Unclear => {
                let delay = LAST_DELAY;
                if waits {
                    self.release(id);
                }
                if self.lookups.have_succeeded() && !is_late {
                    self.lookups.add(Priority::Report, now + delay, Query::Claim(id));
                }
            }
        }
    }

    /// Claims an assignment again whose claim was confirmed: the control plane may not have stored it.
    pub(super) fn claim_again(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get(&id) {
            let claim = job.claim();
            self.effects.push(debug(format!("claim sent again {}", job.key)));
            self.send(None, claim);
        }
    }

    /// Looks up the run of an assignment that has waited long. The slot is kept for it.
    pub(super) fn check_assignment(&mut self, key: &ExecutionKey, now: Instant) {
        self.lookups.add_limited(Priority::Claim, now, Query::Assignment(key.clone()), BEFORE_CLAIM);
    }

    pub(super) fn assignment_looked_up(&mut self, key: &ExecutionKey, run: Option<&RunView>, now: Instant) {
        let Some(pending) = self.pending_mut(key).filter(|pending| pending.is_looked_up()) else { return };
        let standing = run.map(|run| standing(run, pending.assignment.updated_at));
        match standing {
            Some(Standing::Ours) => pending.answered(),
            None | Some(Standing::Unclear) => self.assignment_unanswered(key, now),
            Some(Standing::Over | Standing::Running | Standing::TakenBack) => {
                let state = run.map_or("unknown", |run| run.state.word());
                let reason = "the run is no longer assigned to this worker";
                self.effects
                    .push(info(format!("assignment dropped {key} reason=\"{reason}\" state={state}")));
                self.remove_pending(key);
            }
        }
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
