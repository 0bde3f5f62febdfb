//! Faults of the control plane's store: what it receives and does not store, and when it crashes. Each is chosen from a seed.

use crate::support::rng::Rng;

/// How often a fault happens: once in so many messages; 0 means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// A `task_claimed` is lost.
    pub lose_claim: u64,
    /// A `task_completed` or `task_failed` is lost.
    pub lose_report: u64,
    /// The store is locked when a message arrives, and loses all messages until it is unlocked after some more.
    pub lock: u64,
    /// The control plane stores a message and then crashes, before it answers a ping. At most [`MAX_CRASHES`] times.
    pub crash: u64,
    /// An answer of the REST part is padded to 64 MiB.
    pub large_answer: u64,
    /// A look-up fails with 503.
    pub fail_look_up: u64,
}

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Stored,
    /// Received, and not stored.
    Lost,
    /// Stored, and then the control plane crashes.
    Crash,
}

/// The faults with their choices.
pub(super) struct Chance {
    faults: Faults,
    rng: Rng,
    /// How many more messages are lost because the store is locked.
    locked_for: u64,
    crashes: u64,
}

/// A worker reconnects after each crash, with longer and longer pauses.
const MAX_CRASHES: u64 = 3;

/// The most messages that a locked store loses.
const LONGEST_LOCK: u64 = 4;

impl Chance {
    pub(super) fn new(faults: Faults, rng: Rng) -> Self {
        Self { faults, rng, locked_for: 0, crashes: 0 }
    }

    /// Returns true once in `often` calls.
    fn happens(&mut self, often: u64) -> bool {
        often > 0 && self.rng.u64(1..=often) == 1
    }

    pub(super) fn of_message(&mut self, kind: &str) -> Fate {
        let lose = if kind == "task_claimed" { self.faults.lose_claim } else { self.faults.lose_report };
        if self.locked_for == 0 && self.happens(self.faults.lock) {
            self.locked_for = self.rng.u64(1..=LONGEST_LOCK);
        }
        if self.locked_for > 0 {
            self.locked_for -= 1;
            return Fate::Lost;
        }
        if self.happens(lose) {
            Fate::Lost
        } else if self.crashes < MAX_CRASHES && self.happens(self.faults.crash) {
            self.crashes += 1;
            Fate::Crash
        } else {
            Fate::Stored
        }
    }

    /// Returns whether a look-up fails, and whether its answer is large.
    pub(super) fn of_look_up(&mut self) -> (bool, bool) {
        (self.happens(self.faults.fail_look_up), self.happens(self.faults.large_answer))
    }
}
