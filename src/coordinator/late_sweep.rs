//! The second look for what an earlier process has left: once in a process, some time after its start.
//!
//! Owns when it is due. It must not know what is looked for or how.

use std::time::Instant;

use super::Coordinator;
use super::event::Effect;

/// How far it is with the second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LateSweep {
    /// Nothing has happened yet from which its time could be counted.
    Unplanned,
    /// It is made then.
    Due(Instant),
    /// It was made, or is not made any more.
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
    /// Who is stopping leaves it to the next process, which looks anyway.
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
}

#[cfg(test)]
#[path = "late_sweep_tests.rs"]
mod tests;
