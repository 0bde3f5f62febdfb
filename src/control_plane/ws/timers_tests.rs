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
    let seconds: Vec<u64> = (0..9).map(|_| delay(backoff.failed(false, None, now, 0)).as_secs()).collect();
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
    assert_eq!(delay(backoff.ended(30 * SECOND, now, u64::MAX / 15)), SECOND, "shorter waits stay");
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
    assert_eq!(backoff.failed(false, None, now, 0), Next::Retry { delay: 15 * SECOND, attempt: 2 });
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
fn the_first_attempt_after_a_cut_comes_within_the_spread_at_random() {
    let now = Instant::now();
    let first = |random| delay(backoff(0, 0).ended(30 * SECOND, now, random));
    assert_eq!((first(0), first(u64::MAX)), (Duration::ZERO, 15 * SECOND));
    let second = |random| {
        let mut backoff = backoff(0, 0);
        backoff.ended(SECOND, now, random);
        delay(backoff.ended(SECOND, now, random))
    };
    // The wait of 2 s, shortened by a quarter.
    assert_eq!((second(0), second(u64::MAX)), (2 * SECOND, 16 * SECOND + SECOND / 2));
}

#[test]
fn after_a_cut_attempts_are_multiples_of_the_spread_apart() {
    let (mut cut, now) = (backoff(0, 0), Instant::now());
    cut.ended(30 * SECOND, now, 7);
    let mut next = |refused| delay(cut.failed(refused, None, now, 0)).as_secs();
    assert_eq!([(); 7].map(|()| next(false)), [15, 15, 15, 30, 45, 60, 60]);
    assert_eq!(next(true), 270, "256 s");
    let none = Timing { spread: Duration::ZERO, ..Timing::default() };
    let mut none = Backoff::new(&none, 0, Duration::ZERO);
    none.ended(30 * SECOND, now, u64::MAX);
    assert_eq!(delay(none.failed(false, None, now, 0)), 2 * SECOND, "without a spread");
    assert_eq!(rounded_up(Duration::MAX, Duration::from_nanos(1)), Duration::from_nanos(u32::MAX.into()));
}

/// Returns the largest part of a fleet that reconnects in one second, after an outage.
fn largest_part(fleet: u64, outage: Duration) -> f64 {
    // Marsaglia's xorshift.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let now = Instant::now();
    let mut seconds = vec![0_u64; 300];
    for _ in 0..fleet {
        let mut backoff = backoff(0, 0);
        let mut at = delay(backoff.ended(3600 * SECOND, now, random()));
        while at < outage {
            at += delay(backoff.failed(false, None, now, random()));
        }
        seconds[usize::try_from((at - outage).as_secs()).unwrap()] += 1;
    }
    seconds.into_iter().max().unwrap() as f64 / fleet as f64
}

#[test]
fn a_fleet_returns_over_time_whatever_the_length_of_the_outage() {
    for outage in [0, 1, 3, 7, 12, 20, 45, 100, 200] {
        let part = largest_part(20_000, outage * SECOND);
        assert!(part < 0.08, "{part} of the fleet in one second after {outage} s");
    }
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
    assert_eq!(next(600, u64::MAX), 615 * SECOND, "not all workers at once");
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
