//! The order of stopping: no new tasks, running ones end and report, then the link closes, then the process ends.
//!
//! Owns the steps and their deadlines. It must not know how a container is stopped or a report sent.

use std::time::{Duration, Instant};

use super::{Coordinator, Effect, Exit, Settlement, error, info, warn};
use crate::cancel::CancelReason;
use crate::coordinator::job::Phase;
use crate::logging::value;

/// From the signal until reports that nobody confirms are given up: the containers' grace time of 10 s and what
/// collecting, sending and a reconnect may need.
const REPORTS: Duration = Duration::from_secs(40);

/// From the signal until the process ends whatever is left: within the 90 s that service managers give by default.
const WHOLE: Duration = Duration::from_secs(80);

pub(super) struct Stop {
    exit: Exit,
    reports_until: Instant,
    until: Instant,
    /// Reports are no longer waited for.
    hopeless: bool,
    closing: bool,
}

impl Stop {
    pub(super) fn deadline(&self) -> Instant {
        if self.hopeless { self.until } else { self.reports_until }
    }
}

impl Coordinator {
    /// The first asks for an orderly stop, the second ends at once.
    pub(super) fn signal(&mut self, now: Instant) {
        if self.stop.is_some() {
            self.effects.push(warn(format!("ending at once tasks={}", self.jobs.len())));
            self.effects.push(Effect::Exit(Exit::Interrupted));
        } else {
            self.effects.push(info(format!(
                "stopping tasks={} backlog={}",
                self.jobs.len(),
                self.backlog.len()
            )));
            self.begin_stop(Exit::Success, now);
        }
    }

    /// A link that ended by itself ends the worker, which cannot report any more.
    pub(super) fn link_is_gone(&mut self, exit: Exit, now: Instant) {
        if std::mem::replace(&mut self.link_gone, true) {
            return;
        }
        self.link_is_down();
        if self.stop.is_none() {
            self.effects.push(info(format!("stopping tasks={} reason=\"no link\"", self.jobs.len())));
            self.begin_stop(exit, now);
        }
        if let Some(stop) = self.stop.as_mut().filter(|stop| !stop.closing) {
            stop.exit = exit;
        }
    }

    fn begin_stop(&mut self, exit: Exit, now: Instant) {
        let until = now + WHOLE;
        self.stop = Some(Stop { exit, reports_until: now + REPORTS, until, hopeless: false, closing: false });
        for waiting in std::mem::take(&mut self.backlog) {
            self.reject(&waiting.assignment.task_id, "the worker is stopping");
        }
        for (id, job) in &self.jobs {
            if matches!(job.phase, Phase::Working) {
                self.effects.push(Effect::Cancel { job: *id, reason: CancelReason::Shutdown });
            }
        }
    }

    /// The next step of a stop that has begun, after every event.
    pub(super) fn go_on_stopping(&mut self, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        if now >= stop.until {
            self.effects.push(error(format!("stop took too long tasks={}", self.jobs.len())));
            self.effects.push(Effect::Exit(Exit::Failure));
            return;
        }
        stop.hopeless |= self.link_gone || now >= stop.reports_until;
        if stop.hopeless {
            self.give_up_reports();
        }
        if self.jobs.is_empty() {
            self.end();
        }
    }

    fn give_up_reports(&mut self) {
        for (id, job) in &mut self.jobs {
            if job.give_up() {
                self.effects.push(error(format!("report lost task={}", value(&job.assignment.task_id))));
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
