//! Connection after connection.

use oz_agent_worker::link::{Epoch, LinkError, LinkEvent, Timing};

use super::{accept_ws, calm, listen, millis, start_limited};

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
