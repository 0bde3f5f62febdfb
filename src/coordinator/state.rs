//! The state of the link, the engine and every job, for the log.

use std::time::Instant;

use super::event::{Effect, LinkState};
use super::view::JobView;
use super::{Coordinator, info, warn};
use crate::logging::message;

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
        for job in self.job_views(now) {
            let engine = if job.engine_away { "away" } else { "answers" };
            self.effects.push(info(format!("job state {} {} engine={engine}", job.key, fields(&job))));
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
fn fields(job: &JobView) -> String {
    let mut text = format!("phase={}", job.phase);
    if let Some(seconds) = job.running_s {
        text.push_str(&format!(" running_s={seconds}"));
    }
    if let Some(report) = job.report {
        text.push_str(&format!(" report={report}"));
    }
    text.push_str(if job.claimed { " claim=confirmed" } else { " claim=unconfirmed" });
    if let Some(reason) = job.ending {
        text.push_str(&format!(" ending={reason}"));
    }
    text
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
