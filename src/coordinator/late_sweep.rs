//! The late sweep: once in a process, some time after its start, and again if it fails.

use std::time::Instant;

use super::Coordinator;
use super::event::Effect;
use crate::job::REMOVE_AGAIN_AFTER;
use crate::protocol::{Dialect, ExecutionKey};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LateSweep {
    /// No event came yet; the delay counts from the first.
    Unplanned,
    /// Due at this time.
    Due(Instant),
    /// Under way, done, or not needed.
    Over,
}

impl LateSweep {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Due(at) => Some(at),
            Self::Unplanned | Self::Over => None,
        }
    }
}

impl Coordinator {
    /// A worker that stops leaves the sweep to the next process.
    pub(super) fn late_sweep(&mut self, now: Instant) {
        let delay = self.rules.late_sweep_after;
        self.late_sweep = match self.late_sweep {
            LateSweep::Over => return,
            _ if delay.is_zero() || self.stop.is_some() => LateSweep::Over,
            LateSweep::Unplanned => LateSweep::Due(now + delay),
            LateSweep::Due(at) if now < at => return,
            LateSweep::Due(_) => {
                self.effects.push(Effect::LateSweep);
                LateSweep::Over
            }
        };
    }

    /// A late sweep ended; `again` if it has left something.
    pub(super) fn late_swept(&mut self, unstarted: Vec<(ExecutionKey, Dialect)>, again: bool, now: Instant) {
        self.remember_unstarted(unstarted, now);
        if again && self.stop.is_none() {
            self.late_sweep = LateSweep::Due(now + REMOVE_AGAIN_AFTER);
        }
    }
}

#[cfg(test)]
#[path = "late_sweep_tests.rs"]
mod tests;
