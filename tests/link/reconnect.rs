//! Connection after connection.

use oz_agent_worker::control_plane::ws::{Epoch, LinkError, LinkEvent, Timing};

use super::{accept_ws, calm, listen, millis, next_text, start, start_limited};

#[test]
fn accepting_and_closing_at_once_counts_as_a_failure() {
    let (listener, url) = listen();
    let running = start_limited(&url, calm(), 5);
    for dial in 1..=5 {
        drop(accept_ws(&listener));
        assert_eq!(running.up(), Epoch(dial));
        running.down();
    }
    assert!(matches!(running.fatal(), LinkError::GaveUp { failures: 5, .. }));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "dialled once more");
}

#[test]
fn a_connection_that_lasted_starts_the_count_over() {
    let (listener, url) = listen();
    let running = start_limited(&url, Timing { stable_after: millis(1), ..calm() }, 2);
    for _ in 0..6 {
        let peer = accept_ws(&listener);
        running.up();
        std::thread::sleep(millis(5));
        drop(peer);
        running.down();
    }
    drop(listener);
    assert!(matches!(running.fatal(), LinkError::GaveUp { failures: 2, .. }));
}

#[test]
fn after_the_last_event_there_is_none() {
    let (listener, url) = listen();
    drop(listener);
    let mut running = start_limited(&url, calm(), 1);
    assert!(matches!(running.next(), LinkEvent::Fatal(LinkError::GaveUp { .. })));
    assert!(running.ended());
    running.link.close();
    assert!(running.events.recv().is_err());
}

#[test]
fn haste_ends_a_wait_and_keeps_the_later_ones_short() {
    let (listener, url) = listen();
    let hour = millis(3_600_000);
    let running = start(&url, Timing { backoff_min: hour, backoff_max: hour, ..calm() });
    drop(accept_ws(&listener));
    running.up();
    running.down();
    // Whether it waits by now or is about to: the hour is never over.
    running.link.stop_waiting();
    drop(accept_ws(&listener));
    assert_eq!(running.up(), Epoch(2));
    running.down();
    let _peer = accept_ws(&listener);
    assert_eq!(running.up(), Epoch(3), "without being told again");
}

#[test]
fn haste_during_a_connection_holds_for_the_wait_after_it() {
    let (listener, url) = listen();
    let hour = millis(3_600_000);
    let running = start(&url, Timing { backoff_min: hour, backoff_max: hour, ..calm() });
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    running.link.stop_waiting();
    running.send(epoch, None, "still here");
    assert_eq!(next_text(&mut peer), "still here");
    drop(peer);
    running.down();
    let _peer = accept_ws(&listener);
    assert_eq!(running.up(), Epoch(2));
}
