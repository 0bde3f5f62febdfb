//! When to ping, when a connection is dead, when to try again and when to give up.
//!
//! Pure: the time and the randomness are passed in. It must not know sockets or threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The deadlines and intervals of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Reaching any of the peer's addresses (10 s).
    pub connect: Duration,
    /// The whole of connect, TLS and upgrade (20 s).
    pub handshake: Duration,
    /// Between two pings on an idle connection (30 s).
    pub ping_every: Duration,
    /// Without a byte from the peer for so long, the connection is dead (60 s).
    pub dead_after: Duration,
    /// The first wait before another attempt (1 s).
    pub backoff_min: Duration,
    /// The longest wait before another attempt (60 s).
    pub backoff_max: Duration,
    /// A connection that lasted so long was a success (30 s).
    pub stable_after: Duration,
    /// How long a close may go on without progress (5 s).
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
            stable_after: seconds(30),
            close_wait: seconds(5),
        }
    }
}

/// The longest wait before another attempt for those in a stop_waiting.
const STOP_WAITING_MAX: Duration = Duration::from_secs(2);

/// Counts failures in a row, and says how long to wait after each.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    stable_after: Duration,
    max_attempts: u32,
    window: Duration,
    /// How often the wait has been doubled, plus one.
    step: u32,
    failures: u32,
    /// When the failures that lie within the window were; empty without a window.
    recent: VecDeque<Instant>,
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt.
    Retry {
        /// Wait so long before it.
        delay: Duration,
        /// Its number since the last success, from 1.
        attempt: u32,
    },
    /// None.
    GiveUp {
        /// How many have failed in a row.
        failures: u32,
    },
}

impl Backoff {
    /// Nothing has failed yet. `max_attempts` of 0 never gives up; a `window` of zero is none.
    pub(super) fn new(timing: &Timing, max_attempts: u32, window: Duration) -> Self {
        Self {
            min: timing.backoff_min,
            max: timing.backoff_max,
            stable_after: timing.stable_after,
            max_attempts,
            window,
            step: 0,
            failures: 0,
            recent: VecDeque::new(),
        }
    }

    /// An attempt that never became a connection, or a connection that ended too early. `random` is any number.
    pub(super) fn failed(&mut self, now: Instant, random: u64) -> Next {
        self.failures = self.failures.saturating_add(1);
        if self.exhausted(now) {
            return Next::GiveUp { failures: self.failures };
        }
        self.retry(random)
    }

    /// A connection that ended after it `lasted` so long: a failure, unless that was long enough.
    pub(super) fn ended(&mut self, lasted: Duration, now: Instant, random: u64) -> Next {
        if lasted < self.stable_after {
            return self.failed(now, random);
        }
        (self.step, self.failures) = (0, 0);
        self.recent.clear();
        self.retry(random)
    }

    /// No later wait is longer than 2 s.
    pub(super) fn stop_waiting(&mut self) {
        self.max = self.max.min(STOP_WAITING_MAX);
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

    fn retry(&mut self, random: u64) -> Next {
        let doubled = self.min.saturating_mul(1_u32.checked_shl(self.step).unwrap_or(u32::MAX));
        self.step = self.step.saturating_add(1);
        Next::Retry { delay: jittered(doubled.min(self.max), random), attempt: self.step }
    }
}

/// Between three quarters of `delay` and all of it, so that workers which lost the same control plane do not come
/// back together.
fn jittered(delay: Duration, random: u64) -> Duration {
    let quarter = delay / 4;
    delay - quarter.mul_f64((random >> 32) as f64 / f64::from(u32::MAX))
}

/// Keeps one connection alive, and says when it is dead.
#[derive(Debug)]
pub(super) struct Heartbeat {
    ping_every: Duration,
    dead_after: Duration,
    life: Instant,
    pinged: Instant,
    /// The first ping since the last sign of life.
    asked: Option<Instant>,
    received: u64,
    accepted: u64,
}

impl Heartbeat {
    /// The connection stands since `now`.
    pub(super) fn new(timing: &Timing, now: Instant) -> Self {
        let (ping_every, dead_after) = (timing.ping_every, timing.dead_after);
        Self { ping_every, dead_after, life: now, pinged: now, asked: None, received: 0, accepted: 0 }
    }

    /// What has gone over the wire so far: bytes `received` from the peer, and bytes `accepted` by the kernel. The
    /// latter count as life only while the send buffer was full (`blocked`): then the peer's side must have taken some.
    pub(super) fn observe(&mut self, now: Instant, received: u64, accepted: u64, blocked: bool) {
        if received != self.received || (blocked && accepted != self.accepted) {
            self.life = now;
            self.asked = None;
        }
        (self.received, self.accepted) = (received, accepted);
    }

    /// Whether a ping is due.
    pub(super) fn ping_due(&self, now: Instant) -> bool {
        now >= self.pinged + self.ping_every
    }

    /// A ping of any kind was sent.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pinged = now;
        self.asked.get_or_insert(now);
    }

    /// Whether the silence has lasted too long; `blocked` says that the send buffer is full.
    pub(super) fn dead(&self, now: Instant, blocked: bool) -> bool {
        self.death(blocked).is_some_and(|death| now >= death)
    }

    /// When to look again: for the next ping, which a blocked connection cannot send, or for its death.
    pub(super) fn next(&self, blocked: bool) -> Instant {
        let ping = self.pinged + self.ping_every;
        match self.death(blocked) {
            Some(death) if blocked => death,
            Some(death) => death.min(ping),
            None => ping,
        }
    }

    /// When the silence becomes death. A peer that was not asked owes no answer: after the process was stopped for a
    /// while the silence may be our own, and a connection that is given up costs the runs on it.
    fn death(&self, blocked: bool) -> Option<Instant> {
        let silence = self.life + self.dead_after;
        match self.asked {
            Some(asked) => Some(silence.max(asked + self.dead_after.saturating_sub(self.ping_every))),
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
    fn the_wait_doubles_up_to_its_bound() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        let seconds: Vec<u64> = (0..9).map(|_| delay(backoff.failed(now, 0)).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        for _ in 0..100 {
            assert_eq!(delay(backoff.failed(now, 0)), 60 * SECOND);
        }
    }

    #[test]
    fn who_is_in_a_hurry_waits_two_seconds_at_most_and_never_longer_than_before() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        assert_eq!(delay(backoff.failed(now, 0)), SECOND);
        backoff.stop_waiting();
        for _ in 0..40 {
            assert_eq!(delay(backoff.failed(now, 0)), 2 * SECOND);
        }
        assert_eq!(delay(backoff.ended(30 * SECOND, now, 0)), SECOND, "the first is as short as ever");
        let quick = Timing { backoff_max: SECOND / 2, ..Timing::default() };
        let mut quick = Backoff::new(&quick, 0, Duration::ZERO);
        quick.stop_waiting();
        assert_eq!(delay(quick.failed(now, 0)), SECOND / 2);
    }

    #[test]
    fn the_jitter_takes_at_most_a_quarter() {
        assert_eq!(jittered(8 * SECOND, 0), 8 * SECOND);
        assert_eq!(jittered(8 * SECOND, u64::MAX), 6 * SECOND);
        let middle = jittered(8 * SECOND, u64::MAX / 2);
        assert!(middle > 6 * SECOND && middle < 8 * SECOND, "{middle:?}");
    }

    #[test]
    fn only_a_connection_that_lasted_starts_over() {
        let (mut backoff, now) = (backoff(0, 0), Instant::now());
        backoff.failed(now, 0);
        assert_eq!(delay(backoff.ended(29 * SECOND, now, 0)), 2 * SECOND);
        assert_eq!(backoff.ended(30 * SECOND, now, 0), Next::Retry { delay: SECOND, attempt: 1 });
        assert_eq!(backoff.failed(now, 0), Next::Retry { delay: 2 * SECOND, attempt: 2 });
    }

    #[test]
    fn a_control_plane_that_accepts_and_closes_is_dialled_some_twenty_times_in_a_quarter_of_an_hour() {
        let (mut backoff, start) = (backoff(0, 0), Instant::now());
        let (mut now, mut dials) = (start, 0);
        while now < start + 900 * SECOND {
            dials += 1;
            now += delay(backoff.ended(Duration::ZERO, now, 0));
        }
        assert_eq!(dials, 20);
    }

    #[test]
    fn it_gives_up_after_so_many_failures_in_a_row() {
        let (mut backoff, now) = (backoff(3, 0), Instant::now());
        backoff.failed(now, 0);
        backoff.failed(now, 0);
        assert!(matches!(backoff.ended(30 * SECOND, now, 0), Next::Retry { .. }), "a success in between");
        backoff.failed(now, 0);
        backoff.failed(now + 9999 * SECOND, 0);
        assert_eq!(backoff.failed(now + 9999 * SECOND, 0), Next::GiveUp { failures: 3 });
    }

    #[test]
    fn failures_outside_the_window_do_not_count() {
        let (mut backoff, now) = (backoff(3, 10), Instant::now());
        backoff.failed(now, 0);
        backoff.failed(now + 8 * SECOND, 0);
        assert!(matches!(backoff.failed(now + 11 * SECOND, 0), Next::Retry { .. }));
        assert_eq!(backoff.failed(now + 18 * SECOND, 0), Next::GiveUp { failures: 4 });
    }

    /// A connection that was pinged when it was due.
    fn asked() -> (Heartbeat, Instant) {
        let now = Instant::now();
        let mut heart = Heartbeat::new(&Timing::default(), now);
        heart.pinged(now + 30 * SECOND);
        (heart, now)
    }

    #[test]
    fn silence_is_death_and_any_byte_is_life() {
        let (mut heart, now) = asked();
        assert!(!heart.dead(now + 59 * SECOND, false) && heart.dead(now + 60 * SECOND, false));
        heart.observe(now + 50 * SECOND, 1, 0, false);
        heart.pinged(now + 60 * SECOND);
        assert!(!heart.dead(now + 109 * SECOND, false));
        heart.observe(now + 100 * SECOND, 1, 0, false);
        assert!(heart.dead(now + 110 * SECOND, false), "the same count is no new byte");
    }

    #[test]
    fn who_was_not_asked_is_not_dead() {
        let now = Instant::now();
        let mut heart = Heartbeat::new(&Timing::default(), now);
        let woken = now + 500 * SECOND;
        assert!(heart.ping_due(woken) && !heart.dead(woken, false), "the process was stopped");
        heart.pinged(woken);
        heart.pinged(woken + 10 * SECOND);
        assert!(!heart.dead(woken + 29 * SECOND, false) && heart.dead(woken + 30 * SECOND, false));
        assert_eq!(heart.next(false), woken + 30 * SECOND);
    }

    #[test]
    fn bytes_that_leave_are_life_only_while_the_buffer_was_full() {
        let (mut heart, now) = asked();
        heart.observe(now + 50 * SECOND, 0, 100, false);
        assert!(heart.dead(now + 60 * SECOND, true));
        heart.observe(now + 55 * SECOND, 0, 200, true);
        assert!(!heart.dead(now + 114 * SECOND, true));
        heart.observe(now + 100 * SECOND, 0, 200, true);
        assert!(heart.dead(now + 115 * SECOND, true), "blocked without progress");
    }

    #[test]
    fn an_idle_connection_wakes_for_its_ping_only() {
        let now = Instant::now();
        let mut heart = Heartbeat::new(&Timing::default(), now);
        assert_eq!(heart.next(false), now + 30 * SECOND);
        assert_eq!(heart.next(true), now + 60 * SECOND);
        assert!(!heart.ping_due(now + 29 * SECOND) && heart.ping_due(now + 30 * SECOND));
        heart.pinged(now + 30 * SECOND);
        heart.observe(now + 30 * SECOND, 7, 0, false);
        assert_eq!(heart.next(false), now + 60 * SECOND);
    }
}
