//! The listener: reads a request's head, checks the key of a handshake, and passes the connection to the WebSocket or the
//! REST part.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tungstenite::handshake::derive_accept_key;

use super::{Shared, rest, socket};

/// The path of the WebSocket.
pub const WS_PATH: &str = "/api/v1/selfhosted/worker/ws";
const MAX_HEAD: usize = 64 << 10;

/// A request's head, and the bytes read after it.
pub struct Request {
    /// `GET` and the like.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The query without the `?`, or empty.
    pub query: String,
    /// The names are in lower case.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body or of the WebSocket frames.
    pub early: Vec<u8>,
}

/// The result of checking the bearer key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// No key.
    Missing,
    /// Not the admin key.
    Wrong,
    /// The admin key.
    Admin,
}

impl Request {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether a header has this value, in any case.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// Checks the request's key.
    pub fn key(&self, expected: &str) -> Key {
        match self.header("authorization").and_then(|value| value.strip_prefix("Bearer ")) {
            None => Key::Missing,
            Some(key) if key == expected => Key::Admin,
            Some(_) => Key::Wrong,
        }
    }

    fn worker_id(&self) -> Option<String> {
        let value = self.query.split('&').find_map(|pair| pair.strip_prefix("worker_id="))?;
        percent_decode(value).filter(|id| !id.trim().is_empty())
    }
}

/// Accepts until the control plane stops, with a thread for each connection.
pub fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    while shared.readable(listener) {
        let Ok((stream, _)) = listener.accept() else { continue };
        let clone = Arc::clone(shared);
        let thread = std::thread::spawn(move || connection(&clone, stream));
        let mut threads = shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // A finished thread keeps its stack until it is joined.
        for ended in threads.extract_if(.., |thread| thread.is_finished()) {
            ended.join().expect("a connection's thread does not panic");
        }
        threads.push(thread);
    }
}

fn connection(shared: &Shared, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    while let Some(request) = read_head(shared, &mut stream) {
        if request.has("upgrade", "websocket") {
            return upgrade(shared, stream, &request);
        }
        if rest::serve(shared, &mut stream, &request).is_none() {
            return;
        }
    }
}

fn read_head(shared: &Shared, stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_HEAD {
        let mut chunk = [0; 4096];
        if !shared.readable(stream) {
            return None;
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(request) = parse_head(&bytes)? {
            return Some(request);
        }
    }
    None
}

/// Returns `None` if it is not HTTP, and `Some(None)` if it is incomplete.
fn parse_head(bytes: &[u8]) -> Option<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes).ok()? {
        httparse::Status::Partial => return Some(None),
        httparse::Status::Complete(length) => length,
    };
    let (path, query) = head.path?.split_once('?').unwrap_or((head.path?, ""));
    let pair = |header: &httparse::Header<'_>| {
        (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
    };
    Some(Some(Request {
        method: head.method?.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: head.headers.iter().map(pair).collect(),
        early: bytes[length..].to_vec(),
    }))
}

fn upgrade(shared: &Shared, mut stream: TcpStream, request: &Request) {
    let (key, refuse) = shared.update(|model| {
        model.attempts += 1;
        (request.key(&model.options().key), model.refuse)
    });
    let status = match (refuse, key) {
        (Some(status), _) => Some(status),
        _ if request.path != WS_PATH => {
            // Never answered, as by the real one: the connection stays open until the client closes it.
            while shared.readable(&stream) && matches!(stream.read(&mut [0; 64]), Ok(1..)) {}
            return;
        }
        (None, Key::Missing) => Some(401),
        (None, Key::Wrong) => Some(403),
        (None, Key::Admin) => None,
    };
    let (worker, nonce) = (request.worker_id(), request.header("sec-websocket-key"));
    match (status, worker, nonce) {
        // A status line without headers.
        (Some(status), ..) => drop(stream.write_all(format!("HTTP/1.1 {status} Refused\r\n\r\n").as_bytes())),
        (None, Some(worker), Some(nonce)) => {
            let accept = derive_accept_key(nonce.as_bytes());
            let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade";
            let answer = format!("{head}\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
            let capabilities = request.header("x-warp-worker-capabilities").unwrap_or_default();
            let client = socket::Client { worker: &worker, capabilities };
            socket::serve(shared, stream, &answer, request.early.clone(), &client);
        }
        _ => {
            shared.update(|model| model.violations.push("a handshake without worker_id or nonce".to_owned()));
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    }
}

impl Shared {
    /// Waits for `time`. Returns `false` if the control plane stops.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut model = self.lock();
        while !model.stopping {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            model = self.changed.wait_timeout(model, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Waits until `fd` is readable. Returns `false` if the control plane stops.
    pub(super) fn readable(&self, fd: &impl AsFd) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(fd, PollFlags::IN)];
        while poll(&mut fds, None).is_err() {}
        fds[0].revents().is_empty()
    }
}

pub(super) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            // The real one decodes a plus in a query as a space.
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}
