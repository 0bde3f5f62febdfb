//! When to ping, when a connection is dead, when to try again and when to give up.
//!
//! Pure: the caller passes the time and the randomness.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The deadlines and intervals of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Limit for DNS and TCP, over all addresses of the peer (10 s).
    pub connect: Duration,
    /// Limit for DNS, TCP, TLS and the upgrade together (20 s).
    pub handshake: Duration,
    /// Interval of pings on an idle connection (30 s).
    pub ping_every: Duration,
    /// A connection on which the peer sends nothing for this long is dead (60 s).
    pub dead_after: Duration,
    /// The shortest wait between two attempts (1 s).
    pub backoff_min: Duration,
    /// The longest wait between two attempts (60 s).
    pub backoff_max: Duration,
    /// The longest wait after a refusal (5 min).
    pub refused_max: Duration,
    /// The longest random time that is added to a wait that many workers begin together (15 s). After a lost connection attempts
    /// are whole multiples of it apart.
    pub spread: Duration,
    /// A connection that lasted this long resets the count of failures (30 s).
    pub stable_after: Duration,
    /// A close without progress for this long is given up (5 s).
    pub close_wait: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            handshake: seconds(20),
            ping_every: seconds(30),
            dead_after: seconds(60),
            backoff_min: seconds(1),
            backoff_max: seconds(60),
            refused_max: seconds(300),
            spread: seconds(15),
            stable_after: seconds(30),
            close_wait: seconds(5),
        }
    }
}

/// The longest wait between two attempts after [`Backoff::stop_waiting`].
const SHORT_WAIT: Duration = Duration::from_secs(2);

/// Counts consecutive failures and decides what follows each.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    refused_max: Duration,
    spread: Duration,
    /// The longest wait, whatever its reason.
    longest: Duration,
    stable_after: Duration,
    max_attempts: u32,
    window: Duration,
    /// Whether a connection was lost. From then on attempts keep the random distance that they have from those of other workers:
    /// otherwise the shorter waits of a back-off would bring together what `spread` has separated.
    keeps_distance: bool,
    /// Waits since the last success. Each is twice as long as the one before.
    waits: u32,
    failures: u32,
    /// The times of the failures within the window; empty without a window.
    recent: VecDeque<Instant>,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt.
    Retry {
        /// The wait before it.
        delay: Duration,
        /// Its number since the last success, from 1.
        attempt: u32,
    },
    /// No further attempt.
    GiveUp {
        /// Consecutive failures.
        failures: u32,
    },
}

impl Backoff {
    /// Starts without failures. See [`LinkConfig`](super::LinkConfig) for `max_attempts` and `window`.
    pub(super) fn new(timing: &Timing, max_attempts: u32, window: Duration) -> Self {
        Self {
            min: timing.backoff_min,
            max: timing.backoff_max,
            refused_max: timing.refused_max,
            spread: timing.spread,
            longest: Duration::MAX,
            stable_after: timing.stable_after,
            max_attempts,
            window,
            keeps_distance: false,
            waits: 0,
            failures: 0,
            recent: VecDeque::new(),
        }
    }

    /// Counts a failed attempt and returns what follows. `refused`: waits become longer than after other failures.
    /// `retry_after`: the peer asks to wait for this long. `random` varies the delay.
    pub(super) fn failed(
        &mut self,
        refused: bool,
        retry_after: Option<Duration>,
        now: Instant,
        random: u64,
    ) -> Next {
        if let Some(end) = self.count(now) {
            return end;
        }
        let mut delay = self.next_wait(if refused { self.refused_max } else { self.max }, random);
        if self.keeps_distance {
            delay = rounded_up(delay, self.spread);
        }
        let asked = retry_after.map(|asked| asked.saturating_add(self.spread(random)));
        self.retry(delay.max(asked.unwrap_or_default()))
    }

    /// Returns what follows a connection that `lasted` this long: a failure if it ended before `stable_after`. Many workers may
    /// have lost theirs at the same time, so they return within `spread`.
    pub(super) fn ended(&mut self, lasted: Duration, now: Instant, random: u64) -> Next {
        if lasted >= self.stable_after {
            self.waits = 0;
            self.failures = 0;
            self.recent.clear();
        } else if let Some(end) = self.count(now) {
            return end;
        }
        self.keeps_distance = true;
        let is_first = self.waits == 0;
        let delay = self.next_wait(self.max, random);
        self.retry(self.spread(random) + if is_first { Duration::ZERO } else { delay })
    }

    /// Limits every later wait to 2 s.
    pub(super) fn stop_waiting(&mut self) {
        self.max = self.max.min(SHORT_WAIT);
        self.refused_max = self.refused_max.min(SHORT_WAIT);
        self.longest = SHORT_WAIT;
    }

    /// Counts a failure. Returns the end if it was the last that is allowed.
    fn count(&mut self, now: Instant) -> Option<Next> {
        self.failures = self.failures.saturating_add(1);
        self.exhausted(now).then_some(Next::GiveUp { failures: self.failures })
    }

    fn exhausted(&mut self, now: Instant) -> bool {
        if self.max_attempts == 0 {
            return false;
        }
        if self.window.is_zero() {
            return self.failures >= self.max_attempts;
        }
        let window = self.window;
        self.recent.push_back(now);
        self.recent.retain(|&at| now.saturating_duration_since(at) <= window);
        self.recent.len() >= self.max_attempts as usize
    }

    /// Returns a wait that is twice as long as the one before, at most `max`.
    fn next_wait(&mut self, max: Duration, random: u64) -> Duration {
        let doubled = self.min.saturating_mul(1_u32.checked_shl(self.waits).unwrap_or(u32::MAX));
        self.waits = self.waits.saturating_add(1);
        jittered(doubled.min(max), random)
    }

    fn spread(&self, random: u64) -> Duration {
        self.spread.mul_f64(fraction(random))
    }

    fn retry(&self, delay: Duration) -> Next {
        Next::Retry { delay: delay.min(self.longest), attempt: self.waits }
    }
}

/// Returns a random number from 0 to 1.
fn fraction(random: u64) -> f64 {
    (random >> 32) as f64 / f64::from(u32::MAX)
}

/// Returns the smallest multiple of `step` that is not less than `delay`; `delay` if `step` is zero.
fn rounded_up(delay: Duration, step: Duration) -> Duration {
    if step.is_zero() {
        return delay;
    }
    let steps = delay.as_nanos().div_ceil(step.as_nanos());
    step.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX))
}

/// Returns 75 % to 100 % of `delay`, so that workers that lost the same control plane do not all return at once.
fn jittered(delay: Duration, random: u64) -> Duration {
    let quarter = delay / 4;
    delay - quarter.mul_f64(fraction(random))
}

/// Decides when to ping a connection and when it is dead.
#[derive(Debug)]
pub(super) struct Heartbeat {
    ping_every: Duration,
    dead_after: Duration,
    /// When the peer last showed that it is alive.
    alive_at: Instant,
    pinged_at: Instant,
    /// The first ping after `alive_at`.
    unanswered_since: Option<Instant>,
    received: u64,
    accepted: u64,
}

impl Heartbeat {
    /// Starts with a connection that is alive at `now`.
    pub(super) fn new(timing: &Timing, now: Instant) -> Self {
        Self {
            ping_every: timing.ping_every,
            dead_after: timing.dead_after,
            alive_at: now,
            pinged_at: now,
            unanswered_since: None,
            received: 0,
            accepted: 0,
        }
    }

    /// Takes the connection's counters: bytes `received` from the peer, and bytes `accepted` by the kernel to send. While
    /// the send buffer is full (`blocked`), only the latter prove that the peer is alive: one that sends and does not read
    /// would hold up a report for ever. Otherwise only the former do.
    pub(super) fn observe(&mut self, now: Instant, received: u64, accepted: u64, blocked: bool) {
        let is_alive = if blocked { accepted != self.accepted } else { received != self.received };
        if is_alive {
            self.alive_at = now;
            self.unanswered_since = None;
        }
        self.received = received;
        self.accepted = accepted;
    }

    /// Whether a ping is due.
    pub(super) fn ping_due(&self, now: Instant) -> bool {
        now >= self.pinged_at + self.ping_every
    }

    /// Records that a ping was sent, for a heartbeat or a confirmation.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pinged_at = now;
        self.unanswered_since.get_or_insert(now);
    }

    /// Whether the connection is dead. `blocked`: the send buffer is full, so no ping can be sent.
    pub(super) fn is_dead(&self, now: Instant, blocked: bool) -> bool {
        self.deadline(blocked).is_some_and(|deadline| now >= deadline)
    }

    /// Returns when to check again: at the next ping, unless `blocked`, or when the connection would be dead.
    pub(super) fn next_check(&self, blocked: bool) -> Instant {
        let ping = self.pinged_at + self.ping_every;
        match self.deadline(blocked) {
            Some(deadline) if blocked => deadline,
            Some(deadline) => deadline.min(ping),
            None => ping,
        }
    }

    /// Returns when a peer that stays silent counts as dead. `None` while no ping is unanswered and the connection is
    /// not blocked: this process may have been suspended, and a dropped connection loses its runs.
    fn deadline(&self, blocked: bool) -> Option<Instant> {
        let silence = self.alive_at + self.dead_after;
        match self.unanswered_since {
            Some(ping) => Some(silence.max(ping + self.dead_after.saturating_sub(self.ping_every))),
            None => blocked.then_some(silence),
        }
    }
}

#[cfg(test)]
#[path = "timers_tests.rs"]
mod tests;
