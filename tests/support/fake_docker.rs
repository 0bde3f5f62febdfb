//! A fake engine that follows scripts: the first script for the first connection, and so on.
//!
//! It reads and records the head of the request, and then executes the steps. Dropping it ends everything.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use oz_agent_worker::docker::{ApiVersion, Docker, Endpoint, Error, Negotiated, Timeouts};
use oz_agent_worker::sys::cancel::CancelToken;

/// How long a test waits for an expected event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Connects a client as a worker does.
pub(crate) fn client(
    cancel: &CancelToken,
    endpoint: Endpoint,
    pin: Option<ApiVersion>,
) -> Result<Docker, Error> {
    client_with(cancel, endpoint, pin, Timeouts::default())
}

/// As [`client`], with other deadlines.
pub(crate) fn client_with(
    cancel: &CancelToken,
    endpoint: Endpoint,
    pin: Option<ApiVersion>,
    timeouts: Timeouts,
) -> Result<Docker, Error> {
    Negotiated::new(cancel, endpoint, pin, timeouts)?.connect(cancel)
}

/// One step of the engine on a connection.
pub(crate) enum Step {
    /// Sends these bytes; ignores errors, because the client may have disconnected.
    Write(Vec<u8>),
    /// Reads the request's body, up to its length, its last chunk or the end of the connection.
    ReadBody,
    /// Tells the test that the script has reached this step.
    Tell(Sender<()>),
    /// Waits for the test.
    Await(Receiver<()>),
    /// Sleeps.
    Pause(Duration),
    /// Keeps the connection open and silent until the fake is dropped.
    Stall,
    /// Shuts down the engine's direction only.
    HalfClose,
}

pub(crate) type Script = Vec<Step>;

/// The request of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// The request line and the headers, including the empty line.
    pub(crate) head: String,
    /// The body with its framing.
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

pub(crate) struct FakeDocker {
    endpoint: Endpoint,
    dir: PathBuf,
    /// Each with the number of its connection, because they may end in another order.
    requests: Receiver<(usize, Recorded)>,
    early: RefCell<BTreeMap<usize, Recorded>>,
    asked: Cell<usize>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeDocker {
    /// Listens on a Unix socket.
    pub(crate) fn start(scripts: Vec<Script>) -> Self {
        let dir = temp_dir();
        let path = dir.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let accept = move || listener.accept().map(|(stream, _)| stream);
        Self::serve(Endpoint::Unix(path), dir, scripts, accept)
    }

    /// Listens on a loopback port.
    pub(crate) fn start_tcp(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let accept = move || listener.accept().map(|(stream, _)| stream);
        Self::serve(Endpoint::Tcp { host: "localhost".to_owned(), port }, temp_dir(), scripts, accept)
    }

    /// Answers the requests of a connecting client, and then follows the scripts.
    pub(crate) fn connected(scripts: Vec<Script>, timeouts: Timeouts) -> (Self, Docker) {
        let fake = Self::start(hello("1.41").into_iter().chain(scripts).collect());
        let docker = client_with(&CancelToken::new(), fake.endpoint(), None, timeouts).unwrap();
        for _ in 0..3 {
            fake.request();
        }
        (fake, docker)
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Returns the request of the next connection, once its script has finished.
    pub(crate) fn request(&self) -> Recorded {
        let number = self.asked.replace(self.asked.get() + 1);
        loop {
            if let Some(recorded) = self.early.borrow_mut().remove(&number) {
                return recorded;
            }
            let (ended, recorded) = self.requests.recv_timeout(PATIENCE).expect("no request was served");
            self.early.borrow_mut().insert(ended, recorded);
        }
    }

    /// Whether there are no requests except those returned by [`FakeDocker::request`].
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.is_empty() && self.early.borrow().is_empty()
    }

    fn serve<S: Read + Write + AsFd + Send + 'static>(
        endpoint: Endpoint,
        dir: PathBuf,
        scripts: Vec<Script>,
        accept: impl Fn() -> io::Result<S> + Send + 'static,
    ) -> Self {
        let (record, requests) = unbounded();
        let (stop, stopped) = unbounded();
        let thread = std::thread::spawn(move || {
            let mut served = Vec::new();
            for (number, script) in scripts.into_iter().enumerate() {
                let Ok(stream) = accept() else { break };
                if is_over(&stopped) {
                    break;
                }
                let (record, stopped) = (record.clone(), stopped.clone());
                served.push(std::thread::spawn(move || {
                    if let Ok(recorded) = converse(stream, script, &stopped) {
                        let _ = record.send((number, recorded));
                    }
                }));
            }
            for thread in served {
                let _ = thread.join();
            }
        });
        let (early, asked) = (RefCell::default(), Cell::default());
        Self { endpoint, dir, requests, early, asked, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.stop = None;
        // Wakes the acceptor.
        match &self.endpoint {
            Endpoint::Unix(path) => drop(UnixStream::connect(path)),
            Endpoint::Proxied { .. } => unreachable!("it has no proxy"),
            Endpoint::Tcp { port, .. } | Endpoint::Tls { port, .. } => {
                drop(std::net::TcpStream::connect(("127.0.0.1", *port)));
            }
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Returns the answers to the ping, `/version` and `/info` of a connecting client.
pub(crate) fn hello(api_version: &str) -> Vec<Script> {
    hello_from(api_version, "linux", "amd64")
}

/// As [`hello`], from an engine for this platform.
pub(crate) fn hello_from(api_version: &str, os: &str, arch: &str) -> Vec<Script> {
    let ping =
        format!("HTTP/1.1 200 OK\r\nApi-Version: {api_version}\r\nOstype: {os}\r\nContent-Length: 2\r\n\r\n");
    let version = json(200, &format!(r#"{{"Version":"20.10.24","Os":"{os}","Arch":"{arch}"}}"#));
    let info = json(200, r#"{"NCPU":4,"MemTotal":1024}"#);
    vec![vec![write(&ping)], vec![version], vec![info]]
}

/// Returns a complete answer.
pub(crate) fn json(status: u16, body: &str) -> Step {
    write(&format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

pub(crate) fn write(text: &str) -> Step {
    Step::Write(text.as_bytes().to_vec())
}

/// Creates a folder whose path is short enough for a socket.
pub(crate) fn temp_dir() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("oz-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
    let dir = Path::new("/tmp").join(name);
    std::fs::create_dir(&dir).unwrap();
    dir
}

fn is_over(stopped: &Receiver<()>) -> bool {
    matches!(stopped.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
}

fn converse<S: Read + Write + AsFd>(
    mut stream: S,
    script: Script,
    stopped: &Receiver<()>,
) -> io::Result<Recorded> {
    let mut recorded = Recorded { head: read_head(&mut stream)?, body: Vec::new() };
    for step in script {
        match step {
            Step::Write(bytes) => {
                let _ = stream.write_all(&bytes);
            }
            Step::ReadBody => read_body(&mut stream, &mut recorded)?,
            Step::Tell(to) => drop(to.send(())),
            Step::Await(from) => {
                crossbeam_channel::select! { recv(from) -> _ => {}, recv(stopped) -> _ => {} }
            }
            Step::Pause(time) => drop(stopped.recv_timeout(time)),
            Step::Stall => drop(stopped.recv()),
            Step::HalfClose => rustix::net::shutdown(&stream, rustix::net::Shutdown::Write)?,
        }
    }
    Ok(recorded)
}

/// Reads byte by byte, so that the body is not touched.
fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn read_body(stream: &mut impl Read, recorded: &mut Recorded) -> io::Result<()> {
    let length = recorded.head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: Option<usize> = length.map(|length| length.parse().unwrap());
    let mut buffer = [0; 4096];
    let whole = |body: &[u8]| match length {
        Some(length) => body.len() >= length,
        None => body == b"0\r\n\r\n" || body.ends_with(b"\r\n0\r\n\r\n"),
    };
    while !whole(&recorded.body) {
        match stream.read(&mut buffer)? {
            0 => break,
            n => recorded.body.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(())
}
