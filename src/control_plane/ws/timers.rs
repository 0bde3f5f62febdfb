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
    /// The longest random time that is added to a wait that many workers begin together (5 s).
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
            spread: seconds(5),
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
        let delay = self.next_wait(if refused { self.refused_max } else { self.max }, random);
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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff(max_attempts: u32, window: u32) -> Backoff {
        Backoff::new(&Timing::default(), max_attempts, window * SECOND)
    }

    fn delay(next: Next) -> Duration {
        match next {
            Next::Retry { delay, .. } => delay,
            Next::GiveUp { .. } => panic!("gave up"),
        }
    }

    #[test]
    fn the_wait_doubles_up_to_the_maximum() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        let seconds: Vec<u64> =
            (0..9).map(|_| delay(backoff.failed(false, None, now, 0)).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        for _ in 0..100 {
            assert_eq!(delay(backoff.failed(false, None, now, 0)), 60 * SECOND);
        }
    }

    #[test]
    fn stop_waiting_limits_waits_to_two_seconds() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        assert_eq!(delay(backoff.failed(false, None, now, 0)), SECOND);
        backoff.stop_waiting();
        for _ in 0..40 {
            assert_eq!(delay(backoff.failed(false, None, now, 0)), 2 * SECOND);
        }
        assert_eq!(delay(backoff.failed(true, None, now, 0)), 2 * SECOND);
        assert_eq!(delay(backoff.failed(false, Some(9 * SECOND), now, 0)), 2 * SECOND);
        assert_eq!(delay(backoff.ended(30 * SECOND, now, u64::MAX)), 2 * SECOND);
        assert_eq!(delay(backoff.ended(30 * SECOND, now, u64::MAX / 5)), SECOND, "shorter waits stay");
        let quick = Timing { backoff_max: SECOND / 2, ..Timing::default() };
        let mut quick = Backoff::new(&quick, 0, Duration::ZERO);
        quick.stop_waiting();
        assert_eq!(delay(quick.failed(false, None, now, 0)), SECOND / 2);
    }

    #[test]
    fn jitter_shortens_the_wait_by_at_most_a_quarter() {
        assert_eq!(jittered(8 * SECOND, 0), 8 * SECOND);
        assert_eq!(jittered(8 * SECOND, u64::MAX), 6 * SECOND);
        let middle = jittered(8 * SECOND, u64::MAX / 2);
        assert!(middle > 6 * SECOND && middle < 8 * SECOND, "{middle:?}");
    }

    #[test]
    fn only_a_stable_connection_resets_the_backoff() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        backoff.failed(false, None, now, 0);
        assert_eq!(delay(backoff.ended(29 * SECOND, now, 0)), 2 * SECOND);
        assert_eq!(backoff.ended(30 * SECOND, now, 0), Next::Retry { delay: Duration::ZERO, attempt: 1 });
        assert_eq!(backoff.failed(false, None, now, 0), Next::Retry { delay: 2 * SECOND, attempt: 2 });
    }

    #[test]
    fn a_peer_that_accepts_and_closes_is_dialled_twenty_times_in_15_minutes() {
        let (mut backoff, start) = (backoff(0, 0), Instant::now());
        let (mut now, mut dials) = (start, 0);
        while now < start + 900 * SECOND {
            dials += 1;
            now += delay(backoff.ended(Duration::ZERO, now, 0));
        }
        assert_eq!(dials, 20);
    }

    #[test]
    fn the_first_attempt_after_a_cut_comes_within_five_seconds_at_random() {
        let now = Instant::now();
        let first = |random| delay(backoff(0, 0).ended(30 * SECOND, now, random));
        assert_eq!((first(0), first(u64::MAX)), (Duration::ZERO, 5 * SECOND));
        let second = |random| {
            let mut backoff = backoff(0, 0);
            backoff.ended(SECOND, now, random);
            delay(backoff.ended(SECOND, now, random))
        };
        // The wait of 2 s, shortened by a quarter.
        assert_eq!((second(0), second(u64::MAX)), (2 * SECOND, 6 * SECOND + SECOND / 2));
        let mut backoff = backoff(0, 0);
        backoff.ended(30 * SECOND, now, u64::MAX);
        assert_eq!(delay(backoff.failed(false, None, now, 0)), 2 * SECOND, "later waits are as before");
    }

    #[test]
    fn waits_after_refusals_grow_to_five_minutes() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        let mut next = |refused| delay(backoff.failed(refused, None, now, 0)).as_secs();
        assert_eq!([(); 10].map(|()| next(true)), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!((next(false), next(true)), (60, 300));
    }

    #[test]
    fn a_peer_may_ask_for_a_longer_wait_but_not_for_a_shorter_one() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        let mut next = |seconds, random| delay(backoff.failed(false, Some(seconds * SECOND), now, random));
        assert_eq!(next(600, 0), 600 * SECOND);
        assert_eq!(next(600, u64::MAX), 605 * SECOND, "not all workers at once");
        assert_eq!(next(0, 0), 4 * SECOND);
    }

    #[test]
    fn refusals_count_as_failures() {
        let (mut backoff, now) = (backoff(2, 0), Instant::now());
        backoff.failed(true, None, now, 0);
        assert_eq!(backoff.failed(true, Some(SECOND), now, 0), Next::GiveUp { failures: 2 });
    }

    #[test]
    fn it_gives_up_after_the_maximum_of_consecutive_failures() {
        let (mut backoff, now) = (backoff(3, 0), Instant::now());
        backoff.failed(false, None, now, 0);
        backoff.failed(false, None, now, 0);
        assert!(matches!(backoff.ended(30 * SECOND, now, 0), Next::Retry { .. }), "a success in between");
        backoff.failed(false, None, now, 0);
        backoff.failed(false, None, now + 9999 * SECOND, 0);
        assert_eq!(backoff.failed(false, None, now + 9999 * SECOND, 0), Next::GiveUp { failures: 3 });
    }

    #[test]
    fn failures_outside_the_window_do_not_count() {
        let (mut backoff, now) = (backoff(3, 10), Instant::now());
        backoff.failed(false, None, now, 0);
        backoff.failed(false, None, now + 8 * SECOND, 0);
        assert!(matches!(backoff.failed(false, None, now + 11 * SECOND, 0), Next::Retry { .. }));
        assert_eq!(backoff.failed(false, None, now + 18 * SECOND, 0), Next::GiveUp { failures: 4 });
    }

    /// A connection after its first ping.
    fn pinged() -> (Heartbeat, Instant) {
        let now = Instant::now();
        let mut heart = Heartbeat::new(&Timing::default(), now);
        heart.pinged(now + 30 * SECOND);
        (heart, now)
    }

    #[test]
    fn a_silent_peer_is_dead_and_any_byte_proves_it_alive() {
        let (mut heart, now) = pinged();
        assert!(!heart.is_dead(now + 59 * SECOND, false) && heart.is_dead(now + 60 * SECOND, false));
        heart.observe(now + 50 * SECOND, 1, 0, false);
        heart.pinged(now + 60 * SECOND);
        assert!(!heart.is_dead(now + 109 * SECOND, false));
        heart.observe(now + 100 * SECOND, 1, 0, false);
        assert!(heart.is_dead(now + 110 * SECOND, false), "an unchanged count is silence");
    }

    #[test]
    fn a_peer_without_an_unanswered_ping_is_not_dead() {
        let now = Instant::now();
        let mut heart = Heartbeat::new(&Timing::default(), now);
        let woken = now + 500 * SECOND;
        assert!(heart.ping_due(woken) && !heart.is_dead(woken, false), "the process was suspended");
        heart.pinged(woken);
        heart.pinged(woken + 10 * SECOND);
        assert!(!heart.is_dead(woken + 29 * SECOND, false) && heart.is_dead(woken + 30 * SECOND, false));
        assert_eq!(heart.next_check(false), woken + 30 * SECOND);
    }

    #[test]
    fn sent_bytes_prove_life_only_while_the_buffer_is_full() {
        let (mut heart, now) = pinged();
        heart.observe(now + 50 * SECOND, 0, 100, false);
        assert!(heart.is_dead(now + 60 * SECOND, true));
        heart.observe(now + 55 * SECOND, 0, 200, true);
        assert!(!heart.is_dead(now + 114 * SECOND, true));
        heart.observe(now + 100 * SECOND, 0, 200, true);
        assert!(heart.is_dead(now + 115 * SECOND, true), "blocked without progress");
    }

    #[test]
    fn an_idle_connection_wakes_only_for_its_ping() {
        let now = Instant::now();
        let mut heart = Heartbeat::new(&Timing::default(), now);
        assert_eq!(heart.next_check(false), now + 30 * SECOND);
        assert_eq!(heart.next_check(true), now + 60 * SECOND);
        assert!(!heart.ping_due(now + 29 * SECOND) && heart.ping_due(now + 30 * SECOND));
        heart.pinged(now + 30 * SECOND);
        heart.observe(now + 30 * SECOND, 7, 0, false);
        assert_eq!(heart.next_check(false), now + 60 * SECOND);
    }
}
