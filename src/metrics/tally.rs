//! What the coordinator counts.

use std::time::Duration;

use super::histogram::Histogram;

/// The bounds of the histogram of tasks, in milliseconds: those of the public worker.
const TASK_BOUNDS: &[u64] = &[
    0, 5000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// The reason of a failure that has none in the list.
const UNKNOWN: &str = "unknown";

/// Why a run was given back, or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Every slot is taken, or the process has no thread or file descriptor for a further task.
    AtCapacity,
    /// Too many assignments wait.
    BacklogFull,
    /// The worker is stopping.
    Stopping,
    /// The engine's disk has too little space.
    DiskFull,
    /// The engine cannot be used.
    EngineUnavailable,
    /// The operator does not admit it; it is failed.
    Policy,
    /// It has waited too long.
    HoldExpired,
}

impl Rejection {
    /// Every reason with its name.
    pub(super) const ALL: [(Self, &'static str); 7] = [
        (Self::AtCapacity, "at_capacity"),
        (Self::BacklogFull, "backlog_full"),
        (Self::Stopping, "stopping"),
        (Self::DiskFull, "disk_full"),
        (Self::EngineUnavailable, "engine_unavailable"),
        (Self::Policy, "policy"),
        (Self::HoldExpired, "hold_expired"),
    ];
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEnd {
    /// Its container exited with 0.
    Succeeded,
    /// It failed, for the reason with this name.
    Failed(&'static str),
    /// It was cancelled.
    Cancelled,
}

/// Results of tasks. This worker has no back end that hands tasks on, so `dispatched` stays 0.
pub(super) const RESULTS: [&str; 4] = ["succeeded", "failed", "cancelled", "dispatched"];

/// The part of a task's life in which it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before it had a slot, or because its assignment is invalid.
    Assignment,
    /// While it was prepared or ran.
    Backend,
}

/// Every phase and reason of a failure that the coordinator counts.
pub(super) const FAILURES: [(Phase, &str); 15] = [
    (Phase::Assignment, "invalid_assignment"),
    (Phase::Assignment, "internal"),
    (Phase::Assignment, UNKNOWN),
    (Phase::Backend, "image_pull"),
    (Phase::Backend, "sidecar_prep"),
    (Phase::Backend, "container_create"),
    (Phase::Backend, "container_start"),
    (Phase::Backend, "container_wait"),
    (Phase::Backend, "container_exit"),
    (Phase::Backend, "container_oom"),
    (Phase::Backend, "task_timeout"),
    (Phase::Backend, "graceful_shutdown"),
    (Phase::Backend, "docker_unreachable"),
    (Phase::Backend, "internal"),
    (Phase::Backend, UNKNOWN),
];

/// What the coordinator has counted since the process began.
#[derive(Debug, Clone)]
pub struct Tally {
    pub(super) claimed: u64,
    pub(super) adopted: u64,
    /// In the order of [`Rejection::ALL`].
    rejected: [u64; Rejection::ALL.len()],
    /// In the order of [`RESULTS`].
    pub(super) durations: [Histogram; RESULTS.len()],
    /// In the order of [`FAILURES`].
    failures: [u64; FAILURES.len()],
    pub(super) dials_failed: u64,
    pub(super) connections_lost: u64,
    /// Outages of the engine that began.
    pub(super) outages: u64,
    /// The time of all outages that have ended.
    pub(super) outage_time: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            claimed: 0,
            adopted: 0,
            rejected: [0; Rejection::ALL.len()],
            durations: RESULTS.map(|_| Histogram::new(TASK_BOUNDS)),
            failures: [0; FAILURES.len()],
            dials_failed: 0,
            connections_lost: 0,
            outages: 0,
            outage_time: Duration::ZERO,
        }
    }
}

impl Tally {
    /// Counts a claim.
    pub fn claim(&mut self) {
        self.claimed += 1;
    }

    /// Counts a task of an earlier process.
    pub fn adopt(&mut self) {
        self.adopted += 1;
    }

    /// Counts a run that is given back.
    pub fn reject(&mut self, reason: Rejection) {
        let counts = self.rejected.iter_mut().zip(Rejection::ALL);
        counts.filter(|(_, (other, _))| *other == reason).for_each(|(count, _)| *count += 1);
    }

    /// Counts a task that ended after `took`.
    pub fn end(&mut self, end: TaskEnd, took: Duration) {
        let result = match end {
            TaskEnd::Succeeded => "succeeded",
            TaskEnd::Failed("invalid_assignment") => {
                self.fail(Phase::Assignment, "invalid_assignment");
                "failed"
            }
            TaskEnd::Failed(reason) => {
                self.fail(Phase::Backend, reason);
                "failed"
            }
            TaskEnd::Cancelled => "cancelled",
        };
        let durations = self.durations.iter().zip(RESULTS);
        durations.filter(|(_, name)| *name == result).for_each(|(durations, _)| durations.observe(took));
    }

    /// Counts a failure for the reason with this name.
    pub fn fail(&mut self, phase: Phase, reason: &str) {
        let place = |reason| FAILURES.iter().position(|known| *known == (phase, reason));
        let count = place(reason).or_else(|| place(UNKNOWN)).and_then(|place| self.failures.get_mut(place));
        count.into_iter().for_each(|count| *count += 1);
    }

    /// Counts an attempt to connect that failed.
    pub fn dial_failed(&mut self) {
        self.dials_failed += 1;
    }

    /// Counts a connection that ended.
    pub fn connection_lost(&mut self) {
        self.connections_lost += 1;
    }

    /// Counts an outage of the engine that begins.
    pub fn outage(&mut self) {
        self.outages += 1;
    }

    /// Adds the time of an outage that has ended.
    pub fn outage_over(&mut self, took: Duration) {
        self.outage_time += took;
    }

    /// Returns how many outages of the engine began, and the time of those that have ended.
    #[cfg(test)]
    pub(crate) fn outages(&self) -> (u64, Duration) {
        (self.outages, self.outage_time)
    }

    /// Returns every count that is not zero, by name.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let own = [
            ("claimed", self.claimed),
            ("adopted", self.adopted),
            ("dials_failed", self.dials_failed),
            ("connections_lost", self.connections_lost),
        ];
        let results =
            RESULTS.into_iter().zip(&self.durations).map(|(name, times)| (name, times.cumulative().1));
        let failures = self.failures().map(|(_, reason, count)| (reason, count));
        let all = own.into_iter().chain(self.rejections()).chain(results).chain(failures);
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// Returns the runs that were given back, by reason.
    pub(super) fn rejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Rejection::ALL.into_iter().map(|(_, name)| name).zip(self.rejected)
    }

    /// Returns the failures by phase and reason.
    pub(crate) fn failures(&self) -> impl Iterator<Item = (Phase, &'static str, u64)> {
        FAILURES.into_iter().zip(self.failures).map(|((phase, reason), count)| (phase, reason, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_is_not_in_the_list_is_unknown() {
        let mut tally = Tally::default();
        tally.end(TaskEnd::Failed("image_pull"), Duration::ZERO);
        tally.end(TaskEnd::Failed("new"), Duration::ZERO);
        tally.end(TaskEnd::Failed("invalid_assignment"), Duration::ZERO);
        tally.fail(Phase::Assignment, "image_pull");
        let counted: Vec<_> = tally.failures().filter(|(.., count)| *count > 0).collect();
        let expected = [
            (Phase::Assignment, "invalid_assignment", 1),
            (Phase::Assignment, UNKNOWN, 1),
            (Phase::Backend, "image_pull", 1),
            (Phase::Backend, UNKNOWN, 1),
        ];
        assert_eq!(counted, expected);
        assert_eq!(tally.durations[1].cumulative().1, 3);
    }

    #[test]
    fn a_cancelled_task_is_no_failure() {
        let mut tally = Tally::default();
        tally.end(TaskEnd::Cancelled, Duration::from_secs(3));
        tally.end(TaskEnd::Succeeded, Duration::from_secs(3));
        assert_eq!(tally.failures().map(|(.., count)| count).sum::<u64>(), 0);
        assert_eq!(tally.durations.each_ref().map(|durations| durations.cumulative().1), [1, 0, 1, 0]);
    }
}
