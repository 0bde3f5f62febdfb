//! Refused attempts to connect: whether one ends the worker, and how often it is logged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Coordinator, LinkState, error, warn};
use crate::coordinator::event::Effect;
use crate::exit::Exit;
use crate::logging::{message, value};

/// How often the same reason is logged as a warning.
const WARN_EVERY: Duration = Duration::from_secs(60 * 60);

/// A refused attempt to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, and what to check.
    pub reason: String,
    /// The beginning of the answer's body, unescaped; may be empty.
    pub body: String,
    /// Whether it may pass without a change of the settings even if the worker was never connected.
    pub may_pass: bool,
    /// The wait before the next attempt; `None` if there is none.
    pub retry_in: Option<Duration>,
}

/// What is known about refusals.
#[derive(Default)]
pub(super) struct Refusals {
    /// This process was connected before, so the settings were right.
    was_connected: bool,
    /// Why the last attempt was refused; `None` if it was not.
    current: Option<String>,
    /// When each reason was last logged as a warning.
    warned: BTreeMap<String, Instant>,
}

impl Refusals {
    pub(super) fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    pub(super) fn connected(&mut self) {
        self.was_connected = true;
        self.current = None;
    }

    pub(super) fn failed_otherwise(&mut self) {
        self.current = None;
    }

    /// Whether a warning with this reason is due. There are as many reasons as statuses, so the list stays short.
    fn warns(&mut self, reason: &str, now: Instant) -> bool {
        self.warned.retain(|_, warned_at| now.saturating_duration_since(*warned_at) < WARN_EVERY);
        let is_due = !self.warned.contains_key(reason);
        if is_due {
            self.warned.insert(reason.to_owned(), now);
        }
        is_due
    }
}

impl Coordinator {
    /// Ends the worker if it was never connected and has no task: the settings are then probably wrong. Otherwise the control plane
    /// or a proxy may only be out of order, and the link tries again.
    pub(super) fn link_refused(&mut self, refusal: Refusal, now: Instant) {
        let Refusal { reason, body, may_pass, retry_in } = refusal;
        let body = if body.is_empty() { String::new() } else { format!(" body={}", value(&body)) };
        if !may_pass && !self.refusals.was_connected && self.jobs.is_empty() {
            self.effects.push(error(format!("link ended error={}{body}", message(&reason))));
            self.link_gone(Exit::Refused, Some(reason), now);
            return;
        }
        self.link = LinkState::Away;
        self.tally.dial_failed();
        let retry = retry_in.map(|delay| format!(" retry_in={delay:.1?}")).unwrap_or_default();
        let tasks = self.jobs.len();
        let line = format!("link refused reason={}{body}{retry} tasks={tasks}", message(&reason));
        let is_due = self.refusals.warns(&reason, now);
        self.effects.push(if is_due { warn(line) } else { Effect::Log(log::Level::Debug, line) });
        self.refusals.current = Some(reason);
    }
}

#[cfg(test)]
#[path = "refusal_tests.rs"]
mod tests;
