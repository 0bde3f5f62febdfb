//! The link over real sockets. Each test is the peer.

mod close;
mod dial;
mod hostile;
mod idle;
mod reconnect;
mod session;
mod tls;
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use oz_agent_worker::control_plane::Network;
use oz_agent_worker::control_plane::key::ApiKey;
use oz_agent_worker::control_plane::ws::{
    Epoch, Link, LinkConfig, LinkError, LinkEvent, Outbound, Refused, Timing,
};
use oz_agent_worker::protocol::{
    Dialect, EncodedReport, ExecutionKey, FailureReason, Incoming, Outgoing, Report,
};
use oz_agent_worker::secret::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;
use tungstenite::{Message, WebSocket};

use crate::support::peer::Peer;

/// A test that waits this long has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns a listener and its URL.
pub(crate) fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws?worker_id=w", listener.local_addr().unwrap());
    (listener, url)
}

/// Returns the next TCP connection.
pub(crate) fn accept(listener: &TcpListener) -> Peer {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec::try_from(TIMEOUT).unwrap())).unwrap();
    assert_eq!(ready, 1, "no connection came");
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    Peer(stream)
}

/// Returns the next WebSocket.
pub(crate) fn accept_ws(listener: &TcpListener) -> WebSocket<Peer> {
    tungstenite::accept(accept(listener)).unwrap()
}

/// Reads the head of a request.
pub(crate) fn request(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Returns the response that accepts the upgrade.
pub(crate) fn upgrade_response(request: &str) -> String {
    let key = request
        .lines()
        .find_map(|line| {
            line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        })
        .unwrap()
        .1;
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Accepts the upgrade on a raw connection, so that the test can write any bytes.
pub(crate) fn accept_raw(listener: &TcpListener) -> Peer {
    let mut stream = accept(listener);
    let answer = upgrade_response(&request(&mut stream));
    stream.write_all(answer.as_bytes()).unwrap();
    stream
}

/// The default deadlines, with a wait of 10 ms between attempts.
pub(crate) fn fast_retry() -> Timing {
    let wait = millis(10);
    Timing { backoff_min: wait, backoff_max: wait, refused_max: wait, spread: wait, ..Timing::default() }
}

/// A link and its events.
pub(crate) struct Running {
    pub(crate) link: Link,
    pub(crate) events: Receiver<LinkEvent>,
}

pub(crate) fn api_key(key: &str) -> ApiKey {
    ApiKey::new(Secret::new(key)).unwrap()
}

pub(crate) fn config(url: &str, timing: Timing) -> LinkConfig {
    let (url, api_key) = (url.parse().unwrap(), api_key("k3y"));
    let (worker_id, window, network) = ("w".into(), Duration::ZERO, Network::default());
    LinkConfig { url, api_key, worker_id, max_attempts: 0, window, timing, network }
}

pub(crate) fn start_with(config: LinkConfig) -> Running {
    let (sender, events) = bounded(4);
    let link = Link::start(config, sender).unwrap();
    link.allow_upgrade();
    Running { link, events }
}

pub(crate) fn start(url: &str, timing: Timing) -> Running {
    start_with(config(url, timing))
}

/// Starts a link that gives up after this number of failed attempts.
pub(crate) fn start_limited(url: &str, timing: Timing, attempts: u32) -> Running {
    start_with(LinkConfig { max_attempts: attempts, ..config(url, timing) })
}

impl Running {
    pub(crate) fn next(&self) -> LinkEvent {
        let event = self.events.recv_timeout(TIMEOUT).expect("no event");
        if let LinkEvent::Message { bytes, .. } = &event {
            self.link.taken(*bytes);
        }
        event
    }

    pub(crate) fn up(&self) -> Epoch {
        match self.next() {
            LinkEvent::Up { epoch } => epoch,
            other => panic!("not Up but {other:?}"),
        }
    }

    /// Returns the next refusal, skipping other failures.
    pub(crate) fn refused(&self) -> Refused {
        loop {
            match self.next() {
                LinkEvent::Refused(refused) => return refused,
                LinkEvent::Failed => {}
                other => panic!("not Refused but {other:?}"),
            }
        }
    }

    pub(crate) fn down(&self) -> String {
        match self.next() {
            LinkEvent::Down { reason } => reason,
            other => panic!("not Down but {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self.next() {
            LinkEvent::Message { message: Ok(Incoming::Unknown { kind }), .. } => kind,
            other => panic!("not Message but {other:?}"),
        }
    }

    pub(crate) fn confirmed(&self) -> u64 {
        match self.next() {
            LinkEvent::Confirmed { seq } => seq,
            other => panic!("not Confirmed but {other:?}"),
        }
    }

    /// Returns the fatal error, after the thread has ended.
    pub(crate) fn fatal(mut self) -> LinkError {
        loop {
            match self.next() {
                LinkEvent::Fatal(error) => {
                    assert!(self.ended());
                    return error;
                }
                LinkEvent::Up { .. } | LinkEvent::Failed | LinkEvent::Refused(_) | LinkEvent::Down { .. } => {
                }
                other => panic!("not Fatal but {other:?}"),
            }
        }
    }

    pub(crate) fn send(&self, epoch: Epoch, seq: Option<u64>, text: &str) {
        self.send_message(epoch, seq, report(text));
    }

    pub(crate) fn send_message(&self, epoch: Epoch, seq: Option<u64>, message: Outgoing) {
        self.link.send(Outbound { epoch, seq, message }).unwrap();
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.link.join(Instant::now() + TIMEOUT)
    }
}

/// Returns the header of a server's frame with this first byte and a long length.
pub(crate) fn header(first: u8, length: usize) -> Vec<u8> {
    [&[first, 127], &(length as u64).to_be_bytes()[..]].concat()
}

/// Returns a message of the unknown type `text`.
pub(crate) fn message(text: &str) -> String {
    json!({ "type": text }).to_string()
}

/// Returns a report with `text` as its output.
pub(crate) fn report(text: &str) -> Outgoing {
    let report = Report {
        output: text.to_owned(),
        ..Report::failed(&ExecutionKey::new("t", None), Dialect::Old, FailureReason::Internal, "")
    };
    Outgoing::Report(Arc::new(EncodedReport::new(report, "w")))
}

/// Returns the output in an encoded [`report`].
pub(crate) fn output(report: &str) -> String {
    let report: Value = serde_json::from_str(report).unwrap();
    report["data"]["output"].as_str().unwrap_or_default().to_owned()
}

/// Returns the output of the next [`report`] from the link, skipping pings.
pub(crate) fn next_output<S: Read + Write>(peer: &mut WebSocket<S>) -> String {
    output(&next_text(peer))
}

/// Returns the next text from the link, skipping pings.
pub(crate) fn next_text<S: Read + Write>(peer: &mut WebSocket<S>) -> String {
    loop {
        match peer.read().unwrap() {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) => {}
            other => panic!("no text but {other:?}"),
        }
    }
}

/// Returns the code of the link's close frame, skipping texts and pings.
pub(crate) fn close_code<S: Read + Write>(peer: &mut WebSocket<S>) -> u16 {
    loop {
        match peer.read().unwrap() {
            Message::Close(frame) => return frame.expect("the close frame has no code").code.into(),
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("no close but {other:?}"),
        }
    }
}

/// Reads to the end; returns whether the link closed the TCP connection.
pub(crate) fn hangs_up(stream: &mut impl Read) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Runs an ignored test of this binary in a separate process, with these environment variables.
pub(crate) fn in_own_process(test: &str, variables: &[(&str, PathBuf)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && stdout.contains("1 passed");
    assert!(passed, "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
}
