//! Every way to end.

use std::io::Write;

use oz_agent_worker::control_plane::ws::{LinkEvent, Timing};
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

use super::{Running, accept, accept_raw, accept_ws, calm, close_code, hangs_up, listen, millis, start};

/// The last event, past the confirmations.
fn closed(running: &Running) {
    loop {
        match running.next() {
            LinkEvent::Closed => return,
            LinkEvent::Confirmed { .. } => {}
            other => panic!("not closed but {other:?}"),
        }
    }
}

#[test]
fn a_close_sends_what_is_queued_and_says_goodbye() {
    let (listener, url) = listen();
    let mut running = start(&url, calm());
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    for n in 0..200 {
        running.send(epoch, Some(n), &format!("report {n}"));
    }
    running.send(epoch, Some(200), &"r".repeat(4 << 20));
    running.link.close();
    let events = running.events.clone();
    let told = std::thread::spawn(move || events.iter().collect::<Vec<_>>());
    let mut texts = 0;
    let code = loop {
        match peer.read().unwrap() {
            Message::Text(_) => texts += 1,
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((texts, code), (201, 1001));
    assert!(matches!(peer.flush(), Err(Error::ConnectionClosed)));
    assert!(running.ended());
    let told = told.join().unwrap();
    let end = [LinkEvent::Confirmed { seq: 200 }, LinkEvent::Closed];
    assert!(told.ends_with(&end), "the last report is confirmed before the end: {told:?}");
    assert!(hangs_up(peer.get_mut()));
}

#[test]
fn a_close_does_not_wait_for_ever_for_the_answer() {
    let (listener, url) = listen();
    let mut running = start(&url, Timing { close_wait: millis(200), ..calm() });
    let mut silent = accept_raw(&listener);
    running.up();
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
    assert!(hangs_up(&mut silent));
}

#[test]
fn a_close_does_not_wait_for_ever_for_a_peer_that_takes_nothing() {
    let (listener, url) = listen();
    let mut running = start(&url, Timing { close_wait: millis(200), ..calm() });
    let _stalled = accept_raw(&listener);
    let epoch = running.up();
    running.send(epoch, Some(1), &"r".repeat(32 << 20));
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
}

#[test]
fn a_close_ends_the_wait_between_two_connections() {
    let (listener, url) = listen();
    let an_hour = millis(3_600_000);
    let mut running = start(&url, Timing { backoff_min: an_hour, backoff_max: an_hour, ..calm() });
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
    let mut running = start(&url, calm());
    let mut peer = accept_ws(&listener);
    running.up();
    running.link.close();
    running.link.close();
    assert_eq!(close_code(&mut peer), 1001);
    let _ = peer.flush();
    closed(&running);
    running.link.close();
    assert!(running.ended());
}

#[test]
fn what_comes_after_the_goodbye_is_dropped() {
    let (listener, url) = listen();
    let running = start(&url, calm());
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
fn a_close_of_the_peer_is_answered_and_the_connection_dropped_at_once() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let mut peer = accept_ws(&listener);
    running.up();
    peer.close(Some(CloseFrame { code: CloseCode::Away, reason: "moving".into() })).unwrap();
    let Message::Close(Some(reply)) = peer.read().unwrap() else { panic!("no reply") };
    assert_eq!(reply.code, CloseCode::Away);
    assert!(hangs_up(peer.get_mut()), "it waits for us");
    let why = running.down();
    assert!(why.contains("1001") && why.contains("moving"), "{why}");
}

#[test]
fn a_code_that_may_not_be_sent_is_not_echoed() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let mut peer = accept_raw(&listener);
    running.up();
    peer.write_all(b"\x88\x02\x03\xed").unwrap();
    let mut peer = tungstenite::WebSocket::from_raw_socket(peer, tungstenite::protocol::Role::Server, None);
    assert_eq!(close_code(&mut peer), 1002);
}

#[test]
fn a_connection_that_is_cut_is_down_and_dialled_again() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    drop(accept_raw(&listener));
    running.up();
    running.down();
    let _peer = accept_ws(&listener);
    running.up();
}

#[test]
fn a_dropped_receiver_ends_the_thread() {
    let (listener, url) = listen();
    let Running { mut link, events } = start(&url, calm());
    let mut peer = accept_ws(&listener);
    // Not read: the thread has to be waiting for room when the receiver goes.
    for n in 0..10 {
        peer.send(Message::text(format!("{n}"))).unwrap();
    }
    while events.len() < 4 {
        std::thread::yield_now();
    }
    drop(events);
    assert!(link.join(std::time::Instant::now() + super::PATIENCE));
    assert!(hangs_up(peer.get_mut()));
}

#[test]
fn a_dropped_handle_closes() {
    let (listener, url) = listen();
    let Running { link, events } = start(&url, calm());
    let mut peer = accept_ws(&listener);
    drop(link);
    assert_eq!(close_code(&mut peer), 1001);
    drop((peer, events));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}

#[test]
fn a_join_says_when_the_thread_still_runs() {
    let (listener, url) = listen();
    let mut running = start(&url, calm());
    let _stream = accept(&listener);
    assert!(!running.link.join(std::time::Instant::now() + millis(50)));
}
