//! Look-ups of runs: which is next, and what their results say about look-ups in general.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::event::Effect;
use super::{Coordinator, warn};
use crate::job::{JobId, LookupAnswer, LookupFailure, MAX_LOOKUPS, RunLookup};
use crate::logging::message;
use crate::protocol::{ExecutionKey, RunView};

/// The limit of a look-up for which nothing waits.
const LIMIT: Duration = Duration::from_secs(10);

/// The least time between two warnings that look-ups fail.
const WARN_EVERY: Duration = Duration::from_secs(600);

/// How long all look-ups must have failed before none is expected to succeed. As long as a report waits for an answer, so that a
/// control plane that is away when the worker starts does not cost a report.
const TRIAL: Duration = Duration::from_secs(600);

/// The same as a number of answers which show that there are no look-ups.
const ABSENT: u32 = 3;

/// What is lost without look-ups.
const NOTE: &str = "until look-ups succeed, a claim or a report that the control plane has received but not \
                    stored is lost, and a cancel that it sent without a connection is missed";

/// The first delay of a look-up that is repeated.
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// The longest delay of a look-up that is repeated.
const LAST_DELAY: Duration = Duration::from_secs(60);

/// Why a run is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Query {
    /// An assignment waited long, and a slot is free for it.
    Assignment(ExecutionKey),
    /// A job's claim was confirmed.
    Claim(JobId),
    /// The report of a task that has ended was confirmed.
    Report(JobId),
    /// A claim was dropped because its connection ended.
    LostClaim(ExecutionKey),
    /// A task is running.
    Running(JobId),
}

/// The priority of a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// A slot waits for it.
    Claim = 0,
    /// A container on the engine waits for it, or a run at the control plane.
    Report = 1,
    /// Nothing waits for it.
    Periodic = 2,
}

/// What the look-ups of this process have shown so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Record {
    /// None has ended yet.
    Empty,
    /// All have failed.
    Failing {
        /// When the first one did.
        since: Instant,
        /// How many answers in turn have shown that there are no look-ups.
        absent: u32,
    },
    /// All have failed for [`TRIAL`], or [`ABSENT`] times in that way: the control plane is taken to have no look-ups.
    Without,
    /// One has succeeded.
    Succeeded,
}

impl Record {
    /// Returns the record after one more failure.
    fn after(self, failure: &LookupFailure, now: Instant) -> Self {
        let (since, absent) = match self {
            Self::Empty => (now, 0),
            Self::Failing { since, absent } => (since, absent),
            Self::Without | Self::Succeeded => return self,
        };
        let absent = if failure.absent { absent + 1 } else { 0 };
        if absent >= ABSENT || now >= since + TRIAL { Self::Without } else { Self::Failing { since, absent } }
    }
}

/// The look-ups that wait, by priority, and those that are under way.
pub(super) struct Lookups {
    /// By the time when they are due, and a number.
    waiting: [BTreeMap<(Instant, u64), (Query, Duration)>; 3],
    /// By number, with the time of their start.
    under_way: BTreeMap<u64, (Query, Instant)>,
    /// The last number.
    number: u64,
    record: Record,
    /// How long the last one took.
    took: Duration,
    /// When a failure was logged as a warning.
    warned_at: Option<Instant>,
    /// Whether the last one failed.
    is_failing: bool,
}

/// The delays of a look-up that is repeated: 0.5 s, then 1, 2, 4 … 60 s. All but the first are up to a fifth shorter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    next: Duration,
    /// Of the jitter, from the job's number, so that the same events give the same effects.
    seed: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { next: FIRST_DELAY, seed }
    }

    /// Returns the next delay.
    pub(super) fn delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LAST_DELAY);
        if delay == FIRST_DELAY {
            return delay;
        }
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let shorter = u32::try_from((self.seed >> 33) % 200).unwrap_or_default();
        delay - delay / 1000 * shorter
    }
}

impl Lookups {
    pub(super) fn new() -> Self {
        Self {
            waiting: Default::default(),
            under_way: BTreeMap::new(),
            number: 0,
            record: Record::Empty,
            took: Duration::ZERO,
            warned_at: None,
            is_failing: false,
        }
    }

    /// Adds a look-up that is due at `at`.
    pub(super) fn add(&mut self, priority: Priority, at: Instant, query: Query) {
        self.add_limited(priority, at, query, LIMIT);
    }

    /// As [`Lookups::add`], with a limit.
    pub(super) fn add_limited(&mut self, priority: Priority, at: Instant, query: Query, limit: Duration) {
        self.number += 1;
        if let Some(waiting) = self.waiting.get_mut(priority as usize) {
            waiting.insert((at, self.number), (query, limit));
        }
    }

    /// Makes a look-up for which nothing waits any more one of a lower priority, if it has not begun.
    pub(super) fn demote(&mut self, query: &Query) {
        let [claims, reports, _] = &mut self.waiting;
        reports.extend(claims.extract_if(.., |_, (waiting, _)| waiting == query));
    }

    /// As after failures only, for long.
    #[cfg(test)]
    pub(super) fn failed() -> Self {
        Self { record: Record::Without, ..Self::new() }
    }

    /// Whether a look-up has succeeded.
    pub(super) fn have_succeeded(&self) -> bool {
        self.record == Record::Succeeded
    }

    /// Whether all look-ups have failed for so long that none is expected to succeed.
    pub(super) fn are_absent(&self) -> bool {
        self.record == Record::Without
    }

    /// Returns how long the answer to a further look-up of a claim can be expected to take; `None` while none has succeeded.
    pub(super) fn expected(&self, now: Instant) -> Option<Duration> {
        let longest = self.under_way.values().map(|(_, since)| now.saturating_duration_since(*since)).max();
        let each = self.took.max(longest.unwrap_or_default());
        let [claims, ..] = &self.waiting;
        let rounds = (claims.len() + self.under_way.len()) / MAX_LOOKUPS + 1;
        self.have_succeeded().then(|| each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)))
    }

    /// Whether periodic look-ups wait or are under way.
    pub(super) fn are_polling(&self) -> bool {
        let [.., periodic] = &self.waiting;
        !periodic.is_empty() || self.under_way.values().any(|(query, _)| matches!(query, Query::Running(_)))
    }

    /// Returns when the next look-up is due, if it can start then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let first = |waiting: &BTreeMap<(Instant, u64), _>| waiting.keys().next().map(|(at, _)| *at);
        let can_start = self.under_way.len() < MAX_LOOKUPS;
        self.waiting.iter().filter_map(first).min().filter(|_| can_start)
    }

    /// Removes and returns the next look-up that is due.
    fn next(&mut self, now: Instant) -> Option<(u64, Query, Duration)> {
        let is_due = |waiting: &&mut BTreeMap<(Instant, u64), _>| {
            waiting.keys().next().is_some_and(|(at, _)| *at <= now)
        };
        let ((_, number), (query, limit)) = self.waiting.iter_mut().find(is_due)?.pop_first()?;
        Some((number, query, limit))
    }

    /// Makes the waiting look-ups of reports due now, and no longer than `limit`.
    pub(super) fn hurry(&mut self, now: Instant, limit: Duration) {
        let [_, reports, _] = &mut self.waiting;
        for ((at, number), (query, _)) in std::mem::take(reports) {
            reports.insert((at.min(now), number), (query, limit));
        }
    }

    /// Records the end of a look-up. Returns what it was for.
    fn ended(&mut self, number: u64, answer: &Result<RunView, LookupFailure>, now: Instant) -> Option<Query> {
        let (query, since) = self.under_way.remove(&number)?;
        self.took = now.saturating_duration_since(since);
        self.record = match answer {
            Ok(_) => Record::Succeeded,
            Err(failure) => self.record.after(failure, now),
        };
        Some(query)
    }

    /// Whether a failure is worth a warning: the first one, and later the first after a success.
    fn is_news(&mut self, failed: bool, now: Instant) -> bool {
        let was_failing = std::mem::replace(&mut self.is_failing, failed);
        let is_first = failed && !was_failing;
        let is_late = self.warned_at.is_none_or(|at| now >= at + WARN_EVERY);
        if is_first && is_late {
            self.warned_at = Some(now);
        }
        is_first && is_late
    }
}

impl Coordinator {
    /// Starts the look-ups that are due. Called after every event.
    pub(super) fn look_up(&mut self, now: Instant) {
        while self.lookups.under_way.len() < MAX_LOOKUPS {
            let Some((number, query, limit)) = self.lookups.next(now) else { return };
            let Some(task_id) = self.run_to_look_up(&query) else { continue };
            self.effects.push(Effect::LookUp(RunLookup { number, task_id, limit }));
            self.lookups.under_way.insert(number, (query, now));
        }
    }

    /// Returns the id of the run if its look-up is still of use.
    fn run_to_look_up(&self, query: &Query) -> Option<String> {
        let key = match query {
            Query::Assignment(key) => Some(key).filter(|key| self.is_pending(key)),
            Query::LostClaim(key) => Some(key).filter(|key| self.lost_claims.contains(key)),
            Query::Claim(id) => self.jobs.get(id).filter(|job| job.is_working()).map(|job| &job.key),
            Query::Running(id) => self.jobs.get(id).filter(|job| job.is_running()).map(|job| &job.key),
            Query::Report(id) => self.settling.key(*id),
        };
        key.map(|key| key.task_id.clone())
    }

    pub(super) fn looked_up(&mut self, (number, answer): LookupAnswer, now: Instant) {
        let Some(query) = self.lookups.ended(number, &answer, now) else { return };
        if self.lookups.is_news(answer.is_err(), now)
            && let Err(failure) = &answer
        {
            let error = message(&failure.error);
            self.effects.push(warn(format!("run look-up failed error={error} note={}", message(NOTE))));
        }
        let run = answer.as_ref().ok();
        match query {
            Query::Assignment(key) => self.assignment_looked_up(&key, run, now),
            Query::Claim(id) => self.claim_looked_up(id, run, now),
            Query::Report(id) => self.report_looked_up(id, run, now),
            Query::LostClaim(key) => self.lost_claim_looked_up(&key, run, now),
            Query::Running(id) => match &answer {
                Ok(run) => self.running_looked_up(id, run),
                // The others would fail too.
                Err(LookupFailure { systemic: true, .. }) => {
                    let [.., periodic] = &mut self.lookups.waiting;
                    periodic.clear();
                }
                Err(_) => {}
            },
        }
    }
}

#[cfg(test)]
#[path = "lookups_tests.rs"]
mod tests;
