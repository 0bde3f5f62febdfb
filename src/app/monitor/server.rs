//! The server of the monitoring pages: one thread, which waits in poll(2) for all its clients.
//!
//! Nothing that a client does can hurt the worker: the number of connections, the bytes of a request, the time of an exchange and the
//! connections per second are bounded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{PollFd, PollFlags};

use super::http::{Answer, Asked, MAX_HEAD, Parsed, parse};
use crate::logging::value;
use crate::net::poll::poll;

/// The most connections. A further one ends the oldest.
const MAX_CONNECTIONS: usize = 32;
/// The longest time from the acceptance of a connection to its end.
const EXCHANGE: Duration = Duration::from_secs(5);
/// The most bytes that are read after the answer.
const MAX_DRAINED: usize = 64 * 1024;
/// The most connections that are accepted in each [`RATE_WINDOW`].
const RATE: usize = 50;
const RATE_WINDOW: Duration = Duration::from_millis(250);
/// How long to wait before another attempt to listen, or to accept after an error.
const RETRY_LISTEN: Duration = Duration::from_secs(30);
const RETRY_ACCEPT: Duration = Duration::from_secs(1);

/// Where the pages are served.
pub(super) struct Server {
    address: SocketAddr,
    /// `None` while the address is in use.
    listener: Option<TcpListener>,
    /// How long to wait before another attempt to listen.
    retry: Duration,
    /// When to listen, or to accept, again.
    paused_until: Option<Instant>,
    /// The begin of the present window, and the connections accepted in it.
    window: (Instant, usize),
    /// The oldest first.
    connections: Vec<Connection>,
}

/// One exchange.
struct Connection {
    socket: TcpStream,
    until: Instant,
    /// Both ends have loopback addresses.
    is_loopback: bool,
    input: Vec<u8>,
    step: Step,
}

enum Step {
    Reading,
    /// The answer, and how much of it is sent.
    Writing(Vec<u8>, usize),
    /// The answer is sent. With unread bytes the kernel would reset the connection, and the client might not get the answer.
    Draining {
        bytes: usize,
    },
    Done,
}

impl Server {
    /// Returns a server that listens. If the address is in use, logs that, and tries again later.
    ///
    /// # Errors
    /// The address cannot be used.
    pub(super) fn new(address: SocketAddr) -> io::Result<Self> {
        Self::with_retry(address, RETRY_LISTEN)
    }

    fn with_retry(address: SocketAddr, retry: Duration) -> io::Result<Self> {
        let now = Instant::now();
        let (window, connections) = ((now, 0), Vec::new());
        let mut server = Self { address, listener: None, retry, paused_until: None, window, connections };
        match server.listen() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => server.pause_listening(now, &error),
            Err(error) => return Err(error),
        }
        Ok(server)
    }

    /// Serves for as long as the process runs. `page` returns the answer for a client, which may be local.
    pub(super) fn run(mut self, mut page: impl FnMut(&Asked, bool) -> Answer) {
        loop {
            let now = Instant::now();
            if self.paused_until.is_some_and(|until| now >= until) {
                self.paused_until = None;
                if self.listener.is_none()
                    && let Err(error) = self.listen()
                {
                    self.pause_listening(now, &error);
                }
            }
            self.connections.retain(|connection| now < connection.until);
            let ready = self.wait(now);
            if ready.contains(&0) {
                self.accept();
            }
            for (place, connection) in self.connections.iter_mut().enumerate() {
                // A new connection is tried at once: its request has probably arrived.
                if ready.contains(&(place + 1)) || matches!(connection.step, Step::Reading) {
                    connection.go_on(&mut page);
                }
            }
            self.connections.retain(|connection| !matches!(connection.step, Step::Done));
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr().unwrap_or(self.address);
        info!("metrics listening address={address}");
        self.listener = Some(listener);
        Ok(())
    }

    fn pause_listening(&mut self, now: Instant, error: &io::Error) {
        let (retry, error) = (self.retry.as_secs(), error.to_string());
        warn!("metrics not served address={} retry_in={retry}s error={}", self.address, value(&error));
        self.paused_until = Some(now + self.retry);
    }

    /// Waits until something can be done. Returns the places that are ready: 0 is the listener, and 1 the first connection.
    fn wait(&mut self, now: Instant) -> Vec<usize> {
        let mut until = self.connections.iter().map(|connection| connection.until).min();
        until = until.into_iter().chain(self.paused_until).min();
        let mut fds = Vec::with_capacity(1 + self.connections.len());
        let listener = self.listener.as_ref().filter(|_| self.paused_until.is_none());
        fds.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        let first = 1 - fds.len();
        for connection in &self.connections {
            let writes = matches!(connection.step, Step::Writing(..));
            fds.push(PollFd::new(&connection.socket, if writes { PollFlags::OUT } else { PollFlags::IN }));
        }
        if poll(&mut fds, until.map(|until| until.saturating_duration_since(now))).is_err() {
            // Such as a lack of memory.
            self.paused_until = Some(now + RETRY_ACCEPT);
            return Vec::new();
        }
        let ready = fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty());
        ready.map(|(place, _)| place + first).collect()
    }

    fn accept(&mut self) {
        let now = Instant::now();
        if now >= self.window.0 + RATE_WINDOW {
            self.window = (now, 0);
        }
        while let Some(listener) = &self.listener {
            if self.window.1 >= RATE {
                self.paused_until = Some(self.window.0 + RATE_WINDOW);
                return;
            }
            match listener.accept() {
                Ok((socket, peer)) => {
                    self.window.1 += 1;
                    if self.connections.len() >= MAX_CONNECTIONS {
                        self.connections.remove(0);
                    }
                    self.connections.extend(Connection::new(socket, peer, now));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The client has gone.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => self.window.1 += 1,
                Err(_) => {
                    // Such as a lack of file descriptors. The client waits.
                    self.paused_until = Some(now + RETRY_ACCEPT);
                    return;
                }
            }
        }
    }
}

impl Connection {
    fn new(socket: TcpStream, peer: SocketAddr, now: Instant) -> Option<Self> {
        socket.set_nonblocking(true).ok()?;
        let local = socket.local_addr().ok()?;
        let is_loopback = is_loopback(&peer) && is_loopback(&local);
        Some(Self { socket, until: now + EXCHANGE, is_loopback, input: Vec::new(), step: Step::Reading })
    }

    /// Does what can be done without waiting.
    fn go_on(&mut self, page: &mut impl FnMut(&Asked, bool) -> Answer) {
        if let Err(error) = self.try_go_on(page)
            && error.kind() != ErrorKind::WouldBlock
        {
            self.step = Step::Done;
        }
    }

    fn try_go_on(&mut self, page: &mut impl FnMut(&Asked, bool) -> Answer) -> io::Result<()> {
        let mut buffer = [0; 4096];
        while matches!(self.step, Step::Reading) {
            let length = self.socket.read(&mut buffer)?;
            self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
            match parse(self.input.get(..MAX_HEAD).unwrap_or(&self.input)) {
                Parsed::Partial if length == 0 => return Err(ErrorKind::UnexpectedEof.into()),
                Parsed::Partial => {}
                Parsed::Request(asked) => {
                    let is_local = self.is_loopback && is_local_name(&asked.host);
                    let answer = page(&asked, is_local).encode(asked.head_only);
                    self.step = Step::Writing(answer, 0);
                }
                Parsed::Refused(answer) => self.step = Step::Writing(answer.encode(false), 0),
            }
        }
        while let Step::Writing(answer, sent) = &mut self.step {
            match answer.get(*sent..).unwrap_or_default() {
                [] => {
                    self.socket.shutdown(Shutdown::Write)?;
                    self.step = Step::Draining { bytes: 0 };
                }
                left => *sent += self.socket.write(left)?,
            }
        }
        while let Step::Draining { bytes } = &mut self.step {
            *bytes += self.socket.read(&mut buffer).and_then(|length| match length {
                0 => Err(ErrorKind::UnexpectedEof.into()),
                length => Ok(length),
            })?;
            if *bytes >= MAX_DRAINED {
                self.step = Step::Done;
            }
        }
        Ok(())
    }
}

fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether a client named this host by a name that no other host can take: a page in a browser may have any name resolved to a
/// loopback address.
fn is_local_name(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host.is_empty()
        || host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_becomes_free_is_served() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let server = Server::with_retry(address, Duration::from_millis(5)).unwrap();
        assert!(server.listener.is_none());
        // The process ends the thread.
        std::thread::spawn(move || server.run(|_, _| Answer::line(200, "ok")));
        // The attempts while the address is in use fail.
        taken.set_nonblocking(true).unwrap();
        assert_eq!(taken.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(taken);
        let end = Instant::now() + Duration::from_secs(30);
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::yield_now();
        };
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    }
}
