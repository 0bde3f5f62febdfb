//! How much of an output is read, and for how long. Pure: the caller passes the time.

use std::time::{Duration, Instant};

/// The limits of collecting one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::task) struct Limits {
    /// The most bytes that are searched from the beginning.
    pub(in crate::task) bytes: u64,
    /// How long that may take.
    pub(in crate::task) time: Duration,
    /// As `time`, from when the task is cancelled, timed out or stopped.
    pub(in crate::task) ended: Duration,
    /// As `time`, from a cancel that comes while the output is read, or from a second reason to end the task.
    pub(in crate::task) interrupted: Duration,
    /// How long it may take to read the end of a log whose beginning took too long.
    pub(in crate::task) tail: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 2 << 30,
            time: Duration::from_secs(120),
            ended: Duration::from_secs(20),
            interrupted: Duration::from_secs(2),
            tail: Duration::from_secs(5),
        }
    }
}

/// What is left of the limits. An attempt that is repeated, such as after an outage of the engine, reads all bytes again, but its
/// time adds up.
#[derive(Debug, Clone)]
pub(in crate::task) struct Budget {
    limits: Limits,
    time: Duration,
    used: Duration,
    began: Instant,
    bytes: u64,
}

impl Budget {
    /// Returns the budget of a task that has ended by itself, or that `was_ended`.
    pub(in crate::task) fn new(limits: Limits, was_ended: bool, now: Instant) -> Self {
        let time = if was_ended { limits.ended } else { limits.time };
        Self { limits, time, used: Duration::ZERO, began: now, bytes: 0 }
    }

    /// Begins an attempt. The time since [`Budget::pause`] does not count.
    pub(in crate::task) fn begin(&mut self, now: Instant) {
        self.began = now;
        self.bytes = 0;
    }

    /// Ends an attempt.
    pub(in crate::task) fn pause(&mut self, now: Instant) {
        self.used += now.saturating_duration_since(self.began);
        self.began = now;
    }

    /// Counts bytes that were searched.
    pub(in crate::task) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    /// Returns how many bytes this attempt has searched.
    pub(in crate::task) fn searched(&self) -> u64 {
        self.bytes
    }

    /// Returns how many more bytes may be searched.
    pub(in crate::task) fn bytes_left(&self) -> u64 {
        self.limits.bytes.saturating_sub(self.bytes)
    }

    /// Returns how much time is left in this attempt.
    pub(in crate::task) fn time_left(&self, now: Instant) -> Duration {
        let used = self.used + now.saturating_duration_since(self.began);
        self.time.saturating_sub(used)
    }

    /// Whether nothing more may be read.
    pub(in crate::task) fn is_over(&self, now: Instant) -> bool {
        self.bytes_left() == 0 || self.time_left(now).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        bytes: 100,
        time: Duration::from_secs(120),
        ended: Duration::from_secs(20),
        interrupted: Duration::from_secs(2),
        tail: Duration::from_secs(5),
    };

    #[test]
    fn the_budget_is_over_when_the_bytes_or_the_time_is_used_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (was_ended, seconds) in [(false, 120), (true, 20)] {
            let mut budget = Budget::new(LIMITS, was_ended, start);
            assert_eq!(budget.time_left(at(1)), Duration::from_secs(seconds - 1));
            assert!(!budget.is_over(at(seconds - 1)) && budget.is_over(at(seconds)));
            budget.count(60);
            assert_eq!((budget.searched(), budget.bytes_left()), (60, 40));
            assert!(!budget.is_over(start));
            budget.count(60);
            assert_eq!((budget.searched(), budget.bytes_left()), (120, 0));
            assert!(budget.is_over(start));
        }
    }

    #[test]
    fn an_attempt_reads_all_bytes_again_but_its_time_adds_up() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budget = Budget::new(LIMITS, true, start);
        budget.count(99);
        budget.pause(at(15));
        // An outage of an hour.
        budget.begin(at(3615));
        assert_eq!(budget.bytes_left(), 100);
        assert_eq!(budget.time_left(at(3616)), Duration::from_secs(4));
        assert!(budget.is_over(at(3620)));
    }
}
