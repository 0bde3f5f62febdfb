//! The second look for what an earlier process has left: once in a process, some time after its start.
//!
//! Owns when it is due. It must not know what is looked for or how.

use std::time::Instant;

use super::Coordinator;
use super::event::Effect;

/// How far it is with the second look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing has happened yet from which its time could be counted.
    Unplanned,
    /// It is made then.
    Due(Instant),
    /// It was made, or is not made any more.
    Over,
}

impl Look {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Due(at) => Some(at),
            Self::Unplanned | Self::Over => None,
        }
    }
}

impl Coordinator {
    /// Who is stopping leaves it to the next process, which looks anyway.
    pub(super) fn look_again(&mut self, now: Instant) {
        let delay = self.rules.look_again_after;
        self.look = match self.look {
            Look::Over => return,
            _ if delay.is_zero() || self.stop.is_some() => Look::Over,
            Look::Unplanned => Look::Due(now + delay),
            Look::Due(at) if now < at => return,
            Look::Due(_) => {
                self.effects.push(Effect::LookAgain);
                Look::Over
            }
        };
    }
}

#[cfg(test)]
#[path = "late_sweep_tests.rs"]
mod tests;
