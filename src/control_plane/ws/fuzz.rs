//! Fuzz entry points for the bytes of a control plane: the response to the upgrade, and the frames after it.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Request;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair};

use super::Timing;
use super::answer::{Extent, classify, status};
use super::confirm::Confirms;
use super::error::{Details, DialError};
use super::frames::{FrameError, Frames, Kind, Limits};
use super::outbox::{self, Outbox};
use super::socket::{Fault, Received, Socket};
use super::upgrade::upgrade;
use super::wire::{Channel, HandshakeDeadline, Route, Wire};
use crate::fuzz::{Input, assert_one_line};
use crate::logging::value;
use crate::secret::Secret;

/// The most bytes and pieces that are sent: the socket must hold all of them unread.
const MAX_BYTES: usize = 32 * 1024;
const MAX_PIECES: usize = 64;
/// The most bytes of one piece: a read into a smaller buffer would lose the rest of it.
const MAX_PIECE: usize = 4096;
/// The longest error text: one of ours with the reason of a close frame, each byte of it escaped.
const MAX_TEXT: usize = 2048;

/// The worker's end of a connection on which the peer has sent everything and shut down its side.
struct Connection {
    channel: Channel,
    deadline: HandshakeDeadline,
    /// Receives what the worker writes.
    _peer: OwnedFd,
    _outbox: Outbox,
}

/// Sends the pieces so that each read returns one, as TCP may. `None` if the system has no more sockets.
fn connection(pieces: &[&[u8]]) -> Option<Connection> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, peer) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()?;
    for piece in pieces {
        assert_eq!(send(&peer, piece, SendFlags::NOSIGNAL), Ok(piece.len()), "the socket takes all of it");
    }
    shutdown(&peer, Shutdown::Write).ok()?;
    let (outbox, inbox) = outbox::pair().ok()?;
    let deadline =
        HandshakeDeadline { until: Instant::now() + Duration::from_secs(5), inbox: Rc::new(inbox) };
    let channel = Channel::plain(Route::Tcp(Wire::new(ours.into(), deadline.clone())));
    Some(Connection { channel, deadline, _peer: peer, _outbox: outbox })
}

/// Returns the data in pieces of full size, and cut as the input's first line says.
fn both_ways<'a>(input: &Input<'a>) -> [Vec<&'a [u8]>; 2] {
    let (data, _) = input.data.split_at(input.data.len().min(MAX_BYTES));
    let pieces = input.cut(data).into_iter().take(MAX_PIECES);
    let cut: Vec<&[u8]> = pieces.flat_map(|piece| piece.chunks(MAX_PIECE)).collect();
    let (_, rest) = data.split_at(cut.iter().map(|piece| piece.len()).sum());
    [data.chunks(MAX_PIECE).collect(), cut.into_iter().chain(rest.chunks(MAX_PIECE)).collect()]
}

/// Reads the bytes as the response to the upgrade, whole and in pieces.
pub fn link_answer(bytes: &[u8]) {
    let input = Input::new(bytes);
    let [whole, parts] = both_ways(&input).map(|pieces| read_response(&pieces));
    assert_eq!(whole, parts);
    if let Some(status) = status(input.data) {
        assert!((100..1000).contains(&status));
        let refused = matches!(classify(status, Details::default()), DialError::Refused(..));
        assert!(whole.is_none_or(|text| status == 101 || text.starts_with("refused") == refused));
    }
}

fn read_response(pieces: &[&[u8]]) -> Option<String> {
    let Connection { channel, deadline, _peer, _outbox } = connection(pieces)?;
    let request = Request::get("ws://h/p").header("Host", "h").header("Upgrade", "websocket");
    let request = request.header("Connection", "Upgrade").header("Sec-WebSocket-Version", "13");
    let request = request.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").body(()).ok()?;
    let key = Secret::new("k");
    let text = match upgrade(request, &key, channel, &deadline, &Timing::default(), Extent::LOG) {
        Ok(_) => return Some("upgraded".to_owned()),
        Err(DialError::Permanent(error)) => format!("permanent {}", crate::logging::error_chain(&error)),
        Err(DialError::Refused(refusal, details)) => format!("refused {refusal} {}", value(&details.body)),
        Err(DialError::Transient(text, details)) => format!("transient {text} {}", value(&details.body)),
        Err(DialError::Unreachable(text)) => format!("unreachable {text}"),
        Err(DialError::Closing) => "closing".to_owned(),
    };
    assert_one_line(&text, MAX_TEXT);
    Some(text)
}

/// Reads the bytes as the frames after the upgrade, whole and in pieces.
pub fn link_frames(bytes: &[u8]) {
    let input = Input::new(bytes);
    let [whole, parts] = both_ways(&input).map(|pieces| read_frames(&pieces));
    assert_eq!(whole, parts);
    let [whole, parts] = both_ways(&input).map(|pieces| filter(&pieces));
    assert_eq!(whole, parts);
}

/// Returns what low limits leave of the frames, and the kinds of the messages.
fn filter(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<Kind>), FrameError> {
    let mut frames = Frames::new(Limits { stored: 100, skipped: 2000 });
    let mut passed = vec![0; 2 * MAX_BYTES];
    for piece in pieces {
        frames.push(piece)?;
    }
    let count = frames.take(&mut passed);
    passed.truncate(count);
    let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
    assert!(count <= sent, "more bytes than were sent");
    Ok((passed, std::iter::from_fn(|| frames.next_kind()).collect()))
}

/// Returns all messages, and the fault after the last.
fn read_frames(pieces: &[&[u8]]) -> Option<(Vec<Received>, Fault)> {
    let Connection { channel, _peer, .. } = connection(pieces)?;
    let sent: usize = pieces.iter().map(|piece| piece.len()).sum();
    let mut socket = Socket::new(channel);
    socket.allow(usize::MAX);
    let mut confirms = Confirms::default();
    let mut messages = Vec::new();
    for seq in 1..4 {
        confirms.sent(seq);
        confirms.next_ping();
    }
    let mut confirmed = 0;
    loop {
        let message = match socket.read() {
            Ok(message) => message,
            Err(fault) => return Some((messages, check_fault(socket, fault))),
        };
        match &message {
            Received::Text(text) => assert!(text.len() <= sent),
            Received::Binary(length) => assert!(*length <= sent),
            Received::Skipped(skipped) => assert!(skipped.beginning.len() as u64 <= skipped.bytes),
            Received::Pong(payload) => {
                if let Some(seq) = confirms.pong(payload) {
                    assert!(seq > confirmed && seq < 4, "{seq} after {confirmed}");
                    confirmed = seq;
                }
            }
            Received::Closed(text) => assert_one_line(text, MAX_TEXT),
            Received::Nothing | Received::Handled => {}
        }
        messages.push(message);
        assert!(messages.len() <= sent + 1, "more messages than bytes");
        // The read queues pongs and the reply to a close frame.
        let _ = socket.flush();
    }
}

fn check_fault(mut socket: Socket, fault: Fault) -> Fault {
    let (Fault::Refused(_, text) | Fault::Lost(text)) = &fault;
    assert_one_line(text, MAX_TEXT);
    if let Fault::Refused(reason, _) = &fault {
        let _ = socket.queue_close(*reason);
        assert!(socket.counts().0 > 0, "refused without a byte from the peer");
    }
    fault
}
