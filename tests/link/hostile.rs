//! Peers that send too much, or read nothing.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oz_agent_worker::control_plane::ws::{LinkEvent, Timing};
use oz_agent_worker::protocol::{Dialect, ExecutionKey, Invalid};

use super::wire::{ping_until_the_end, refused, text_frame};
use super::{Running, accept_raw, fast_retry, header, listen, message, millis, report, start};

const MIB: usize = 1 << 20;

/// An assignment of the run `r` with this many bytes more.
fn long_assignment(bytes: usize) -> String {
    format!(r#"{{"type":"task_assignment","data":{{"task_id":"r","prompt":"{}"}}}}"#, "x".repeat(bytes))
}

fn invalid(running: &Running) -> Invalid {
    match running.next() {
        LinkEvent::Message { message: Err(invalid), .. } => invalid,
        other => panic!("not invalid but {other:?}"),
    }
}

#[test]
fn a_message_over_16_mib_is_skipped_and_its_run_is_known() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    running.up();
    let long = long_assignment(17 * MIB);
    stream.write_all(&header(0x81, long.len())).unwrap();
    stream.write_all(long.as_bytes()).unwrap();
    stream.write_all(&text_frame(&message("after"))).unwrap();
    let expected = Invalid {
        dialect: Dialect::Old,
        key: Some(ExecutionKey::new("r", None)),
        message: format!("message: must have at most 16777216 bytes, not {}", long.len()),
    };
    assert_eq!(invalid(&running), expected);
    assert_eq!(running.text(), "after");
}

#[test]
fn a_message_over_16_mib_in_fragments_is_skipped_between_pings() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    running.up();
    let long = long_assignment(20 * MIB);
    let parts: Vec<&[u8]> = long.as_bytes().chunks(3 * MIB).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = if index + 1 == parts.len() { 0x80 } else { 0 };
        stream.write_all(&header(last | u8::from(index == 0), part.len())).unwrap();
        stream.write_all(part).unwrap();
        stream.write_all(&[0x89, 0]).unwrap();
    }
    stream.write_all(&text_frame(&message("after"))).unwrap();
    assert_eq!(invalid(&running).key, Some(ExecutionKey::new("r", None)));
    assert_eq!(running.text(), "after");
}

#[test]
fn a_message_over_16_mib_that_is_no_assignment_is_skipped() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    running.up();
    let long = long_assignment(17 * MIB);
    stream.write_all(&header(0x82, long.len())).unwrap();
    stream.write_all(long.as_bytes()).unwrap();
    assert_eq!(running.next(), LinkEvent::Binary { bytes: long.len() });
    stream.write_all(&header(0x81, 17 * MIB)).unwrap();
    stream.write_all(&vec![0xff; 17 * MIB]).unwrap();
    assert_eq!(invalid(&running).key, None);
    stream.write_all(&text_frame(&message("after"))).unwrap();
    assert_eq!(running.text(), "after");
}

#[test]
fn a_message_over_100_mib_is_refused_with_1009_at_its_header() {
    let (code, reason) = refused(&header(0x81, 100 * MIB + 1));
    assert_eq!(code, 1009);
    assert!(reason.contains("a message of 104857601 bytes, the limit is 104857600"), "{reason}");
    let begun = [vec![0x01, 1, b'x'], header(0x00, 100 * MIB)].concat();
    assert_eq!(refused(&begun).0, 1009);
    let nested = [0x01, 1, b'x', 0x81, 1, b'y'];
    assert_eq!(refused(&nested).0, 1002, "a message within a message");
}

#[test]
fn messages_before_an_error_in_the_same_packet_are_read() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    running.up();
    let before = text_frame(&message("before"));
    stream.write_all(&[before, header(0x81, 100 * MIB + 1)].concat()).unwrap();
    assert_eq!(running.text(), "before");
    assert!(running.down().contains("the limit is 104857600"));
}

/// Writes until the connection ends or `stop` is set.
fn flood(mut stream: TcpStream, bytes: Vec<u8>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || while !stop.load(Ordering::SeqCst) && stream.write_all(&bytes).is_ok() {})
}

#[test]
fn a_peer_that_sends_and_does_not_read_is_dropped() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(1000), ..fast_retry() };
    let message = report(&"r".repeat(32 * MIB));
    let running = start(&url, timing);
    let stream = accept_raw(&listener);
    running.send_message(running.up(), Some(1), message);
    let talk = ping_until_the_end(&stream);
    assert!(running.down().contains("stopped responding"));
    drop(stream);
    talk.join().unwrap();
}

#[test]
fn a_flood_of_frames_without_an_end_does_not_hold_up_sending_and_closing() {
    let (listener, url) = listen();
    let mut running = start(&url, Timing { close_wait: millis(200), ..fast_retry() });
    let mut stream = accept_raw(&listener);
    let epoch = running.up();
    let stop = Arc::new(AtomicBool::new(false));
    stream.write_all(&[0x01, 0]).unwrap();
    let flood = flood(stream.try_clone().unwrap(), [0x00, 0].repeat(32 << 10), Arc::clone(&stop));
    running.send(epoch, None, "in between");
    let mut peer = tungstenite::WebSocket::from_raw_socket(stream, tungstenite::protocol::Role::Server, None);
    assert_eq!(super::next_output(&mut peer), "in between");
    running.link.close();
    assert!(running.ended(), "the flood holds up the close");
    stop.store(true, Ordering::SeqCst);
    drop(peer);
    flood.join().unwrap();
}
