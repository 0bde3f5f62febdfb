//! A whole response as it is read from a socket: the head, the body's framing, and what is made of an error or of JSON.
//!
//! Owns the pair of sockets, on which each read gives one piece, and the comparison of the pieces with the whole.

use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::assert_error;
use crate::docker::conn::Conn;
use crate::docker::exchange::{Call, Response, answer_over};
use crate::docker::{Error, MAX_MESSAGE};
use crate::fuzz::{Input, assert_one_line};
use crate::sys::cancel::CancelToken;

/// The most bytes of one piece: no buffer that reads is smaller, and what does not fit would be lost.
const PIECE: usize = 8 * 1024;
/// The most pieces: what a socket holds unread is bounded.
const PIECES: usize = 64;
/// Nothing is waited for, as the peer has closed before the first read.
const LIMIT: Duration = Duration::from_secs(5);

/// A response; a steering `h` says that it answers a `HEAD`.
pub fn http_response(bytes: &[u8]) {
    let input = Input::new(bytes);
    let data = input.data.get(..PIECE * 4).unwrap_or(input.data);
    let pieces = input.cut(data);
    let (few, _) = pieces.split_at(pieces.len().min(PIECES));
    let few_bytes: usize = few.iter().map(|piece| piece.len()).sum();
    let rest = data.get(few_bytes..).unwrap_or_default();
    let pieces: Vec<&[u8]> = few.iter().copied().chain(rest.chunks(PIECE)).collect();
    let whole: Vec<&[u8]> = data.chunks(PIECE).collect();
    let to_head = input.knob(0) == b'h';
    for room in [1 + usize::from(input.knob(1)), PIECE] {
        assert_eq!(read(&whole, to_head, PIECE), read(&pieces, to_head, room));
    }
    understood(&pieces, to_head);
}

fn answer(pieces: &[&[u8]], to_head: bool) -> Option<Result<Response, Error>> {
    let (ours, peers) = pair()?;
    for piece in pieces.iter().flat_map(|piece| piece.chunks(PIECE)) {
        let sent = send(&peers, piece, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(piece.len()), "the socket takes all of it");
    }
    drop(peers);
    let cancel = CancelToken::new();
    let conn = Conn::over(ours, &cancel);
    Some(answer_over(conn, Call { name: "GET /fuzz".to_owned(), cancel }, LIMIT, to_head))
}

/// `None` when the system has no more sockets, which says nothing about the input.
fn pair() -> Option<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()
}

/// The status, the payload and how it ended.
fn read(pieces: &[&[u8]], to_head: bool, room: usize) -> Option<(u16, Vec<u8>, String)> {
    let mut response = match answer(pieces, to_head)? {
        Ok(response) => response,
        Err(error) => return Some((0, Vec::new(), failed(&error))),
    };
    assert!((200..1000).contains(&response.status));
    let (mut payload, mut buffer) = (Vec::new(), vec![0; room]);
    loop {
        match response.body.read_more(&mut buffer) {
            Ok(0) => return Some((response.status, payload, "whole".to_owned())),
            Ok(n) => payload.extend_from_slice(buffer.get(..n).unwrap_or_default()),
            // Of what stands before broken bytes more is given when they come later.
            Err(error @ Error::Protocol { .. }) => return Some((0, Vec::new(), failed(&error))),
            Err(error) => {
                let again = response.body.read_more(&mut buffer);
                assert!(again.is_err(), "an end after a cut");
                return Some((response.status, payload, failed(&error)));
            }
        }
    }
}

fn failed(error: &Error) -> String {
    assert!(matches!(error, Error::Protocol { .. } | Error::Io { .. }), "{error:?}");
    assert_error(error);
    error.to_string()
}

/// What the callers of the client make of it.
fn understood(pieces: &[&[u8]], to_head: bool) {
    match answer(pieces, to_head).map(|answer| answer.and_then(Response::success)) {
        Some(Err(Error::Engine { status, message })) => {
            assert!(!(200..300).contains(&status));
            assert_one_line(&message, MAX_MESSAGE);
        }
        Some(Ok(response)) => {
            if let Err(error) = response.json::<serde_json::Value>() {
                failed(&error);
            }
        }
        Some(Err(error)) => drop(failed(&error)),
        None => {}
    }
}
