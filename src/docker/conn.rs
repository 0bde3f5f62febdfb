//! A connection to the engine, plain or TLS, with deadlines. A cancel shuts the socket down, which wakes its poll(2).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use native_tls::TlsStream;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::Endpoint;
use super::connect::Attempt;
use super::discovery::endpoint::ProxyHop;
use super::timeouts::deadline;
use super::tls::{Handshake, TlsClient, TlsError};
use crate::net::poll::poll_one;
use crate::net::proxy::{ProxyError, ProxyProblem, tunnel};
use crate::sys::cancel::{CancelToken, Watch};

/// An open connection. Dropping it closes the socket.
pub(super) struct Conn {
    layer: Layer,
    /// What to poll for before the next write. With TLS that can be readability.
    write_wants: PollFlags,
    _watch: Watch,
}

/// The readiness of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    /// A read returns bytes, the end or an error without waiting.
    pub(super) readable: bool,
    /// A write takes some bytes, or fails, without waiting.
    pub(super) writable: bool,
}

enum Layer {
    Plain(Route),
    Tls(Box<Tls>),
}

/// The way to the engine: a socket, or TLS with a proxy that forwards it.
enum Route {
    Socket(Wire),
    TlsProxy(Box<TlsStream<Wire>>),
}

struct Tls {
    stream: TlsStream<Route>,
    client: TlsClient,
    host: String,
}

/// The socket. It never blocks. `wants` is what to poll for after `WouldBlock`: with TLS, a read can need a write and vice
/// versa.
struct Wire {
    socket: Arc<OwnedFd>,
    wants: PollFlags,
    ended: bool,
}

impl Conn {
    /// Connects within `limit`: all addresses, and the TLS handshake. Resolving a host name is not limited.
    pub(super) fn open(endpoint: &Endpoint, limit: Duration, cancel: &CancelToken) -> io::Result<Self> {
        let attempt = Attempt { deadline: deadline(limit), limit, cancel };
        let socket = match endpoint {
            Endpoint::Unix(path) => attempt.unix(path)?,
            Endpoint::Tcp { host, port } | Endpoint::Tls { host, port, .. } => attempt.tcp(host, *port)?,
            Endpoint::Proxied { proxy: hop, .. } => attempt.proxy(&hop.proxy)?,
        };
        let socket = Arc::new(socket);
        let shared = Arc::clone(&socket);
        // Fails only if the peer has closed the connection.
        let watch = cancel.watch(move || {
            let _ = shutdown(&shared, Shutdown::Both);
        });
        let wire = Wire { socket, wants: PollFlags::IN, ended: false };
        let route = match endpoint {
            Endpoint::Proxied { proxy, .. } => through(wire, proxy, &attempt)?,
            _ => Route::Socket(wire),
        };
        let layer = match endpoint.target() {
            Endpoint::Tls { host, client, .. } => {
                let stream = secure(route, Route::wire, host, client, &attempt)?;
                Layer::Tls(Box::new(Tls { stream, client: client.clone(), host: host.to_owned() }))
            }
            _ => Layer::Plain(route),
        };
        Ok(Self { layer, write_wants: PollFlags::OUT, _watch: watch })
    }

    /// Returns a connection over a connected socket.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn over(socket: OwnedFd, cancel: &CancelToken) -> Self {
        let wire = Wire { socket: Arc::new(socket), wants: PollFlags::IN, ended: false };
        Self {
            layer: Layer::Plain(Route::Socket(wire)),
            write_wants: PollFlags::OUT,
            _watch: cancel.watch(|| ()),
        }
    }

    /// Reads what has arrived. `Ok(0)` is an orderly end. Fails with `TimedOut` if nothing arrives within `limit`; `None`
    /// waits without a limit.
    pub(super) fn read(&mut self, buf: &mut [u8], limit: Option<Duration>) -> io::Result<usize> {
        let deadline = limit.map(deadline);
        loop {
            match self.layer.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wire = self.layer.wire();
                    wait(&wire.socket, wire.wants, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    /// As [`Conn::read`], for bytes that are not expected to be there yet: polls before it reads.
    pub(super) fn read_later(&mut self, buf: &mut [u8], limit: Duration) -> io::Result<usize> {
        // With TLS, bytes can wait where poll(2) does not see them.
        if let Layer::Plain(Route::Socket(wire)) = &self.layer {
            wait(&wire.socket, PollFlags::IN, Some(deadline(limit)))?;
        }
        self.read(buf, Some(limit))
    }

    /// Waits until the connection is writable or, with `or_readable`, readable. Fails with `TimedOut` after `limit`.
    pub(super) fn ready(&mut self, limit: Duration, or_readable: bool) -> io::Result<Ready> {
        if or_readable && self.layer.has_plain_text() {
            return Ok(Ready { readable: true, writable: false });
        }
        let writing = self.write_wants;
        let interest = if or_readable { PollFlags::IN | writing } else { writing };
        let seen = wait(&self.layer.wire().socket, interest, Some(deadline(limit)))?;
        let broken = seen.intersects(PollFlags::HUP | PollFlags::ERR);
        Ok(Ready {
            readable: or_readable && (broken || seen.contains(PollFlags::IN)),
            writable: broken || seen.intersects(writing),
        })
    }

    /// Writes as much as possible without waiting, possibly nothing. The caller must pass the rest again.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_wants = PollFlags::OUT;
        match self.layer.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.write_wants = self.layer.wire().wants;
                Ok(0)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            result => result,
        }
    }
}

/// Performs the TLS handshake within the time left for connecting. `wire` returns the socket under the stream.
fn secure<S: Read + Write>(
    stream: S,
    wire: fn(&S) -> &Wire,
    host: &str,
    client: &TlsClient,
    attempt: &Attempt<'_>,
) -> io::Result<TlsStream<S>> {
    let mut handshake = client.begin(host, stream)?;
    loop {
        match handshake {
            Handshake::Done(stream) => return Ok(stream),
            Handshake::Pending(pending) => {
                let wire = wire(pending.get_ref());
                wait(&wire.socket, wire.wants, Some(attempt.deadline)).map_err(|error| {
                    match error.kind() {
                        io::ErrorKind::TimedOut => {
                            let text = format!("the TLS handshake timed out after {:?}", attempt.limit);
                            io::Error::new(io::ErrorKind::TimedOut, text)
                        }
                        _ => error,
                    }
                })?;
                handshake = client.resume(host, pending)?;
            }
        }
    }
}

/// Returns the tunnel through a proxy.
fn through(wire: Wire, hop: &ProxyHop, attempt: &Attempt<'_>) -> io::Result<Route> {
    let mut route = match &hop.client {
        Some(client) => {
            let stream = secure(wire, |wire| wire, &hop.proxy.host, client, attempt).map_err(|error| {
                let problem = match error.kind() {
                    io::ErrorKind::TimedOut => ProxyProblem::Silent,
                    _ => ProxyProblem::Tls(error.to_string()),
                };
                io::Error::other(ProxyError::new(&hop.proxy, problem))
            })?;
            Route::TlsProxy(Box::new(stream))
        }
        None => Route::Socket(wire),
    };
    let mut waiting = Waiting { route: &mut route, deadline: attempt.deadline };
    tunnel(&mut waiting, &hop.proxy, &hop.host, hop.port).map_err(io::Error::other)?;
    Ok(route)
}

/// A route whose reads and writes wait until a deadline.
struct Waiting<'a> {
    route: &'a mut Route,
    deadline: Instant,
}

impl Waiting<'_> {
    fn retry<T>(&mut self, mut io: impl FnMut(&mut Route) -> io::Result<T>) -> io::Result<T> {
        loop {
            match io(self.route) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wire = self.route.wire();
                    wait(&wire.socket, wire.wants, Some(self.deadline))?;
                }
                result => return result,
            }
        }
    }
}

impl Read for Waiting<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.retry(|route| route.read(buf))
    }
}

impl Write for Waiting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|route| route.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.retry(Write::flush)
    }
}

impl Route {
    fn wire(&self) -> &Wire {
        match self {
            Self::Socket(wire) => wire,
            Self::TlsProxy(stream) => stream.get_ref(),
        }
    }

    /// Returns whether bytes from the proxy are buffered, which poll(2) on the socket does not report.
    fn has_plain_text(&self) -> bool {
        match self {
            Self::Socket(_) => false,
            Self::TlsProxy(stream) => stream.buffered_read_size().is_ok_and(|size| size > 0),
        }
    }
}

impl Read for Route {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(wire) => wire.read(buf),
            Self::TlsProxy(stream) => stream.read(buf),
        }
    }
}

impl Write for Route {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(wire) => wire.write(bytes),
            Self::TlsProxy(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Socket(wire) => wire.flush(),
            Self::TlsProxy(stream) => stream.flush(),
        }
    }
}

impl Layer {
    fn wire(&self) -> &Wire {
        match self {
            Self::Plain(route) => route.wire(),
            Self::Tls(tls) => tls.stream.get_ref().wire(),
        }
    }

    /// Returns whether decrypted bytes are buffered, which poll(2) on the socket does not report.
    fn has_plain_text(&self) -> bool {
        match self {
            Self::Plain(route) => route.has_plain_text(),
            Self::Tls(tls) => {
                tls.stream.buffered_read_size().is_ok_and(|size| size > 0)
                    || tls.stream.get_ref().has_plain_text()
            }
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(route) => route.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(route) => route.write(bytes),
            Self::Tls(tls) => match tls.stream.write(bytes) {
                Err(error) => Err(tls.classify(error)),
                result => result,
            },
        }
    }
}

impl Tls {
    /// Reads decrypted bytes. Without the peer's `close_notify`, the end of the socket may be an attack that truncates the
    /// stream. OpenSSL's bindings return `Ok(0)` in both cases, so the socket's own end decides.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buf) {
            Ok(0) if self.stream.get_ref().wire().ended => Err(TlsError::Truncated.into()),
            Err(error) => Err(self.classify(error)),
            result => result,
        }
    }

    /// Converts an error of TLS. An error of the socket is returned unchanged.
    fn classify(&self, error: io::Error) -> io::Error {
        if error.raw_os_error().is_some() || error.kind() != io::ErrorKind::Other {
            return error;
        }
        if self.stream.get_ref().wire().ended {
            return TlsError::Truncated.into();
        }
        self.client.explain(&self.host, &error.to_string()).into()
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match recv(&self.socket, &mut *buf, RecvFlags::DONTWAIT) {
            Ok((n, _)) => {
                self.ended |= n == 0 && !buf.is_empty();
                Ok(n)
            }
            Err(error) => Err(self.failed(error, PollFlags::IN)),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Without NOSIGNAL a closed connection raises SIGPIPE.
        let sent = send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        sent.map_err(|error| self.failed(error, PollFlags::OUT))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire {
    fn failed(&mut self, error: Errno, wants: PollFlags) -> io::Error {
        if error == Errno::AGAIN {
            self.wants = wants;
        }
        socket_error(error)
    }
}

/// Converts an error of a connected socket. `ETIMEDOUT` means that the kernel gave up on the peer: it must not look like a
/// deadline of the caller, so that a wait of hours sees a lost connection.
fn socket_error(error: Errno) -> io::Error {
    match error {
        Errno::TIMEDOUT => io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the peer has vanished: it does not acknowledge anything",
        ),
        error => error.into(),
    }
}

fn wait(socket: &impl AsFd, interest: PollFlags, deadline: Option<Instant>) -> io::Result<PollFlags> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let seen = poll_one(socket, interest, left)?;
        if !seen.is_empty() {
            return Ok(seen);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_peer_is_a_lost_connection_and_not_a_timeout() {
        assert_eq!(socket_error(Errno::TIMEDOUT).kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(socket_error(Errno::AGAIN).kind(), io::ErrorKind::WouldBlock);
        assert_eq!(socket_error(Errno::CONNRESET).kind(), io::ErrorKind::ConnectionReset);
    }
}
