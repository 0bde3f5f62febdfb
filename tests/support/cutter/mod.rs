//! A TCP port that leads to another place and does to its connections what networks do: delays, splits and joins at any
//! byte, half-open lines, ends in every manner, at a byte that the test has named before.
//!
//! A connection is called by its number; the first is 1. It must not know what goes over it.

mod line;
mod socket;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use line::Line;
use socket::Socket;

pub use line::{Cut, Manner, Way};

/// More connections than any test makes.
const STOPPING: usize = 4096;

/// The port; dropping it ends the listening, and its connections end with those who made them.
pub struct Cutter {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    lines: Vec<Arc<Line>>,
    /// After how many bytes each of the next connections stops.
    limits: std::vec::IntoIter<u64>,
    /// Every connection stops at its first byte.
    held: bool,
    manner: Option<Manner>,
    over: bool,
}

impl Cutter {
    /// To this address, `unix:///path` or `tcp://host:port`; everything goes through as it comes.
    pub fn to(host: &str) -> Self {
        Self::start(host, Vec::new(), false, None)
    }

    /// The same, but until [`Cutter::open`] connections are taken and nothing that comes on them goes on.
    pub fn held(host: &str) -> Self {
        Self::start(host, Vec::new(), true, None)
    }

    /// Each connection stops after so many bytes of both directions, until [`Cutter::open`].
    pub fn stopping(host: &str, bytes: u64) -> Self {
        Self::start(host, vec![bytes; STOPPING], false, None)
    }

    /// Everything is split, joined and delayed. The first connection stops after so many bytes of both directions as
    /// the first of `limits` says, and so on; the later ones do not. What is to become of one that has stopped is said by
    /// [`Cutter::cut`] or [`Cutter::go_on`].
    pub fn seeded(host: &str, limits: Vec<u64>, manner: Manner) -> Self {
        Self::start(host, limits, false, Some(manner))
    }

    fn start(host: &str, limits: Vec<u64>, held: bool, manner: Option<Manner>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { lines: Vec::new(), limits: limits.into_iter(), held, manner, over: false };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = Arc::new(Shared { target: host.to_owned(), state, changed });
        let clone = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || clone.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// For `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How many connections have been made.
    pub fn connections(&self) -> usize {
        self.shared.lock().lines.len()
    }

    /// Lets everything through, on the connections of now and later.
    pub fn open(&self) {
        let mut state = self.shared.lock();
        (state.held, state.limits) = (false, Vec::new().into_iter());
        state.lines.iter().for_each(|line| line.go_on());
    }

    /// Waits until a connection has come and has stopped (or has ended by itself); `false` when the deadline passes.
    pub fn stops(&self, number: usize, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        self.shared.line_by(number, end).is_some_and(|line| line.stops_by(end))
    }

    /// Lets a connection that has stopped go on.
    pub fn go_on(&self, number: usize) {
        self.shared.line(number).go_on();
    }

    /// From now on nothing of what goes this way arrives. The connection stays open.
    pub fn swallow(&self, number: usize, way: Way) {
        self.shared.line(number).swallow(way);
    }

    /// Ends a connection on both sides.
    pub fn cut(&self, number: usize, how: Cut) {
        self.shared.line(number).cut(how);
    }

    /// Ends a connection for those only to whom bytes of this way go. The others are not told: they stay connected to nobody.
    pub fn cut_end(&self, number: usize, way: Way, how: Cut) {
        self.shared.line(number).cut_end(way, how);
    }

    /// How many bytes have come over a connection, those that were swallowed included.
    pub fn passed(&self, number: usize) -> u64 {
        self.shared.line(number).passed()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &TcpListener) {
        while let Ok((near, _)) = listener.accept() {
            if self.lock().over {
                return;
            }
            // A place that takes nobody ends the connection.
            if let Ok(far) = Socket::dial(&self.target) {
                self.join(Socket::tcp(near), far);
            }
        }
    }

    fn join(&self, near: Socket, far: Socket) {
        let mut state = self.lock();
        let limit = if state.held { Some(0) } else { state.limits.next() };
        let manner = state.manner.as_mut().map(Manner::split);
        state.lines.push(Line::start(near, far, limit, manner));
        self.changed.notify_all();
    }

    fn line(&self, number: usize) -> Arc<Line> {
        self.lock().lines.get(number - 1).cloned().unwrap_or_else(|| panic!("no connection {number}"))
    }

    fn line_by(&self, number: usize, end: Instant) -> Option<Arc<Line>> {
        let left = end.saturating_duration_since(Instant::now());
        let missing = |state: &mut State| state.lines.len() < number;
        let waited = self.changed.wait_timeout_while(self.lock(), left, missing);
        waited.unwrap_or_else(PoisonError::into_inner).0.lines.get(number - 1).cloned()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.open();
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
