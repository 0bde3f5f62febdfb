//! The link against real sockets: the test itself is the peer, the link's thread the other side.

mod close;
mod dial;
mod idle;
mod reconnect;
mod session;
mod tls;
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use oz_agent_worker::control_plane::ws::{Epoch, Link, LinkConfig, LinkError, LinkEvent, Outbound, Timing};
use oz_agent_worker::protocol::{EncodedReport, FailureReason, Incoming, Outgoing, Report};
use oz_agent_worker::secret::Secret;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use tungstenite::handshake::derive_accept_key;
use tungstenite::{Message, WebSocket};

/// Far more than anything takes; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A listener, and the URL that leads to it.
pub(crate) fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws?worker_id=w", listener.local_addr().unwrap());
    (listener, url)
}

/// The next TCP connection.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec::try_from(PATIENCE).unwrap())).unwrap();
    assert_eq!(ready, 1, "nobody dials");
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// The next WebSocket.
pub(crate) fn accept_ws(listener: &TcpListener) -> WebSocket<TcpStream> {
    tungstenite::accept(accept(listener)).unwrap()
}

/// The head of the request on a raw connection.
pub(crate) fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The answer that upgrades.
pub(crate) fn switching(request: &str) -> String {
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

/// Upgrades a raw connection, so that the test can write what bytes it likes.
pub(crate) fn accept_raw(listener: &TcpListener) -> TcpStream {
    let mut stream = accept(listener);
    let answer = switching(&request(&mut stream));
    stream.write_all(answer.as_bytes()).unwrap();
    stream
}

/// Timing for a test in which nothing is to run out.
pub(crate) fn calm() -> Timing {
    Timing { backoff_min: millis(10), backoff_max: millis(10), ..Timing::default() }
}

/// A link, and what it tells.
pub(crate) struct Running {
    pub(crate) link: Link,
    pub(crate) events: Receiver<LinkEvent>,
}

pub(crate) fn config(url: &str, timing: Timing) -> LinkConfig {
    let (url, api_key) = (url.parse().unwrap(), Secret::new("k3y"));
    LinkConfig { url, api_key, worker_id: "w".into(), max_attempts: 0, window: Duration::ZERO, timing }
}

pub(crate) fn start_with(config: LinkConfig) -> Running {
    let (sender, events) = bounded(4);
    Running { link: Link::start(config, sender).unwrap(), events }
}

pub(crate) fn start(url: &str, timing: Timing) -> Running {
    start_with(config(url, timing))
}

/// A link that may try `attempts` times.
pub(crate) fn start_limited(url: &str, timing: Timing, attempts: u32) -> Running {
    start_with(LinkConfig { max_attempts: attempts, ..config(url, timing) })
}

impl Running {
    pub(crate) fn next(&self) -> LinkEvent {
        self.events.recv_timeout(PATIENCE).expect("no event")
    }

    pub(crate) fn up(&self) -> Epoch {
        match self.next() {
            LinkEvent::Up { epoch } => epoch,
            other => panic!("not up but {other:?}"),
        }
    }

    pub(crate) fn down(&self) -> String {
        match self.next() {
            LinkEvent::Down { why } => why,
            other => panic!("not down but {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self.next() {
            LinkEvent::Message(Ok(Incoming::Unknown { kind })) => kind,
            other => panic!("no message but {other:?}"),
        }
    }

    pub(crate) fn confirmed(&self) -> u64 {
        match self.next() {
            LinkEvent::Confirmed { seq } => seq,
            other => panic!("no confirmation but {other:?}"),
        }
    }

    /// The fatal error; the thread has then ended.
    pub(crate) fn fatal(mut self) -> LinkError {
        loop {
            match self.next() {
                LinkEvent::Fatal(error) => {
                    assert!(self.ended());
                    return error;
                }
                LinkEvent::Up { .. } | LinkEvent::Failed | LinkEvent::Down { .. } => {}
                other => panic!("nothing fatal but {other:?}"),
            }
        }
    }

    pub(crate) fn send(&self, epoch: Epoch, seq: Option<u64>, text: &str) {
        self.link.send(Outbound { epoch, seq, message: report(text) }).unwrap();
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.link.join(Instant::now() + PATIENCE)
    }
}

/// A message of the control plane that carries `text`, and that the worker does not know.
pub(crate) fn message(text: &str) -> String {
    json!({ "type": text }).to_string()
}

/// A report of the worker with `text` as its output.
pub(crate) fn report(text: &str) -> Outgoing {
    let report = Report { output: text.to_owned(), ..Report::failed("t", FailureReason::Internal, "") };
    Outgoing::Report(Arc::new(EncodedReport::new(report, "w")))
}

/// The output of the next [`report`] that the link sends, past its pings.
pub(crate) fn next_text<S: Read + Write>(peer: &mut WebSocket<S>) -> String {
    let report: Value = serde_json::from_str(&next_frame(peer)).unwrap();
    report["data"]["output"].as_str().unwrap_or_default().to_owned()
}

/// The next text frame that the link sends, past its pings.
pub(crate) fn next_frame<S: Read + Write>(peer: &mut WebSocket<S>) -> String {
    loop {
        match peer.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) => {}
            other => panic!("no text but {other:?}"),
        }
    }
}

/// The code of the link's close frame, past whatever comes before it.
pub(crate) fn close_code<S: Read + Write>(peer: &mut WebSocket<S>) -> u16 {
    loop {
        match peer.read().unwrap() {
            Message::Close(frame) => return frame.expect("a close frame with a code").code.into(),
            Message::Text(_) | Message::Ping(_) => {}
            other => panic!("no close but {other:?}"),
        }
    }
}

/// Whether the link ends the TCP connection.
pub(crate) fn hangs_up(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Runs an ignored test of this binary alone, with variables that belong to a whole process.
pub(crate) fn in_a_process_of_its_own(test: &str, variables: &[(&str, PathBuf)]) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && told.contains("1 passed");
    assert!(passed, "{told}\n{}", String::from_utf8_lossy(&output.stderr));
}
