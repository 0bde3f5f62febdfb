//! Target for a whole response over a socket: pieces must be read like the whole response.
//!
//! The socket keeps message boundaries, so that each read returns one piece.

use std::time::Duration;

use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::assert_error;
use crate::docker::conn::Conn;
use crate::docker::exchange::{Call, READ, Response, answer_over};
use crate::docker::{Error, MAX_MESSAGE};
use crate::fuzz::{Input, assert_one_line};
use crate::sys::cancel::CancelToken;

/// The most bytes of one piece, which the first read takes: the socket drops what does not fit.
const PIECE: usize = READ;
/// The most pieces: a socket holds a limited number of unread messages.
const PIECES: usize = 64;
/// Never reached: the peer has closed before the first read.
const LIMIT: Duration = Duration::from_secs(5);

/// A response. The steering byte `h` makes it the response to a `HEAD`.
pub fn http_response(bytes: &[u8]) {
    let input = Input::new(bytes);
    let data = input.data.get(..PIECE * 4).unwrap_or(input.data);
    let pieces = input.cut(data);
    let (few, _) = pieces.split_at(pieces.len().min(PIECES));
    let few_bytes: usize = few.iter().map(|piece| piece.len()).sum();
    let (_, rest) = data.split_at(few_bytes);
    let pieces: Vec<&[u8]> = few.iter().copied().chain(rest.chunks(PIECE)).collect();
    let whole: Vec<&[u8]> = data.chunks(PIECE).collect();
    let to_head = input.steering(0) == b'h';
    for size in [1 + usize::from(input.steering(1)), PIECE] {
        assert_eq!(read(&whole, to_head, PIECE), read(&pieces, to_head, size));
    }
    interpret(&pieces, to_head);
}

fn answer(pieces: &[&[u8]], to_head: bool) -> Option<Result<Response, Error>> {
    let (ours, peers) = pair()?;
    for piece in pieces.iter().flat_map(|piece| piece.chunks(PIECE)) {
        let sent = send(&peers, piece, SendFlags::NOSIGNAL);
        assert_eq!(sent, Ok(piece.len()), "the socket took only a part");
    }
    drop(peers);
    let cancel = CancelToken::new();
    let conn = Conn::over(ours, &cancel);
    Some(answer_over(
        conn,
        Call { name: "GET /fuzz".to_owned(), address: String::new(), cancel },
        LIMIT,
        to_head,
    ))
}

/// Returns `None` if the system has no more sockets.
fn pair() -> Option<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).ok()
}

/// Reads a response with a buffer of `size` bytes. Returns the status, the payload, and how the body ended.
fn read(pieces: &[&[u8]], to_head: bool, size: usize) -> Option<(u16, Vec<u8>, String)> {
    let mut response = match answer(pieces, to_head)? {
        Ok(response) => response,
        Err(error) => return Some((0, Vec::new(), failed(&error))),
    };
    assert!((200..1000).contains(&response.status));
    let mut payload = Vec::new();
    let mut buffer = vec![0; size];
    loop {
        match response.body.read_more(&mut buffer) {
            Ok([]) => return Some((response.status, payload, "complete".to_owned())),
            Ok(bytes) => payload.extend_from_slice(bytes),
            // How much payload is returned before an error depends on the pieces.
            Err(error @ Error::Protocol { .. }) => return Some((0, Vec::new(), failed(&error))),
            Err(error) => {
                let again = response.body.read_more(&mut buffer);
                assert!(again.is_err(), "the error was followed by an end");
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

/// Handles the response like a call of the client.
fn interpret(pieces: &[&[u8]], to_head: bool) {
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
