//! From an address to a connected socket.
//!
//! Owns the deadline of a connect, and what the kernel is told so that a peer that vanishes is noticed. It must not know
//! what is spoken over the socket.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::conn::poll_one;
use super::timeouts::deadline;
use crate::sys::cancel::CancelToken;

/// How often a connect looks at the token: no socket can be shut down before it is connected.
const CONNECT_SLICE: Duration = Duration::from_millis(100);

/// The first question to a silent peer, the time between two, and how many may go without an answer: it is given up
/// within 20 + 3 * 10 seconds, in a wait of hours too. An engine that lives answers them by its kernel, so that none of
/// this ends a wait.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(20), Duration::from_secs(10), 3);
/// How long what we have sent may go without being confirmed, in milliseconds. The kernel's own patience is a quarter of
/// an hour. It is below what [`KEEPALIVE`] makes, as tcp(7) says that this one then decides for both.
const UNCONFIRMED: u32 = 45_000;

/// One connect and its limits.
pub(super) struct Attempt<'a> {
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
    pub(super) cancel: &'a CancelToken,
}

impl Attempt<'_> {
    /// A full backlog makes a connect to a Unix socket block, and there is no other way to wait for it: a non-blocking
    /// one just fails and cannot be polled. So it blocks, in slices that its send time-out ends.
    pub(super) fn unix(&self, path: &Path) -> io::Result<OwnedFd> {
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

    /// Every address gets its share of what is left, so that one that swallows packets does not cost the others. The
    /// look-up of a host name is the resolver's, and has the resolver's own time-outs.
    pub(super) fn tcp(&self, host: &str, port: u16) -> io::Result<OwnedFd> {
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
        set_keepalive(&socket)?;
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

/// Makes the kernel notice a peer that is gone without a word, see tcp(7).
fn set_keepalive(socket: &OwnedFd) -> io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, idle)?;
    sockopt::set_tcp_keepintvl(socket, interval)?;
    sockopt::set_tcp_keepcnt(socket, count)?;
    sockopt::set_tcp_user_timeout(socket, UNCONFIRMED)?;
    // An upload's last chunk is short and must not wait for the answer to the one before.
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_peer_that_vanishes_is_noticed_within_a_minute() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let limit = Duration::from_secs(20);
        let cancel = CancelToken::new();
        let attempt = Attempt { deadline: deadline(limit), limit, cancel: &cancel };
        let socket = attempt.tcp("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        let idle = sockopt::tcp_keepidle(&socket).unwrap();
        let interval = sockopt::tcp_keepintvl(&socket).unwrap();
        let silent = idle + interval * sockopt::tcp_keepcnt(&socket).unwrap();
        let minute = Duration::from_secs(60);
        assert!(idle > Duration::ZERO && silent < minute, "{silent:?}");
        // The kernel looks at this time only when a probe is due, so the next one is added.
        let unconfirmed = Duration::from_millis(sockopt::tcp_user_timeout(&socket).unwrap().into());
        assert!(unconfirmed > idle && unconfirmed + interval < minute, "{unconfirmed:?}");
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
    }
}
