//! How the link and its connections end.

use std::io::Write;
use std::time::{Duration, Instant};

use oz_agent_worker::control_plane::ws::{LinkEvent, Timing};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use super::{
    Running, accept, accept_raw, accept_ws, close_code, fast_retry, hangs_up, listen, millis, start,
};

/// Waits for the last event, skipping confirmations.
fn wait_closed(running: &Running) {
    loop {
        match running.next() {
            LinkEvent::Closed => return,
            LinkEvent::Confirmed { .. } => {}
            other => panic!("not Closed but {other:?}"),
        }
    }
}

#[test]
fn a_link_that_does_not_go_on_is_overdue_until_it_has_ended() {
    let (listener, url) = listen();
    let mut running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    running.up();
    let in_an_hour = || Instant::now() + Duration::from_secs(3600);
    assert_eq!(running.link.overdue(Instant::now()), Duration::ZERO);
    // It waits for its next ping, for half a minute at most.
    let overdue = running.link.overdue(in_an_hour());
    assert!(overdue > Duration::from_secs(3500), "{overdue:?}");
    running.link.close();
    while peer.read().is_ok() {}
    drop(peer);
    wait_closed(&running);
    assert!(running.link.join(in_an_hour()));
    assert_eq!(running.link.overdue(in_an_hour()), Duration::ZERO);
}

#[test]
fn a_close_sends_the_queue_and_a_close_frame() {
    let (listener, url) = listen();
    let mut running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    for n in 0..200 {
        running.send(epoch, Some(n), &format!("report {n}"));
    }
    running.send(epoch, Some(200), &"r".repeat(4 << 20));
    running.link.close();
    let events = running.events.clone();
    let collector = std::thread::spawn(move || events.iter().collect::<Vec<_>>());
    let mut texts = 0;
    let code = loop {
        match peer.read().unwrap() {
            Message::Text(_) => texts += 1,
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((texts, code), (201, 1000));
    assert!(matches!(peer.flush(), Err(Error::ConnectionClosed)));
    assert!(running.ended());
    let events = collector.join().unwrap();
    let end = [LinkEvent::Confirmed { seq: 200 }, LinkEvent::Closed];
    assert!(events.ends_with(&end), "the last report is confirmed before the end: {events:?}");
    assert!(hangs_up(peer.get_mut()));
}

#[test]
fn a_close_gives_up_on_a_peer_that_does_not_reply() {
    let (listener, url) = listen();
    let mut running = start(&url, Timing { close_wait: millis(200), ..fast_retry() });
    let mut silent = accept_raw(&listener);
    running.up();
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
    assert!(hangs_up(&mut silent));
}

#[test]
fn a_close_gives_up_on_a_peer_that_does_not_read() {
    let (listener, url) = listen();
    let mut running = start(&url, Timing { close_wait: millis(200), ..fast_retry() });
    let _stalled = accept_raw(&listener);
    let epoch = running.up();
    running.send(epoch, Some(1), &"r".repeat(32 << 20));
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
}

#[test]
fn a_close_ends_the_wait_between_two_attempts() {
    let (listener, url) = listen();
    let an_hour = millis(3_600_000);
    let mut running = start(&url, Timing { backoff_min: an_hour, backoff_max: an_hour, ..fast_retry() });
    drop(accept_ws(&listener));
    running.up();
    running.down();
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
}

#[test]
fn a_second_close_changes_nothing() {
    let (listener, url) = listen();
    let mut running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    running.up();
    running.link.close();
    running.link.close();
    assert_eq!(close_code(&mut peer), 1000);
    let _ = peer.flush();
    wait_closed(&running);
    running.link.close();
    assert!(running.ended());
}

#[test]
fn messages_after_our_close_frame_are_dropped() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_raw(&listener);
    running.up();
    running.link.close();
    let mut ours = [0; 2];
    std::io::Read::read_exact(&mut peer, &mut ours).unwrap();
    assert_eq!(ours[0], 0x88, "the close frame");
    peer.write_all(b"\x81\x04late\x88\x02\x03\xe9").unwrap();
    assert_eq!(running.next(), LinkEvent::Closed);
}

#[test]
fn a_close_frame_of_the_peer_is_answered_and_the_connection_closed() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    running.up();
    peer.close(Some(CloseFrame { code: CloseCode::Away, reason: "moving".into() })).unwrap();
    let Message::Close(Some(reply)) = peer.read().unwrap() else { panic!("no reply") };
    assert_eq!(reply.code, CloseCode::Away);
    assert!(hangs_up(peer.get_mut()), "the peer waits for the link to close");
    let reason = running.down();
    assert!(reason.contains("1001") && reason.contains("moving"), "{reason}");
}

#[test]
fn a_reserved_close_code_is_not_echoed() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut peer = accept_raw(&listener);
    running.up();
    peer.write_all(b"\x88\x02\x03\xed").unwrap();
    let mut peer = tungstenite::WebSocket::from_raw_socket(peer, tungstenite::protocol::Role::Server, None);
    assert_eq!(close_code(&mut peer), 1002);
}

#[test]
fn the_link_reconnects_after_a_cut() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    drop(accept_raw(&listener));
    running.up();
    running.down();
    let _peer = accept_ws(&listener);
    running.up();
}

#[test]
fn a_dropped_receiver_ends_the_thread() {
    let (listener, url) = listen();
    let Running { mut link, events } = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    // The events are not read, so the thread is blocked on the full channel when the receiver is dropped.
    for n in 0..10 {
        peer.send(Message::text(format!("{n}"))).unwrap();
    }
    while events.len() < 4 {
        std::thread::yield_now();
    }
    drop(events);
    assert!(link.join(Instant::now() + super::TIMEOUT));
    assert!(hangs_up(peer.get_mut()));
}

#[test]
fn a_dropped_handle_closes_the_link() {
    let (listener, url) = listen();
    let Running { link, events } = start(&url, fast_retry());
    let mut peer = accept_ws(&listener);
    drop(link);
    assert_eq!(close_code(&mut peer), 1000);
    drop((peer, events));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn join_returns_false_while_the_thread_runs() {
    let (listener, url) = listen();
    let mut running = start(&url, fast_retry());
    let _stream = accept(&listener);
    assert!(!running.link.join(Instant::now() + millis(50)));
}
