//! Reconnecting, and the limit of attempts.

use oz_agent_worker::control_plane::ws::{Epoch, LinkError, LinkEvent, Timing};

use super::{accept_ws, fast_retry, listen, millis, next_output, start, start_limited};

#[test]
fn a_connection_that_ends_at_once_counts_as_a_failure() {
    let (listener, url) = listen();
    let running = start_limited(&url, fast_retry(), 5);
    for dial in 1..=5 {
        drop(accept_ws(&listener));
        assert_eq!(running.up(), Epoch(dial));
        running.down();
    }
    assert!(matches!(running.fatal(), LinkError::GaveUp { failures: 5, .. }));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the link dialled again");
}

#[test]
fn a_stable_connection_resets_the_count() {
    let (listener, url) = listen();
    let running = start_limited(&url, Timing { stable_after: millis(1), ..fast_retry() }, 2);
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
fn no_event_follows_the_last() {
    let (listener, url) = listen();
    drop(listener);
    let mut running = start_limited(&url, fast_retry(), 1);
    assert_eq!(running.next(), LinkEvent::Failed);
    assert!(matches!(running.next(), LinkEvent::Fatal(LinkError::GaveUp { .. })));
    assert!(running.ended());
    running.link.close();
    assert!(running.events.recv().is_err());
}

#[test]
fn stop_waiting_ends_a_wait_and_shortens_later_ones() {
    let (listener, url) = listen();
    let hour = millis(3_600_000);
    let running = start(&url, Timing { backoff_min: hour, backoff_max: hour, ..fast_retry() });
    drop(accept_ws(&listener));
    running.up();
    running.down();
    // The wait of an hour may not have begun yet. Only this call can end it.
    running.link.stop_waiting();
    drop(accept_ws(&listener));
    assert_eq!(running.up(), Epoch(2));
    running.down();
    let _peer = accept_ws(&listener);
    assert_eq!(running.up(), Epoch(3), "without a second call");
}

#[test]
fn stop_waiting_during_a_connection_shortens_the_next_wait() {
    let (listener, url) = listen();
    let hour = millis(3_600_000);
    let running = start(&url, Timing { backoff_min: hour, backoff_max: hour, ..fast_retry() });
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    running.link.stop_waiting();
    running.send(epoch, None, "still here");
    assert_eq!(next_output(&mut peer), "still here");
    drop(peer);
    running.down();
    let _peer = accept_ws(&listener);
    assert_eq!(running.up(), Epoch(2));
}
