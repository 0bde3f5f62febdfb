//! Stopping: the worker takes no new tasks. Running tasks continue until the drain is over; then they are stopped and reported.
//! At the end the link closes and the process exits.
//!
//! ```text
//! Draining ---> Ending ---> GaveUp
//!                  |           |
//!                  +-----+-----+
//!                        v
//!                     Closing ---> (exit)
//! ```
//!
//! - `Draining` ends when its time is up, all tasks have ended, the next signal comes, or the link ends.
//! - `Ending` becomes `GaveUp` when reports are not confirmed in time, or the link has ended.
//! - `Closing` follows when no job is left. In every step after `Draining`, a signal ends the process at once.
//!
//! Signals within [`ONE_SIGNAL`] count as one.

use std::time::{Duration, Instant};

use super::event::{Effect, Stopping};
use super::job::JobState;
use super::{Coordinator, error, info, warn};
use crate::exit::Exit;
use crate::job::{JobId, Settlement};
use crate::metrics::Rejection;
use crate::sys::cancel::CancelReason;

/// How long to wait for reports after the drain, beside the containers' grace time: to collect, send and reconnect.
const REPORTS: Duration = Duration::from_secs(30);

/// When the process exits after the drain and the grace time, even with tasks left. Without a drain, and with the default
/// grace time of 10 s, this is within the 90 s that service managers allow by default.
const TOTAL: Duration = Duration::from_secs(70);

/// Signals that follow one within this time are part of it: `timeout` sends two, and a terminal may send one to a whole group
/// that a supervisor passes on.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// The time between two progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Running tasks continue.
    Draining,
    /// Tasks are being stopped; the worker waits for their reports.
    Ending,
    /// The worker no longer waits for reports.
    GaveUp,
    /// Every job is done; the link closes.
    Closing,
}

pub(super) struct Stop {
    exit: Exit,
    /// The error that ends the worker, for people.
    reason: Option<String>,
    step: Step,
    /// The maximum duration of the stop.
    budget: Duration,
    /// From TERM to KILL for a task's container.
    grace: Duration,
    /// The last signal that counted.
    signalled_at: Option<Instant>,
    /// When the drain ends or ended.
    drained_at: Instant,
    /// When the next progress line is due.
    progress_at: Instant,
}

impl Stop {
    pub(super) fn deadline(&self) -> Instant {
        match self.step {
            Step::Draining => self.drained_at.min(self.progress_at),
            Step::Ending => self.gives_up_at().min(self.progress_at),
            Step::GaveUp => self.ends_at().min(self.progress_at),
            Step::Closing => self.ends_at(),
        }
    }

    pub(super) fn status(&self) -> Stopping {
        Stopping { draining: self.is_draining(), budget: self.budget, reason: self.reason.clone() }
    }

    fn is_draining(&self) -> bool {
        self.step == Step::Draining
    }

    fn gives_up_at(&self) -> Instant {
        self.drained_at + self.grace + REPORTS
    }

    fn ends_at(&self) -> Instant {
        self.drained_at + self.grace + TOTAL
    }
}

impl Coordinator {
    /// The first signal begins the stop, one during the drain ends the drain, and a further one ends the process.
    pub(super) fn signal(&mut self, now: Instant) {
        let last = self.stop.as_ref().and_then(|stop| stop.signalled_at);
        if last.is_some_and(|last| now < last + ONE_SIGNAL) {
            return;
        }
        match self.stop.as_ref().map(Stop::is_draining) {
            None => self.begin_stop(Exit::Success, self.rules.drain_timeout, now),
            Some(true) => self.end_tasks(now),
            Some(false) => {
                self.effects.push(warn(format!("ending at once tasks={}", self.jobs.len())));
                self.effects.push(Effect::Exit(Exit::Interrupted));
            }
        }
        if let Some(stop) = &mut self.stop {
            stop.signalled_at = Some(now);
        }
    }

    /// Stops the worker after the link has failed: no report can be sent any more.
    pub(super) fn link_gone(&mut self, exit: Exit, reason: Option<String>, now: Instant) {
        if std::mem::replace(&mut self.link_is_gone, true) {
            return;
        }
        self.link_down(now);
        match self.stop.as_ref().map(Stop::is_draining) {
            None => self.begin_stop(exit, Duration::ZERO, now),
            Some(true) => self.end_tasks(now),
            Some(false) => {}
        }
        if let Some(stop) = self.stop.as_mut().filter(|stop| stop.step != Step::Closing) {
            stop.exit = exit;
            stop.reason = reason;
        }
    }

    /// Whether the drain is over and running tasks are being stopped.
    pub(super) fn is_ending(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| !stop.is_draining())
    }

    fn begin_stop(&mut self, exit: Exit, drain: Duration, now: Instant) {
        let grace = self.rules.stop_grace;
        let budget = drain + grace + TOTAL;
        let tasks = self.jobs.len();
        let note = if drain.is_zero() || tasks == 0 {
            String::new()
        } else {
            let (limit, number) = (readable(drain), counted(tasks));
            format!(" note=\"draining up to {limit}, {number}; signal again to end them now\"")
        };
        self.effects.push(info(format!(
            "stopping tasks={tasks} backlog={} drain_s={} budget_s={}{note}",
            self.backlog.len(),
            drain.as_secs(),
            budget.as_secs()
        )));
        self.stop = Some(Stop {
            exit,
            reason: None,
            step: Step::Draining,
            budget,
            grace,
            signalled_at: None,
            drained_at: now + drain,
            progress_at: now + PROGRESS,
        });
        self.give_back(Rejection::Stopping, "the worker is stopping");
    }

    fn end_tasks(&mut self, now: Instant) {
        let Some(stop) = self.stop.as_mut() else { return };
        stop.step = Step::Ending;
        stop.drained_at = now;
        let working = self.jobs.iter().filter(|(_, job)| job.is_working());
        let working: Vec<JobId> = working.map(|(id, _)| *id).collect();
        if !working.is_empty() {
            let (tasks, grace) = (working.len(), stop.grace.as_secs());
            self.effects.push(info(format!(
                "tasks ending tasks={tasks} grace_s={grace} note=\"signal again to end the process at once\""
            )));
        }
        working.into_iter().for_each(|id| self.end_job(id, CancelReason::Shutdown));
        self.effects.push(Effect::StopWaiting);
        self.hurry_reports(now);
    }

    /// Takes the next step of a stop. Called after every event.
    pub(super) fn continue_stop(&mut self, now: Instant) {
        let Some(stop) = &self.stop else { return };
        let tasks_ended = || !self.jobs.values().any(JobState::is_working);
        if stop.is_draining() && (now >= stop.drained_at || tasks_ended()) {
            self.end_tasks(now);
        }
        let Some(stop) = &mut self.stop else { return };
        if !stop.is_draining() && now >= stop.ends_at() {
            self.effects.push(error(format!("stop took too long tasks={}", self.jobs.len())));
            self.effects.push(Effect::Exit(Exit::Failure));
            return;
        }
        if stop.step == Step::Ending && (self.link_is_gone || now >= stop.gives_up_at()) {
            stop.step = Step::GaveUp;
        }
        if stop.step == Step::GaveUp {
            self.give_up_reports();
        }
        if self.jobs.is_empty() && self.settling.is_empty() {
            self.close();
        } else {
            self.log_progress(now);
        }
    }

    fn log_progress(&mut self, now: Instant) {
        if let Some(stop) = self.stop.as_mut().filter(|stop| now >= stop.progress_at) {
            stop.progress_at = now + PROGRESS;
            self.log_stop(now);
        }
    }

    /// Logs how far the stop is, if there is one.
    pub(super) fn log_stop(&mut self, now: Instant) {
        let Some(stop) = &self.stop else { return };
        let (step, until) =
            if stop.is_draining() { ("draining", stop.drained_at) } else { ("stopping", stop.ends_at()) };
        let working = self.jobs.values().filter(|job| job.is_working()).count();
        let left_s = until.saturating_duration_since(now).as_secs();
        let tasks = self.jobs.len();
        self.effects.push(info(format!("{step} tasks={tasks} working={working} left_s={left_s}")));
    }

    /// Gives up the reports that are unconfirmed or known not to be stored; the next process delivers them.
    fn give_up_reports(&mut self) {
        self.give_up_missing();
        let mut lost = false;
        for (id, job) in &mut self.jobs {
            if job.give_up_report() {
                self.effects.push(error(format!("report not delivered {}", job.key)));
                self.effects.push(Effect::Settle { job: *id, settlement: Settlement::Undelivered });
                lost = true;
            }
        }
        if lost {
            self.fail_stop();
        }
    }

    /// A stop that leaves a report to the next process is no success.
    pub(super) fn fail_stop(&mut self) {
        if let Some(stop) = self.stop.as_mut().filter(|stop| stop.exit == Exit::Success) {
            stop.exit = Exit::Failure;
        }
    }

    fn close(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        if self.link_is_gone {
            self.effects.push(Effect::Exit(stop.exit));
        } else if stop.step != Step::Closing {
            stop.step = Step::Closing;
            self.effects.push(Effect::CloseLink);
        }
    }
}

/// Returns a duration of whole seconds, as a setting is written: `1h30m`.
fn readable(duration: Duration) -> String {
    let mut left = duration.as_secs();
    let mut text = String::new();
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")] {
        if left >= unit {
            text.push_str(&format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Returns a number of tasks in words.
fn counted(tasks: usize) -> String {
    if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") }
}

#[cfg(test)]
#[path = "stop_tests.rs"]
mod tests;
