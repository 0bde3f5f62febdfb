//! Peers that join, split or delay frames, stop reading, or break the protocol.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;

use oz_agent_worker::control_plane::ws::{LinkEvent, Timing};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::{
    accept, accept_raw, accept_ws, close_code, fast_retry, listen, message, millis, next_output, next_text,
    output, report, request, start, upgrade_response,
};
use crate::support::peer::Peer;

/// Returns a server's text frame. The text has at most 125 bytes.
pub(super) fn text_frame(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// Returns the link's close code and its reason after the peer sent these bytes.
pub(super) fn refused(bytes: &[u8]) -> (u16, String) {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    running.up();
    stream.write_all(bytes).unwrap();
    let mut peer = WebSocket::from_raw_socket(stream, Role::Server, None);
    let code = close_code(&mut peer);
    drop(peer);
    (code, running.down())
}

/// Sends empty pings until the connection ends.
pub(super) fn ping_until_the_end(stream: &TcpStream) -> JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        while stream.write_all(&[0x89, 0]).is_ok() {
            std::thread::sleep(millis(20));
        }
    })
}

#[test]
fn frames_in_the_same_packet_as_the_upgrade_are_read() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept(&listener);
    let mut answer = upgrade_response(&request(&mut stream)).into_bytes();
    // More than one turn reads.
    (0..200).for_each(|n| answer.extend(text_frame(&message(&format!("glued {n}")))));
    stream.write_all(&answer).unwrap();
    running.up();
    for n in 0..200 {
        assert_eq!(running.text(), format!("glued {n}"));
    }
}

#[test]
fn a_frame_may_be_split_anywhere() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    running.up();
    for byte in [text_frame(&message("häppchen")), text_frame(""), text_frame(&message(""))].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    // A text in two fragments, with a ping between them.
    stream.write_all(b"\x01\x0b{\"type\":\"ab\x89\x00\x80\x04cd\"}").unwrap();
    assert_eq!(running.text(), "häppchen");
    assert!(
        matches!(running.next(), LinkEvent::Message { message: Err(_), .. }),
        "an empty text is no message"
    );
    assert_eq!(running.text(), "");
    assert_eq!(running.text(), "abcd");
}

#[test]
fn a_text_that_is_not_utf8_is_refused_with_1007() {
    assert_eq!(refused(b"\x81\x02\xff\xfe").0, 1007);
}

#[test]
fn a_protocol_error_is_refused_with_1002() {
    for bytes in
        [&b"\xf1\x00"[..], b"\x81\x81\x00\x00\x00\x00x", b"\x83\x00", b"\x80\x00", b"\x09\x00", b"\x88\x01x"]
    {
        let (code, reason) = refused(bytes);
        assert_eq!(code, 1002, "{bytes:?}");
        assert!(reason.contains("protocol"), "{reason}");
    }
}

#[test]
fn a_silent_peer_is_dropped() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(50), dead_after: millis(300), ..fast_retry() };
    let running = start(&url, timing);
    let mut silent = accept_raw(&listener);
    running.up();
    assert!(running.down().contains("stopped responding"));
    assert!(super::hangs_up(&mut silent));
    let _again = accept(&listener);
}

#[test]
fn a_peer_that_does_not_answer_pings_is_dropped() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(500), ..fast_retry() };
    let running = start(&url, timing);
    let mut stream = accept_raw(&listener);
    running.send(running.up(), Some(1), "is it there?");
    let talk = ping_until_the_end(&stream);
    assert!(running.down().contains("does not answer pings"));
    assert!(super::hangs_up(&mut stream));
    drop(stream);
    talk.join().unwrap();
}

#[test]
fn pongs_keep_a_connection_alive() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(2000), ..fast_retry() };
    let running = start(&url, timing);
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    // 30 pings take 3 s; the allowed silence is 2 s.
    for _ in 0..30 {
        assert!(matches!(peer.read().unwrap(), Message::Ping(_)));
    }
    running.send(epoch, None, "still here");
    assert_eq!(next_output(&mut peer), "still here");
}

#[test]
fn a_slow_message_keeps_the_connection_alive() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(500), dead_after: millis(2000), ..fast_retry() };
    let running = start(&url, timing);
    let mut stream = accept_raw(&listener);
    running.up();
    let slow = message(&"x".repeat(60));
    for byte in text_frame(&slow) {
        std::thread::sleep(millis(50));
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(running.text(), "x".repeat(60));
}

/// A stream with slow reads.
struct Slow(Peer);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(millis(25));
        let part = buffer.len().min(64 << 10);
        self.0.read(&mut buffer[..part])
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_report_over_a_slow_line_keeps_the_connection_alive() {
    let (listener, url) = listen();
    set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    let timing = Timing { ping_every: millis(100), dead_after: millis(1500), ..fast_retry() };
    // Encoding and decoding can take longer than the allowed silence, so both happen without a connection.
    let text = "r".repeat(8 << 20);
    let message = report(&text);
    let running = start(&url, timing);
    let mut peer = tungstenite::accept(Slow(accept(&listener))).unwrap();
    let epoch = running.up();
    // At 64 KiB in 25 ms this takes twice the allowed silence, during which the peer sends nothing.
    running.send_message(epoch, Some(1), message);
    let received = next_text(&mut peer);
    assert!(matches!(peer.read().unwrap(), Message::Ping(_)));
    peer.flush().unwrap();
    assert_eq!(running.confirmed(), 1);
    assert!(output(&received) == text);
}

#[test]
fn a_peer_that_does_not_read_is_dropped() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(500), ..fast_retry() };
    let message = report(&"r".repeat(32 << 20));
    let running = start(&url, timing);
    let _stalled = accept_raw(&listener);
    running.send_message(running.up(), Some(1), message);
    assert!(running.down().contains("stopped responding"));
}

#[test]
fn reading_continues_while_writing_is_blocked() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept_raw(&listener);
    let epoch = running.up();
    running.send(epoch, Some(1), &"r".repeat(32 << 20));
    for n in 0..100 {
        stream.write_all(&text_frame(&message(&n.to_string()))).unwrap();
        assert_eq!(running.text(), format!("{n}"));
    }
}
