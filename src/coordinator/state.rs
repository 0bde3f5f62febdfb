//! The state of the link, the engine and every job, for the log.

use std::time::Instant;

use super::event::{Effect, LinkState};
use super::job::{JobState, Step};
use super::{Coordinator, info, warn};
use crate::logging::message;
use crate::sys::cancel::CancelReason;

impl Coordinator {
    /// Logs the state. The engine is asked whether it answers, so its line comes with the answer.
    pub(super) fn log_state(&mut self, now: Instant) {
        let link = match self.link {
            _ if self.link_is_gone => "ended",
            LinkState::Connecting => "connecting",
            LinkState::Up => "connected",
            LinkState::Away => "waiting",
        };
        let (jobs, backlog) = (self.jobs.len(), self.backlog.len());
        let refused = self.refusals.current().map(|reason| format!(" reason={}", message(reason)));
        let refused = refused.unwrap_or_default();
        self.effects.push(info(format!("link state state={link} tasks={jobs} backlog={backlog}{refused}")));
        for (id, job) in &self.jobs {
            let engine = if self.engine_away.contains_key(id) { "away" } else { "answers" };
            self.effects.push(info(format!("job state {} {} engine={engine}", job.key, fields(job, now))));
        }
        self.log_stop(now);
        if !std::mem::replace(&mut self.pinging, true) {
            self.effects.push(Effect::PingEngine);
        }
    }

    /// Logs whether the engine answers.
    pub(super) fn engine_pinged(&mut self, error: Option<&str>) {
        self.pinging = false;
        self.effects.push(match error {
            None => info("engine state state=answers".to_owned()),
            Some(error) => warn(format!("engine state state=away error={}", message(error))),
        });
    }
}

/// Returns the keys of a job's line.
fn fields(job: &JobState, now: Instant) -> String {
    let phase = match job.step() {
        Step::Preparing => "preparing".to_owned(),
        Step::Running { since } => {
            format!("running running_s={}", now.saturating_duration_since(since).as_secs())
        }
        Step::Collecting => "collecting".to_owned(),
        Step::Dropped => "dropped".to_owned(),
        Step::Reporting { sent } => format!("reporting report={}", if sent { "sent" } else { "waiting" }),
        Step::CleaningUp => "cleaning_up".to_owned(),
    };
    let claim = if job.is_claimed() { "confirmed" } else { "unconfirmed" };
    let ending = job.ending.map(|reason| format!(" ending={}", word(reason))).unwrap_or_default();
    format!("phase={phase} claim={claim}{ending}")
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

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
