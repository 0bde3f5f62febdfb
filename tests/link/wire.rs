//! Bytes as no well-behaved peer sends them: glued, split, slow, stalled, wrong.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use oz_agent_worker::control_plane::ws::{LinkEvent, Outbound, Timing};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::{
    accept, accept_raw, accept_ws, calm, close_code, listen, message, millis, next_frame, next_text, report,
    request, start, switching,
};

/// A text frame of at most 125 bytes, as a server sends it.
fn text_frame(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// What the link says goodbye with when the peer sends these bytes, and why it was down.
fn refused(bytes: &[u8]) -> (u16, String) {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let mut stream = accept_raw(&listener);
    running.up();
    stream.write_all(bytes).unwrap();
    let mut peer = WebSocket::from_raw_socket(stream, Role::Server, None);
    let code = close_code(&mut peer);
    drop(peer);
    (code, running.down())
}

#[test]
fn frames_that_come_with_the_upgrade_are_not_left_lying() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let mut stream = accept(&listener);
    let mut answer = switching(&request(&mut stream)).into_bytes();
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
    let running = start(&url, calm());
    let mut stream = accept_raw(&listener);
    running.up();
    for byte in [text_frame(&message("häppchen")), text_frame(""), text_frame(&message(""))].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    // A text in two fragments, with a ping between them.
    stream.write_all(b"\x01\x0b{\"type\":\"ab\x89\x00\x80\x04cd\"}").unwrap();
    assert_eq!(running.text(), "häppchen");
    assert!(matches!(running.next(), LinkEvent::Message(Err(_))), "an empty text is no message");
    assert_eq!(running.text(), "");
    assert_eq!(running.text(), "abcd");
}

#[test]
fn a_message_over_the_limit_is_refused_with_1009_at_its_header() {
    let size: u64 = (16 << 20) + 1;
    let (code, why) = refused(&[&[0x81, 127], &size.to_be_bytes()[..]].concat());
    assert_eq!(code, 1009);
    assert!(why.contains("16777217"), "{why}");
}

#[test]
fn a_message_over_the_limit_is_refused_with_1009_while_it_is_being_sent() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let mut peer = accept_ws(&listener);
    running.up();
    // Without somebody who takes the rest, this write would fail and the close frame be lost.
    peer.send(Message::text("x".repeat(17 << 20))).unwrap();
    assert_eq!(close_code(&mut peer), 1009);
    drop(peer);
    assert!(running.down().contains("17825792"));
}

#[test]
fn a_message_over_the_limit_in_fragments_is_refused_with_1009() {
    let frame = |opcode: u8| {
        let size: u64 = 9 << 20;
        [&[opcode, 127], &size.to_be_bytes()[..], &vec![b'x'; 9 << 20][..]].concat()
    };
    assert_eq!(refused(&[frame(0x01), frame(0x80)].concat()).0, 1009);
}

#[test]
fn a_text_that_is_not_utf8_is_refused_with_1007() {
    assert_eq!(refused(b"\x81\x02\xff\xfe").0, 1007);
}

#[test]
fn a_broken_protocol_is_refused_with_1002() {
    for bytes in
        [&b"\xf1\x00"[..], b"\x81\x81\x00\x00\x00\x00x", b"\x83\x00", b"\x80\x00", b"\x09\x00", b"\x88\x01x"]
    {
        let (code, why) = refused(bytes);
        assert_eq!(code, 1002, "{bytes:?}");
        assert!(why.contains("protocol"), "{why}");
    }
}

#[test]
fn a_peer_that_has_fallen_silent_is_given_up() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(50), dead_after: millis(300), ..calm() };
    let running = start(&url, timing);
    let mut silent = accept_raw(&listener);
    running.up();
    assert!(running.down().contains("silent"));
    assert!(super::hangs_up(&mut silent));
    let _again = accept(&listener);
}

#[test]
fn a_peer_that_talks_but_answers_no_ping_is_given_up() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(500), ..calm() };
    let running = start(&url, timing);
    let mut stream = accept_raw(&listener);
    running.send(running.up(), Some(1), "is it there?");
    let mut talking = stream.try_clone().unwrap();
    // An empty ping of its own again and again, until the connection ends.
    let talk = std::thread::spawn(move || {
        while talking.write_all(&[0x89, 0]).is_ok() {
            std::thread::sleep(millis(20));
        }
    });
    assert!(running.down().contains("does not answer pings"));
    assert!(super::hangs_up(&mut stream));
    drop(stream);
    talk.join().unwrap();
}

#[test]
fn pongs_keep_a_connection_alive() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(2000), ..calm() };
    let running = start(&url, timing);
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    // 30 pings are half as much time again as silence is allowed.
    for _ in 0..30 {
        assert!(matches!(peer.read().unwrap(), Message::Ping(_)));
    }
    running.send(epoch, None, "still here");
    assert_eq!(next_text(&mut peer), "still here");
}

#[test]
fn a_big_message_that_comes_slowly_is_life() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(500), dead_after: millis(2000), ..calm() };
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

/// A line on which reading takes its time.
struct Slow(TcpStream);

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
fn a_big_report_over_a_slow_line_is_life() {
    let (listener, url) = listen();
    set_socket_recv_buffer_size(&listener, 64 << 10).unwrap();
    let timing = Timing { ping_every: millis(100), dead_after: millis(1500), ..calm() };
    let output = "r".repeat(8 << 20);
    // Encoded before and parsed after the connection: either takes long enough to be taken for silence.
    let message = report(&output);
    let running = start(&url, timing);
    let mut peer = tungstenite::accept(Slow(accept(&listener))).unwrap();
    let epoch = running.up();
    // At 64 KiB in 25 ms this takes twice as long as silence is allowed, and all the time the peer says nothing.
    running.link.send(Outbound { epoch, seq: Some(1), message }).unwrap();
    let frame = next_frame(&mut peer);
    assert!(matches!(peer.read().unwrap(), Message::Ping(_)));
    peer.flush().unwrap();
    assert_eq!(running.confirmed(), 1);
    assert!(frame.contains(&output));
}

#[test]
fn a_reader_that_takes_nothing_is_given_up() {
    let (listener, url) = listen();
    let timing = Timing { ping_every: millis(100), dead_after: millis(500), ..calm() };
    let running = start(&url, timing);
    let _stalled = accept_raw(&listener);
    let epoch = running.up();
    running.send(epoch, Some(1), &"r".repeat(32 << 20));
    assert!(running.down().contains("silent"));
}

#[test]
fn reading_goes_on_while_writing_is_blocked() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let mut stream = accept_raw(&listener);
    let epoch = running.up();
    running.send(epoch, Some(1), &"r".repeat(32 << 20));
    for n in 0..100 {
        stream.write_all(&text_frame(&message(&n.to_string()))).unwrap();
        assert_eq!(running.text(), format!("{n}"));
    }
}
