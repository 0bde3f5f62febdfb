//! What is watched while tasks run: their time, their runs at the control plane, and the engine.
//!
//! Owns when the control plane is asked and what its answer means for a task. It must not know how it is asked.

use std::time::{Duration, Instant};

use super::event::{Effect, RunEnd};
use super::{Coordinator, LostRuns, warn};
use crate::job::JobId;
use crate::logging::value;
use crate::sys::cancel::CancelReason;

impl Coordinator {
    /// The time that a task has is counted from its container's start.
    pub(super) fn started(&mut self, id: JobId, ran: Duration, now: Instant) {
        let limit = self.rules.task_timeout;
        if let Some(job) = self.jobs.get_mut(&id).filter(|_| !limit.is_zero()) {
            job.ends = Some(now + limit.saturating_sub(ran));
        }
    }

    pub(super) fn next_time_out(&self) -> Option<Instant> {
        self.jobs.values().filter(|job| job.goes_on()).filter_map(|job| job.ends).min()
    }

    pub(super) fn time_out(&mut self, now: Instant) {
        let late = |job: &super::Job| job.goes_on() && job.ends.is_some_and(|ends| now >= ends);
        let jobs = self.jobs.iter().filter(|(_, job)| late(job));
        let jobs: Vec<(JobId, String)> = jobs.map(|(id, job)| (*id, job.task_id.clone())).collect();
        let limit_s = self.rules.task_timeout.as_secs();
        for (id, task_id) in jobs {
            self.effects.push(warn(format!("task timed out task={} limit_s={limit_s}", value(&task_id))));
            self.end_job(id, CancelReason::TimedOut);
        }
    }

    /// New tasks would only wait for it too.
    pub(super) fn engine(&mut self, id: JobId, away: bool) {
        if !away {
            self.away.remove(&id);
        } else if self.jobs.contains_key(&id) {
            self.away.insert(id);
            self.give_back("the docker engine does not answer");
        }
    }

    /// Asks for all runs that go on here, when it is time and the last answer has come.
    pub(super) fn ask(&mut self, now: Instant) {
        let interval = self.rules.reconcile_interval;
        let jobs = self.jobs.iter().filter(|(_, job)| job.goes_on() && job.is_claimed());
        let mut jobs = jobs.map(|(id, job)| (*id, job.task_id.clone())).peekable();
        if interval.is_zero() || self.stop_has_begun() || jobs.peek().is_none() {
            self.ask_at = None;
            return;
        }
        let due = *self.ask_at.get_or_insert(now + interval);
        if self.link_is_there() && !self.asking && now >= due {
            self.asking = true;
            self.effects.push(Effect::Ask(jobs.collect()));
            self.ask_at = Some(now + interval);
        }
    }

    /// A run that is over there is of no use here.
    pub(super) fn asked(&mut self, over: Vec<(JobId, RunEnd)>, now: Instant) {
        self.asking = false;
        // An answer that took longer than the interval is not followed by the next question at once.
        self.ask_at = self.ask_at.map(|due| due.max(now));
        for (id, end) in over {
            let Some(job) = self.jobs.get(&id).filter(|job| job.goes_on()) else { continue };
            let reason = match (end, self.rules.lost_runs) {
                (RunEnd::Cancelled, _) => CancelReason::Requested,
                (RunEnd::Failed, LostRuns::Finish) => continue,
                (RunEnd::Failed, LostRuns::Stop) | (RunEnd::Succeeded, _) => CancelReason::RunOver,
            };
            let (task, state) = (value(&job.task_id).to_string(), end.name());
            let line = format!("run is over at the control plane task={task} state={state}");
            self.effects.push(warn(line));
            self.end_job(id, reason);
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
