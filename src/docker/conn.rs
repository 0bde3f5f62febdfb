//! One connection to the engine: a non-blocking socket, where every wait is a `poll(2)` with a limit.
//!
//! Owns connecting, reading and writing with deadlines, and that a cancel ends all three: it shuts the socket down,
//! which wakes the poll. It must not know HTTP. (TLS, once it comes, goes between this and the exchange.)

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, shutdown, socket_with, sockopt,
};

use super::Endpoint;
use super::timeouts::deadline;
use crate::cancel::{CancelToken, Watch};

/// How often a connect looks at the token: no socket can be shut down before it is connected.
const CONNECT_SLICE: Duration = Duration::from_millis(100);

/// An open connection. Dropping it closes the socket.
pub(super) struct Conn {
    socket: OwnedFd,
    _watch: Watch,
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    /// Bytes, an end or an error are there to be read.
    pub(super) readable: bool,
    /// Some bytes can be written.
    pub(super) writable: bool,
}

impl Conn {
    /// Connects within `limit`, all addresses together. The look-up of a host name has no deadline of its own.
    pub(super) fn open(endpoint: &Endpoint, limit: Duration, cancel: &CancelToken) -> io::Result<Self> {
        let attempt = Attempt { deadline: deadline(limit), limit, cancel };
        let socket = match endpoint {
            Endpoint::Unix(path) => attempt.unix(path)?,
            Endpoint::Tcp { host, port } => attempt.tcp(host, *port)?,
        };
        let clone = socket.try_clone()?;
        // An error says that the socket is closed already, which is all that is wanted.
        let watch = cancel.watch(move || {
            let _ = shutdown(&clone, Shutdown::Both);
        });
        Ok(Self { socket, _watch: watch })
    }

    /// Reads what is there; `Ok(0)` is the end. `TimedOut` when nothing came within `limit` (none: wait for ever).
    pub(super) fn read(&self, buf: &mut [u8], limit: Option<Duration>) -> io::Result<usize> {
        let deadline = limit.map(deadline);
        loop {
            match recv(&self.socket, &mut *buf, RecvFlags::DONTWAIT) {
                Ok((n, _)) => return Ok(n),
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline).map(drop)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something can be written, or read, for at most `limit`.
    pub(super) fn ready(&self, limit: Duration, or_readable: bool) -> io::Result<Ready> {
        let interest = if or_readable { PollFlags::IN | PollFlags::OUT } else { PollFlags::OUT };
        let seen = self.wait(interest, Some(deadline(limit)))?;
        let broken = seen.intersects(PollFlags::HUP | PollFlags::ERR);
        Ok(Ready {
            readable: or_readable && (broken || seen.contains(PollFlags::IN)),
            writable: broken || seen.contains(PollFlags::OUT),
        })
    }

    /// Writes as much as goes without waiting, perhaps nothing.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Without NOSIGNAL a closed peer would raise SIGPIPE in a program that does not ignore it.
        match send(&self.socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => Ok(n),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    fn wait(&self, interest: PollFlags, deadline: Option<Instant>) -> io::Result<PollFlags> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let seen = poll_one(&self.socket, interest, left)?;
            if !seen.is_empty() {
                return Ok(seen);
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// What happened on one socket within `limit`; nothing when the time is up or a signal came.
fn poll_one(socket: &impl AsFd, interest: PollFlags, limit: Option<Duration>) -> io::Result<PollFlags> {
    // A time too long for the kernel is as good as none.
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut fds = [PollFd::new(socket, interest)];
    match poll(&mut fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let [fd] = fds;
    Ok(fd.revents())
}

/// One connect and its limits.
struct Attempt<'a> {
    deadline: Instant,
    limit: Duration,
    cancel: &'a CancelToken,
}

impl Attempt<'_> {
    /// A full backlog makes a connect to a Unix socket block, and there is no other way to wait for it: a non-blocking
    /// one just fails and cannot be polled. So it blocks, in slices that its send time-out ends.
    fn unix(&self, path: &Path) -> io::Result<OwnedFd> {
        let address = SocketAddrUnix::new(path)?;
        loop {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(self.slice(self.deadline)?))?;
            match connect(&socket, &address) {
                Ok(()) => return Ok(socket),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Every address gets its share of what is left, so that one that swallows packets does not cost the others.
    fn tcp(&self, host: &str, port: u16) -> io::Result<OwnedFd> {
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            match self.tcp_to(*address, deadline(share)) {
                Ok(socket) => return Ok(socket),
                Err(error) if self.cancel.is_cancelled() => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn tcp_to(&self, address: SocketAddr, deadline: Instant) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            let seen = poll_one(&socket, PollFlags::OUT, Some(self.slice(deadline)?))?;
            if !seen.is_empty() {
                sockopt::socket_error(&socket)??;
                return Ok(socket);
            }
        }
    }

    /// How long to wait before the next look at the token.
    fn slice(&self, deadline: Instant) -> io::Result<Duration> {
        if self.cancel.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("connecting stalled: no answer within {:?}", self.limit);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        // The kernel counts in microseconds, and takes a zero for "no limit".
        Ok(left.clamp(Duration::from_micros(1), CONNECT_SLICE))
    }
}
