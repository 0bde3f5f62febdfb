//! Task timeouts, polling of runs, and engine outages.

use std::time::{Duration, Instant};

use super::claims::{Standing, standing};
use super::lookups::{Priority, Query};
use super::{Coordinator, JobState, warn};
use crate::job::JobId;
use crate::metrics::Rejection;
use crate::policy::LostRuns;
use crate::protocol::{RunState, RunView};
use crate::sys::cancel::CancelReason;

impl Coordinator {
    /// A task's time counts from the start of its container. Its preparation before that has a limit of the same length.
    pub(super) fn started(&mut self, id: JobId, ran: Duration, now: Instant) {
        let limit = self.rules.task_timeout;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.started_at = now.checked_sub(ran).or(Some(now));
        if !limit.is_zero() {
            job.ends_at = Some(now + limit.saturating_sub(ran));
        }
    }

    pub(super) fn exited(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.exited = true;
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.jobs.values().filter(|job| job.is_running()).filter_map(|job| job.ends_at).min()
    }

    pub(super) fn time_out(&mut self, now: Instant) {
        let is_late = |job: &JobState| job.is_running() && job.ends_at.is_some_and(|ends_at| now >= ends_at);
        let late: Vec<(JobId, String, bool)> = self
            .jobs
            .iter()
            .filter(|(_, job)| is_late(job))
            .map(|(id, job)| (*id, job.key.to_string(), job.started_at.is_some()))
            .collect();
        let limit_s = self.rules.task_timeout.as_secs();
        for (id, key, is_started) in late {
            let (line, reason) = if is_started {
                (format!("task timed out {key} limit_s={limit_s}"), CancelReason::TimedOut)
            } else {
                (format!("task preparation timed out {key} limit_s={limit_s}"), CancelReason::PreparedTooLong)
            };
            self.effects.push(warn(line));
            self.end_job(id, reason);
        }
    }

    /// New tasks could not start either, so they are given back.
    pub(super) fn engine(&mut self, id: JobId, away: Option<String>) {
        let is_known = self.jobs.contains_key(&id) || self.settling.is_removing(id);
        let Some(reason) = away.filter(|_| is_known) else {
            self.engine_away.remove(&id);
            self.beat.engine_answers();
            return;
        };
        self.engine_away.insert(id, reason.clone());
        self.give_back(Rejection::EngineUnavailable, &reason);
    }

    /// Looks up the runs of all running tasks if a poll is due and the last one is over.
    pub(super) fn poll_runs(&mut self, now: Instant) {
        let interval = self.rules.reconcile_interval;
        let jobs = self.jobs.iter().filter(|(_, job)| {
            job.is_running() && job.is_claimed() && job.dialect.state_decides_for(&job.key)
        });
        let mut jobs = jobs.map(|(id, _)| *id).peekable();
        if interval.is_zero() || self.is_ending() || jobs.peek().is_none() {
            self.poll_at = None;
            return;
        }
        let due = *self.poll_at.get_or_insert(now + interval);
        if self.link_is_up() && !self.lookups.are_polling() && now >= due {
            // Missed polls are not made up.
            self.poll_at = Some(now + interval);
            jobs.for_each(|id| self.lookups.add(Priority::Periodic, now, Query::Running(id)));
        }
    }

    /// Ends the task if its run is over at the control plane, and claims the run again if its claim was not stored.
    pub(super) fn running_looked_up(&mut self, id: JobId, run: &RunView) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.is_running()) else { return };
        match standing(run, job.assigned_at) {
            Standing::Over => self.run_is_over(id, run.state),
            Standing::Ours => self.claim_again(id),
            Standing::Running | Standing::TakenBack | Standing::Unclear => {}
        }
    }

    /// Ends the task of a run that has ended.
    pub(super) fn run_is_over(&mut self, id: JobId, state: RunState) {
        let Some(job) = self.jobs.get(&id).filter(|job| job.is_running()) else { return };
        let waits_to_start = job.start_by().is_some();
        let reason = match (state, self.rules.lost_runs) {
            (RunState::Cancelled, _) => CancelReason::Requested,
            (RunState::Failed, LostRuns::Finish) => {
                if waits_to_start {
                    self.release(id);
                }
                return;
            }
            _ => CancelReason::RunOver,
        };
        let key = &job.key;
        self.effects.push(warn(format!("run is over at the control plane {key} state={state}")));
        self.end_job(id, reason);
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
