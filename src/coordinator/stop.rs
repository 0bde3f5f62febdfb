//! The order of stopping: no new tasks; running ones may go on for the drain time; then they are ended and reported; then
//! the link closes, and the process ends.
//!
//! Owns the steps and their deadlines. It must not know how a container is stopped or a report sent.

use std::time::{Duration, Instant};

use super::event::{Effect, Stopping};
use super::{Coordinator, error, info, warn};
use crate::exit::Exit;
use crate::job::{JobId, Settlement};
use crate::logging::value;
use crate::sys::cancel::CancelReason;

/// From the end of the drain until reports that nobody confirms are given up: the containers' grace time of 10 s and
/// what collecting, sending and a reconnect may need.
const REPORTS: Duration = Duration::from_secs(40);

/// From the end of the drain until the process ends whatever is left: without a drain, within the 90 s that service
/// managers give by default.
const WHOLE: Duration = Duration::from_secs(80);

/// How often it is told how far the stop is.
const PROGRESS: Duration = Duration::from_secs(10);

pub(super) struct Stop {
    exit: Exit,
    /// How long it may take in all.
    budget: Duration,
    /// Running tasks go on.
    draining: bool,
    /// When the drain ends, or has ended.
    drained: Instant,
    /// Reports are no longer waited for.
    hopeless: bool,
    closing: bool,
    progress: Instant,
}

impl Stop {
    pub(super) fn deadline(&self) -> Instant {
        let step = match self {
            Self { draining: true, .. } => self.drained,
            Self { hopeless: false, .. } => self.drained + REPORTS,
            _ => self.until(),
        };
        if self.closing { step } else { step.min(self.progress) }
    }

    pub(super) fn status(&self) -> Stopping {
        Stopping { draining: self.draining, budget: self.budget }
    }

    fn until(&self) -> Instant {
        self.drained + WHOLE
    }
}

impl Coordinator {
    /// The first asks for an orderly stop; one in the drain ends that; a further one ends the process at once.
    pub(super) fn signal(&mut self, now: Instant) {
        match self.stop.as_ref().map(|stop| stop.draining) {
            None => self.begin(Exit::Success, self.rules.drain_timeout, now),
            Some(true) => self.end_tasks(now),
            Some(false) => {
                self.effects.push(warn(format!("ending at once tasks={}", self.jobs.len())));
                self.effects.push(Effect::Exit(Exit::Interrupted));
            }
        }
    }

    /// A link that ended by itself ends the worker, which cannot report any more.
    pub(super) fn link_is_gone(&mut self, exit: Exit, now: Instant) {
        if std::mem::replace(&mut self.link_gone, true) {
            return;
        }
        self.link_is_down();
        match self.stop.as_ref().map(|stop| stop.draining) {
            None => self.begin(exit, Duration::ZERO, now),
            Some(true) => self.end_tasks(now),
            Some(false) => {}
        }
        if let Some(stop) = self.stop.as_mut().filter(|stop| !stop.closing) {
            stop.exit = exit;
        }
    }

    /// Whether tasks have been told to end.
    pub(super) fn stop_has_begun(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| !stop.draining)
    }

    fn begin(&mut self, exit: Exit, drain: Duration, now: Instant) {
        let (tasks, backlog, drain_s) = (self.jobs.len(), self.backlog.len(), drain.as_secs());
        let budget = drain + WHOLE;
        let budget_s = budget.as_secs();
        let line = format!("stopping tasks={tasks} backlog={backlog} drain_s={drain_s} budget_s={budget_s}");
        self.effects.push(info(line));
        let (drained, progress) = (now + drain, now + PROGRESS);
        let (hopeless, closing) = (false, false);
        self.stop = Some(Stop { exit, budget, draining: true, drained, hopeless, closing, progress });
        self.give_back("the worker is stopping");
    }

    /// The drain is over, in whatever way.
    fn end_tasks(&mut self, now: Instant) {
        let Some(stop) = self.stop.as_mut() else { return };
        (stop.draining, stop.drained) = (false, now);
        let working = self.jobs.iter().filter(|(_, job)| job.is_working());
        let working: Vec<JobId> = working.map(|(id, _)| *id).collect();
        if !working.is_empty() {
            self.effects.push(info(format!("tasks ending tasks={}", working.len())));
        }
        working.into_iter().for_each(|id| self.end_job(id, CancelReason::Shutdown));
        self.effects.push(Effect::StopWaiting);
    }

    /// The next step of a stop that has begun, after every event.
    pub(super) fn go_on_stopping(&mut self, now: Instant) {
        let Some(stop) = &self.stop else { return };
        let all_ended = || !self.jobs.values().any(super::Job::is_working);
        if stop.draining && (now >= stop.drained || all_ended()) {
            self.end_tasks(now);
        }
        let Some(stop) = &mut self.stop else { return };
        if !stop.draining {
            if now >= stop.until() {
                self.effects.push(error(format!("stop took too long tasks={}", self.jobs.len())));
                self.effects.push(Effect::Exit(Exit::Failure));
                return;
            }
            stop.hopeless |= self.link_gone || now >= stop.drained + REPORTS;
        }
        if stop.hopeless {
            self.give_up_reports();
        }
        if self.jobs.is_empty() {
            self.end();
        } else {
            self.tell_progress(now);
        }
    }

    fn tell_progress(&mut self, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        if now < stop.progress {
            return;
        }
        stop.progress = now + PROGRESS;
        let working = self.jobs.values().filter(|job| job.is_working()).count();
        let (step, until) =
            if stop.draining { ("draining", stop.drained) } else { ("stopping", stop.until()) };
        let left_s = until.saturating_duration_since(now).as_secs();
        let tasks = self.jobs.len();
        let line = format!("{step} tasks={tasks} working={working} left_s={left_s}");
        self.effects.push(info(line));
    }

    /// What this process cannot deliver stays for the next one.
    fn give_up_reports(&mut self) {
        for (id, job) in &mut self.jobs {
            if job.give_up() {
                self.effects.push(error(format!("report not delivered task={}", value(&job.task_id))));
                self.effects.push(Effect::Settle { job: *id, settlement: Settlement::Undelivered });
                if let Some(stop) = self.stop.as_mut().filter(|stop| stop.exit == Exit::Success) {
                    stop.exit = Exit::Failure;
                }
            }
        }
    }

    fn end(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        if self.link_gone {
            self.effects.push(Effect::Exit(stop.exit));
        } else if !stop.closing {
            stop.closing = true;
            self.effects.push(Effect::CloseLink);
        }
    }
}

#[cfg(test)]
#[path = "stop_tests.rs"]
mod tests;
