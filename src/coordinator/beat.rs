//! The regular check that a worker makes even without tasks: whether the engine answers and its disk has space. The main thread
//! tells the service manager at the same time that it goes on, so that an idle worker wakes up for both at once.

use std::time::{Duration, Instant};

use super::event::Effect;
use super::{Coordinator, info, warn};
use crate::logging::message;

/// How often an engine that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(5);

/// What the checks have found.
#[derive(Default)]
pub(super) struct Beat {
    /// When the next check is due; `None` if there is none.
    at: Option<Instant>,
    /// Why the engine did not answer the last check.
    engine_away: Option<String>,
    /// Why the disk had too little space at its last check.
    disk_low: Option<String>,
    /// When the engine could no longer be used, by a check or by a task.
    outage_since: Option<Instant>,
}

impl Beat {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at
    }

    /// A task has used the engine.
    pub(super) fn engine_answers(&mut self) {
        self.engine_away = None;
    }

    /// Why the disk has too little space.
    pub(super) fn disk_low(&self) -> Option<&String> {
        self.disk_low.as_ref()
    }
}

impl Coordinator {
    /// Makes the check if it is due. Called after every event.
    pub(super) fn beat(&mut self, now: Instant) {
        self.record_outage(now);
        let every = self.rules.beat_every;
        if every.is_zero() {
            return;
        }
        let due = *self.beat.at.get_or_insert(now + every);
        if now >= due {
            let is_away = self.beat.engine_away.is_some();
            let tell = is_away || self.beat.disk_low.is_some();
            self.effects.push(Effect::Beat { tell });
            self.beat.at = Some(now + if is_away { every.min(RETRY) } else { every });
        }
    }

    /// The next check follows a full interval after a connection, so that it comes with a ping of the link.
    pub(super) fn align_beat(&mut self, now: Instant) {
        if self.beat.at.is_some() {
            self.beat.at = Some(now + self.rules.beat_every);
        }
    }

    pub(super) fn checked(&mut self, engine: Option<String>, disk: Option<&str>, now: Instant) {
        match (&self.beat.engine_away, &engine) {
            (None, Some(error)) => {
                let tasks = self.jobs.len();
                self.effects.push(warn(format!("engine away tasks={tasks} error={}", message(error))));
                // Soon, rather than after a full interval.
                self.beat.at = Some(now + self.rules.beat_every.min(RETRY));
            }
            (Some(_), None) => self.effects.push(info("engine back".to_owned())),
            _ => {}
        }
        self.beat.engine_away = engine;
        self.record_disk(disk);
    }

    /// Logs when the disk has become too full or has space again.
    pub(super) fn record_disk(&mut self, low: Option<&str>) {
        match (&self.beat.disk_low, low) {
            (None, Some(reason)) => self.effects.push(warn(format!("disk low reason={}", message(reason)))),
            (Some(_), None) => self.effects.push(info("disk has space again".to_owned())),
            _ => {}
        }
        self.beat.disk_low = low.map(str::to_owned);
    }

    /// Returns why the engine cannot be used, for people.
    pub(super) fn engine_problem(&self) -> Option<&String> {
        self.engine_away.values().next().or(self.beat.engine_away.as_ref())
    }

    /// Returns how long the present outage of the engine has lasted.
    pub(super) fn outage(&self, now: Instant) -> Option<Duration> {
        self.beat.outage_since.map(|since| now.saturating_duration_since(since))
    }

    fn record_outage(&mut self, now: Instant) {
        match (self.outage(now), self.engine_problem().is_some()) {
            (None, true) => {
                self.tally.outage();
                self.beat.outage_since = Some(now);
            }
            (Some(took), false) => {
                self.tally.outage_over(took);
                self.beat.outage_since = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "beat_tests.rs"]
mod tests;
