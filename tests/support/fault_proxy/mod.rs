//! A TCP proxy that injects network faults: delays, packets split and joined at any byte, half-open connections, and
//! connections that end at a given byte.
//!
//! Connections are numbered from 1.

mod connection;
mod socket;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use connection::Connection;
use socket::Socket;

pub use connection::{Cut, Direction, Jitter};

/// The proxy. Dropping it stops the listener; open connections end with their peers.
pub struct FaultProxy {
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
    connections: Vec<Arc<Connection>>,
    /// The byte limit of each of the next connections.
    limits: std::vec::IntoIter<u64>,
    /// The byte limit of every connection.
    held: Option<u64>,
    jitter: Option<Jitter>,
    stopping: bool,
}

impl FaultProxy {
    /// Forwards to `host` (`unix:///path` or `tcp://host:port`) without faults.
    pub fn to(host: &str) -> Self {
        Self::start(host, Vec::new(), None, None)
    }

    /// Accepts connections but forwards nothing until [`FaultProxy::open`].
    pub fn held(host: &str) -> Self {
        Self::held_after(host, 0)
    }

    /// Forwards `bytes` bytes of each connection, both directions together, and the rest after [`FaultProxy::open`].
    pub fn held_after(host: &str, bytes: u64) -> Self {
        Self::start(host, Vec::new(), Some(bytes), None)
    }

    /// Splits, joins and delays everything. Each of the first connections stops after the next number of bytes in
    /// `limits`, both directions together; later connections do not stop. [`FaultProxy::cut`] or [`FaultProxy::resume`]
    /// decides what happens to a stopped connection.
    pub fn seeded(host: &str, limits: Vec<u64>, jitter: Jitter) -> Self {
        Self::start(host, limits, None, Some(jitter))
    }

    fn start(host: &str, limits: Vec<u64>, held: Option<u64>, jitter: Option<Jitter>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let limits = limits.into_iter();
        let state = State { connections: Vec::new(), limits, held, jitter, stopping: false };
        let shared =
            Arc::new(Shared { target: host.to_owned(), state: Mutex::new(state), changed: Condvar::new() });
        let clone = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || clone.accept(&listener));
        Self { address, shared, acceptor: Some(acceptor) }
    }

    /// Returns its address for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// Returns `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Returns how many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Returns how many connections are stopped at their limit.
    pub fn stopped(&self) -> usize {
        self.shared.lock().connections.iter().filter(|connection| connection.is_stopped()).count()
    }

    /// Lifts the limits of all connections, present and future.
    pub fn open(&self) {
        let mut state = self.shared.lock();
        state.held = None;
        state.limits = Vec::new().into_iter();
        state.connections.iter().for_each(|connection| connection.resume());
    }

    /// Waits until a connection was made and has stopped at its limit or ended. Returns `false` after `deadline`.
    pub fn wait_stopped(&self, number: usize, deadline: Duration) -> bool {
        let end = Instant::now() + deadline;
        self.shared.wait_connection(number, end).is_some_and(|connection| connection.wait_stopped(end))
    }

    /// Lifts the limit of a connection.
    pub fn resume(&self, number: usize) {
        self.shared.connection(number).resume();
    }

    /// Discards everything in this direction from now on. The connection stays open.
    pub fn swallow(&self, number: usize, direction: Direction) {
        self.shared.connection(number).swallow(direction);
    }

    /// Ends a connection for both peers.
    pub fn cut(&self, number: usize, cut: Cut) {
        self.shared.connection(number).cut(cut);
    }

    /// Ends a connection only for the peer that receives in `direction`. The other peer keeps an open connection, on
    /// which everything is discarded.
    pub fn cut_one_end(&self, number: usize, direction: Direction, cut: Cut) {
        self.shared.connection(number).cut_one_end(direction, cut);
    }

    /// Returns how many bytes have passed on a connection, discarded bytes included.
    pub fn passed(&self, number: usize) -> u64 {
        self.shared.connection(number).passed()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, listener: &TcpListener) {
        while let Ok((client, _)) = listener.accept() {
            if self.lock().stopping {
                return;
            }
            // If the target refuses, the client's connection is closed.
            if let Ok(target) = Socket::connect(&self.target) {
                self.join(Socket::tcp(client), target);
            }
        }
    }

    fn join(&self, client: Socket, target: Socket) {
        let mut state = self.lock();
        let limit = state.held.or_else(|| state.limits.next());
        let jitter = state.jitter.as_mut().map(Jitter::fork);
        state.connections.push(Connection::start(client, target, limit, jitter));
        self.changed.notify_all();
    }

    fn connection(&self, number: usize) -> Arc<Connection> {
        let found = self.lock().connections.get(number - 1).cloned();
        found.unwrap_or_else(|| panic!("no connection {number}"))
    }

    fn wait_connection(&self, number: usize, end: Instant) -> Option<Arc<Connection>> {
        let left = end.saturating_duration_since(Instant::now());
        let missing = |state: &mut State| state.connections.len() < number;
        let waited = self.changed.wait_timeout_while(self.lock(), left, missing);
        waited.unwrap_or_else(PoisonError::into_inner).0.connections.get(number - 1).cloned()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.open();
        // Wakes the acceptor.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
