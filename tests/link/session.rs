//! Messages in both directions, confirmations and epochs.

use oz_agent_worker::control_plane::ws::{Epoch, LinkEvent, Outbound, OutboxFull};
use oz_agent_worker::protocol::Incoming;
use tungstenite::Message;

use super::{accept_ws, fast_retry, listen, message, next_output, report, start};

#[test]
fn texts_go_both_ways_in_order() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    // More than one turn handles, and more than the channel of events holds.
    for n in 0..300 {
        peer.send(Message::text(message(&format!("in {n}")))).unwrap();
        running.send(epoch, None, &format!("out {n}"));
    }
    for n in 0..300 {
        assert_eq!(running.text(), format!("in {n}"));
    }
    for n in 0..300 {
        assert_eq!(next_output(&mut peer), format!("out {n}"));
    }
}

#[test]
fn a_binary_message_is_reported_by_its_size() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    running.up();
    peer.send(Message::binary(vec![0; 300])).unwrap();
    assert_eq!(running.next(), LinkEvent::Binary { bytes: 300 });
}

#[test]
fn a_ping_of_the_peer_is_answered() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    running.up();
    peer.send(Message::Ping("anyone".into())).unwrap();
    assert_eq!(peer.read().unwrap(), Message::Pong("anyone".into()));
}

#[test]
fn a_ping_with_its_number_follows_a_numbered_message() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    running.send(epoch, None, "plain");
    running.send(epoch, Some(77), "numbered");
    assert!(matches!(peer.read().unwrap(), Message::Text(_)));
    assert!(matches!(peer.read().unwrap(), Message::Text(_)));
    let Message::Ping(payload) = peer.read().unwrap() else { panic!("no ping") };
    assert!(payload.len() <= 125 && payload.ends_with(&77_u64.to_be_bytes()), "{payload:?}");
    // The peer's tungstenite sends the pong with its next flush.
    assert!(running.events.is_empty());
    peer.flush().unwrap();
    assert_eq!(running.confirmed(), 77);
}

#[test]
fn confirmations_rise_to_the_last_message() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    for seq in 1..=100 {
        running.send(epoch, Some(seq), "x");
    }
    let peer = std::thread::spawn(move || while peer.read().is_ok() {});
    let mut last = 0;
    while last < 100 {
        let seq = running.confirmed();
        assert!(seq > last, "{seq} after {last}");
        last = seq;
    }
    drop(running);
    peer.join().unwrap();
}

#[test]
fn a_message_for_an_earlier_connection_is_never_sent() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let peer = accept_ws(&listener);
    let first = running.up();
    drop(peer);
    running.down();
    running.send(first, Some(1), "stale while away");
    let mut peer = accept_ws(&listener);
    let second = running.up();
    assert!(second > first);
    running.send(first, Some(2), "stale later");
    running.send(Epoch(second.0 + 1), Some(3), "from nowhere");
    running.send(second, Some(4), "fresh");
    assert_eq!(next_output(&mut peer), "fresh");
    peer.read().unwrap();
    peer.flush().unwrap();
    assert_eq!(running.confirmed(), 4);
}

#[test]
fn a_full_outbox_is_reported_at_once() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    // The events are not read, so the thread soon blocks and takes no further messages.
    (0..10).for_each(|_| peer.send(Message::text("x")).unwrap());
    let outbound = || Outbound { epoch, seq: None, message: report("") };
    let sent = (0..100_000).take_while(|_| running.link.send(outbound()).is_ok()).count();
    assert!((1024..100_000).contains(&sent), "{sent}");
    assert_eq!(running.link.send(outbound()), Err(OutboxFull));
}

#[test]
fn a_big_message_arrives_whole() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    let big = "ü€x".repeat(2 << 20);
    running.send(epoch, Some(1), &big);
    running.send(epoch, Some(2), "after it");
    assert!(next_output(&mut peer) == big);
    assert_eq!(next_output(&mut peer), "after it");
    // With the rest of the message, exactly the limit.
    let back = "y".repeat((16 << 20) - message("").len());
    peer.send(Message::text(message(&back))).unwrap();
    loop {
        match running.next() {
            LinkEvent::Message { message: Ok(Incoming::Unknown { kind }), .. } => {
                assert!(kind == back, "16 MiB is within the limit");
                return;
            }
            LinkEvent::Confirmed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}
