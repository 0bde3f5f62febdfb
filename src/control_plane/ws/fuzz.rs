//! What the control plane's side sends: the answer to the upgrade, and then frames.
//!
//! Owns the pair of sockets in place of TCP, and what holds for any bytes. It must not be used by the product.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair};

use super::Timing;
use super::answer::{Verdict, judge, status};
use super::confirm::Confirms;
use super::dial::{DialError, upgrade};
use super::outbox::{self, Outbox};
use super::socket::{Fault, Incoming, Socket};
use super::wire::{Channel, HandshakeDeadline, Wire};
use crate::fuzz::{Input, assert_one_line};

/// The most bytes that are sent, and the most pieces: what a socket holds unread is bounded.
const MOST: usize = 32 * 1024;
const PIECES: usize = 64;
/// The most bytes of one piece: no buffer that reads is smaller, and what does not fit would be lost.
const PIECE: usize = 4096;
/// The longest message of an error: our own words, and a reason of a close frame with each byte escaped.
const LONGEST: usize = 2048;

/// Our end of a connection on which the peer has said all of it and nothing will follow.
struct Peer {
    channel: Channel,
    deadline: HandshakeDeadline,
    /// Takes what we write.
    _end: OwnedFd,
    _outbox: Outbox,
}

/// Each read gives one piece, as TCP may do. `None` when the system has no more sockets.
fn said(pieces: &[&[u8]]) -> Option<Peer> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, end) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    for piece in pieces {
        assert_eq!(send(&end, piece, SendFlags::NOSIGNAL), Ok(piece.len()), "the socket takes all of it");
    }
    shutdown(&end, Shutdown::Write).ok()?;
    let (outbox, inbox) = outbox::pair().ok()?;
    let deadline =
        HandshakeDeadline { until: Instant::now() + Duration::from_secs(5), inbox: Rc::new(inbox) };
    let channel = Channel::plain(Wire::new(ours.into(), deadline.clone()));
    Some(Peer { channel, deadline, _end: end, _outbox: outbox })
}

/// The input as one read gives it, and cut as it says.
fn both_ways<'a>(input: &Input<'a>) -> [Vec<&'a [u8]>; 2] {
    let data = input.data.get(..MOST).unwrap_or(input.data);
    let cut = input.cut(data);
    let few: Vec<&[u8]> = cut.into_iter().take(PIECES).flat_map(|piece| piece.chunks(PIECE)).collect();
    let length: usize = few.iter().map(|piece| piece.len()).sum();
    let rest = data.get(length..).unwrap_or_default().chunks(PIECE);
    [data.chunks(PIECE).collect(), few.into_iter().chain(rest).collect()]
}

/// The answer to the upgrade. It cannot be a good one, since the key that it has to know is a random one.
pub fn link_answer(bytes: &[u8]) {
    let input = Input::new(bytes);
    let [whole, parts] = both_ways(&input).map(|pieces| answered(&pieces));
    assert_eq!(whole, parts);
    if let Some(status) = status(input.data) {
        assert!((100..1000).contains(&status));
        let permanent = matches!(judge(status), Verdict::Permanent(_));
        assert!(whole.is_none_or(|text| status == 101 || text.starts_with("permanent") == permanent));
    }
}

fn answered(pieces: &[&[u8]]) -> Option<String> {
    let peer = said(pieces)?;
    let request = Request::get("ws://h/p").header("Host", "h").header("Upgrade", "websocket");
    let request = request.header("Connection", "Upgrade").header("Sec-WebSocket-Version", "13");
    let request = request.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").body(()).ok()?;
    let text = match upgrade(request, peer.channel, &peer.deadline, &Timing::default()) {
        Ok(_) => return Some("upgraded".to_owned()),
        Err(DialError::Permanent(error)) => format!("permanent {}", crate::logging::error_chain(&error)),
        Err(DialError::Transient(text)) => format!("transient {text}"),
        Err(DialError::Closing) => "closing".to_owned(),
    };
    assert_one_line(&text, LONGEST);
    Some(text)
}

/// What comes after the upgrade.
pub fn link_frames(bytes: &[u8]) {
    let input = Input::new(bytes);
    let [whole, parts] = both_ways(&input).map(|pieces| heard(&pieces));
    assert_eq!(whole, parts);
}

/// All messages up to the end, and the end.
fn heard(pieces: &[&[u8]]) -> Option<(Vec<Incoming>, Fault)> {
    let Peer { channel, _end, .. } = said(pieces)?;
    let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
    let (mut socket, mut confirms, mut messages) =
        (Socket::upgraded(channel), Confirms::default(), Vec::new());
    for seq in 1..4 {
        confirms.sent(seq);
        confirms.ping();
    }
    let mut confirmed = 0;
    loop {
        let message = match socket.read() {
            Ok(message) => message,
            Err(fault) => return Some((messages, ended(socket, fault))),
        };
        match &message {
            Incoming::Text(text) => assert!(text.len() <= sent),
            Incoming::Binary(length) => assert!(*length <= sent),
            Incoming::Pong(payload) => {
                if let Some(seq) = confirms.pong(payload) {
                    assert!(seq > confirmed && seq < 4, "{seq} after {confirmed}");
                    confirmed = seq;
                }
            }
            Incoming::Closed(text) => assert_one_line(text, LONGEST),
            Incoming::Nothing | Incoming::Handled => {}
        }
        messages.push(message);
        assert!(messages.len() <= sent + 1, "more messages than bytes");
        // Pongs and the reply to a close frame are queued by the read.
        let _ = socket.flush();
    }
}

fn ended(mut socket: Socket, fault: Fault) -> Fault {
    let (Fault::Refused(_, text) | Fault::Lost(text)) = &fault;
    assert_one_line(text, LONGEST);
    if let Fault::Refused(reason, _) = &fault {
        let _ = socket.queue_close(*reason);
        assert!(socket.counts().0 > 0, "refused for nothing");
    }
    fault
}
