//! The upgrade from HTTP to the WebSocket protocol (RFC 6455, section 4.1).
//!
//! tungstenite builds the request, and the response is read here: tungstenite refuses a `Connection` header of several tokens
//! and a response that arrives in many small parts.

use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use http::Request;
use httparse::{Header, Response, Status};
use tungstenite::handshake::client::generate_request;
use tungstenite::handshake::derive_accept_key;

use super::Timing;
use super::answer::{Extent, classify, details, is_enough, status};
use super::error::DialError;
use super::socket::Socket;
use super::wire::{Channel, HandshakeDeadline};
use crate::net::tls::is_record;
use crate::secret::Secret;

/// The longest head of a response, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// The most headers of a response.
pub(super) const MAX_HEADERS: usize = 100;

/// How long the body of a refusal may take. It is only for the log.
const BODY_WAIT: Duration = Duration::from_secs(1);

/// Why there is no WebSocket.
enum Failure {
    /// The head is not complete.
    Io(io::Error),
    /// The peer closed the connection.
    Closed,
    /// The head is wrong.
    Refused(String),
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::Refused(reason.to_owned())
    }
}

/// Sends the request, and returns the WebSocket once the response is there. `key` is the API key, which errors do not contain.
///
/// # Errors
/// The control plane refuses, is silent until the deadline, or does not answer as RFC 6455 requires.
pub(super) fn upgrade(
    request: Request<()>,
    key: &Secret,
    mut channel: Channel,
    deadline: &HandshakeDeadline,
    timing: &Timing,
    extent: Extent,
) -> Result<Socket, DialError> {
    let mut head = Vec::new();
    let failure = match exchange(request, &mut channel, &mut head) {
        Ok(()) => return Ok(Socket::new(channel)),
        Err(failure) => failure,
    };
    if deadline.inbox.closing() {
        return Err(DialError::Closing);
    }
    if let Some(status) = status(&head).filter(|&status| status != 101) {
        read_body(&mut channel, &mut head, key, extent, deadline);
        return Err(classify(status, details(&head, key, extent, SystemTime::now().into())));
    }
    Err(DialError::transient(match failure {
        _ if is_record(&head) => {
            "the control plane speaks TLS on that port: use wss:// or https:// in the URL".to_owned()
        }
        Failure::Refused(reason) => format!("the upgrade failed: {reason}"),
        Failure::Io(_) if Instant::now() >= deadline.until => format!(
            "no response to the upgrade within {:?} of dialling; a wrong path in the URL, even a trailing slash, gets no \
             response",
            timing.handshake
        ),
        Failure::Io(error) => format!("the upgrade failed: {error}"),
        Failure::Closed => {
            "the control plane closed the connection without a response to the upgrade".to_owned()
        }
    }))
}

/// `head` receives what was read of the response, also after an error.
fn exchange(request: Request<()>, channel: &mut Channel, head: &mut Vec<u8>) -> Result<(), Failure> {
    let (request, key) = generate_request(request).map_err(|error| Failure::Refused(error.to_string()))?;
    channel.write_all(&request).and_then(|()| channel.flush()).map_err(Failure::Io)?;
    let accept = derive_accept_key(key.as_bytes());
    let mut buffer = [0; 4096];
    loop {
        let count = channel.read_head(&mut buffer).map_err(Failure::Io)?;
        if count == 0 {
            return Err(Failure::Closed);
        }
        head.extend(buffer.iter().take(count));
        if let Some(length) = check(head, &accept)? {
            let (_, frames) = head.split_at(length);
            channel.push_frames(frames);
            return Ok(());
        }
        if head.len() > MAX_HEAD {
            return Err("the head of the response is too long".into());
        }
    }
}

/// Reads on after the head of a refusal, as far as it is needed and for at most [`BODY_WAIT`].
fn read_body(
    channel: &mut Channel,
    response: &mut Vec<u8>,
    key: &Secret,
    extent: Extent,
    deadline: &HandshakeDeadline,
) {
    let until = deadline.until.min(Instant::now() + BODY_WAIT);
    channel.set_deadline(HandshakeDeadline { until, inbox: Rc::clone(&deadline.inbox) });
    let mut buffer = [0; 4096];
    while !is_enough(response, key, extent) {
        match channel.read_head(&mut buffer) {
            Ok(count @ 1..) => response.extend(buffer.iter().take(count)),
            Ok(0) | Err(_) => return,
        }
    }
}

/// Returns the length of the head once it is complete.
fn check(head: &[u8], accept: &str) -> Result<Option<usize>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = Response::new(&mut headers);
    let length = match response.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(Failure::Refused(format!("the response is not HTTP: {error}"))),
    };
    if response.code != Some(101) {
        return Err("the status is not 101".into());
    }
    if response.version != Some(1) {
        return Err("the response is not HTTP/1.1".into());
    }
    let headers = &*response.headers;
    if !tokens(headers, "Upgrade").any(|token| token.eq_ignore_ascii_case("websocket")) {
        return Err("the header Upgrade does not contain websocket".into());
    }
    if !tokens(headers, "Connection").any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return Err("the header Connection does not contain upgrade".into());
    }
    if !values(headers, "Sec-WebSocket-Accept").eq([accept]) {
        return Err("the header Sec-WebSocket-Accept does not fit the request".into());
    }
    for name in ["Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"] {
        if raw_values(headers, name).flatten().any(|byte| !matches!(byte, b' ' | b'\t' | b',')) {
            return Err(Failure::Refused(format!("the header {name} names what was not asked for")));
        }
    }
    Ok(Some(length))
}

/// Returns the values of the headers with this name.
fn raw_values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Returns the trimmed values of the headers with this name. One that is not UTF-8 counts as empty.
pub(super) fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    raw_values(headers, name).map(|value| std::str::from_utf8(value).unwrap_or_default().trim())
}

/// Returns the elements of the comma-separated lists in the headers with this name, without empty ones.
pub(super) fn tokens<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a str> {
    values(headers, name).flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn response(headers: &str) -> String {
        format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n{headers}\r\n\r\n")
    }

    fn refusal(head: &str) -> Option<String> {
        match check(head.as_bytes(), ACCEPT) {
            Ok(length) => {
                assert_eq!(length, Some(head.len()));
                None
            }
            Err(Failure::Refused(reason)) => Some(reason),
            Err(Failure::Io(_) | Failure::Closed) => panic!("no input or output"),
        }
    }

    #[test]
    fn the_tokens_of_a_response_may_be_anywhere_in_their_headers() {
        for headers in [
            "Upgrade: websocket\r\nConnection: Upgrade",
            "upgrade:WEBSOCKET\r\nconnection:keep-alive, UPGRADE",
            "Upgrade: h2c, websocket\r\nConnection: keep-alive\r\nConnection: close ,upgrade,",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions:\r\nX: \u{e9}",
        ] {
            assert_eq!(refusal(&response(headers)), None, "{headers}");
        }
    }

    #[test]
    fn a_response_against_the_rfc_is_refused_with_its_header() {
        let good = "Upgrade: websocket\r\nConnection: Upgrade";
        let cases = [
            (response("Connection: Upgrade"), "Upgrade does not contain websocket"),
            (response("Upgrade: websockets\r\nConnection: Upgrade"), "Upgrade does not contain websocket"),
            (response("Upgrade: websocket\r\nConnection: keep-alive"), "Connection does not contain upgrade"),
            (response(&format!("{good}\r\nSec-WebSocket-Extensions: x")), "Sec-WebSocket-Extensions names"),
            (response(&format!("{good}\r\nSec-WebSocket-Protocol: x")), "Sec-WebSocket-Protocol names"),
            (response(&format!("{good}\r\nSec-WebSocket-Protocol: \u{e9}")), "Sec-WebSocket-Protocol names"),
            (response(&format!("{good}\r\nSec-WebSocket-Accept: x")), "Sec-WebSocket-Accept does not fit"),
            (response(good).replace("s3pP", "s3pp"), "Sec-WebSocket-Accept does not fit"),
            (response(good).replace("Sec-WebSocket-Accept", "X"), "Sec-WebSocket-Accept does not fit"),
            (response(good).replace("1.1 101", "1.0 101"), "not HTTP/1.1"),
            (response(good).replace("101", "204"), "not 101"),
            (response(good).replace("HTTP/1.1", "SSH"), "not HTTP"),
        ];
        for (head, reason) in cases {
            assert!(refusal(&head).is_some_and(|refusal| refusal.contains(reason)), "{head}");
        }
    }

    #[test]
    fn every_prefix_of_a_response_waits_for_more() {
        let head = response("Upgrade: websocket\r\nConnection: Upgrade");
        for end in 0..head.len() {
            assert!(matches!(check(&head.as_bytes()[..end], ACCEPT), Ok(None)), "{end}");
        }
        let with_frames = format!("{head}frames");
        assert!(matches!(check(with_frames.as_bytes(), ACCEPT), Ok(Some(length)) if length == head.len()));
    }
}
