//! Task timeouts, polling of runs, and engine outages.

use std::time::{Duration, Instant};

use super::event::Effect;
use super::{Coordinator, JobState, warn};
use crate::job::JobId;
use crate::policy::LostRuns;
use crate::protocol::RunState;
use crate::sys::cancel::CancelReason;

impl Coordinator {
    /// A task's time counts from the start of its container.
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
        let late: Vec<(JobId, String)> = self
            .jobs
            .iter()
            .filter(|(_, job)| is_late(job))
            .map(|(id, job)| (*id, job.key.to_string()))
            .collect();
        let limit_s = self.rules.task_timeout.as_secs();
        for (id, key) in late {
            self.effects.push(warn(format!("task timed out {key} limit_s={limit_s}")));
            self.end_job(id, CancelReason::TimedOut);
        }
    }

    /// New tasks could not start either, so they are given back.
    pub(super) fn engine(&mut self, id: JobId, away: Option<String>) {
        let Some(reason) = away.filter(|_| self.jobs.contains_key(&id)) else {
            self.engine_away.remove(&id);
            return;
        };
        self.engine_away.insert(id, reason.clone());
        self.give_back(&reason);
    }

    /// Polls the runs of all running tasks if a poll is due and the last poll was answered.
    pub(super) fn poll_runs(&mut self, now: Instant) {
        let interval = self.rules.reconcile_interval;
        let jobs = self.jobs.iter().filter(|(_, job)| job.is_running() && job.is_claimed());
        let mut jobs = jobs.map(|(id, job)| (*id, job.key.task_id.clone())).peekable();
        if interval.is_zero() || self.is_ending() || jobs.peek().is_none() {
            self.poll_at = None;
            return;
        }
        let due = *self.poll_at.get_or_insert(now + interval);
        if self.link_is_up() && !self.polling && now >= due {
            self.polling = true;
            self.effects.push(Effect::PollRuns(jobs.collect()));
            self.poll_at = Some(now + interval);
        }
    }

    /// Ends the tasks whose runs are over at the control plane.
    pub(super) fn run_states(&mut self, states: Vec<(JobId, RunState)>, now: Instant) {
        self.polling = false;
        // If the answer took longer than the interval, the next poll is due now. Missed polls are not made up.
        self.poll_at = self.poll_at.map(|due| due.max(now));
        for (id, state) in states {
            let Some(job) = self.jobs.get(&id).filter(|job| job.is_running()) else { continue };
            let reason = match (state, self.rules.lost_runs) {
                (RunState::Cancelled, _) => CancelReason::Requested,
                (RunState::Failed, LostRuns::Finish) => continue,
                (RunState::Failed, LostRuns::Stop) | (RunState::Succeeded, _) => CancelReason::RunOver,
                (RunState::Queued | RunState::Pending | RunState::Claimed | RunState::InProgress, _) => {
                    continue;
                }
            };
            let key = &job.key;
            self.effects.push(warn(format!("run is over at the control plane {key} state={state}")));
            self.end_job(id, reason);
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
