//! Connects a socket, with a deadline and keepalive.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::net::connect::{connect_first, resolve};
use crate::net::poll::poll_one;
use crate::net::proxy::{Proxy, ProxyError, ProxyProblem};
use crate::sys::cancel::CancelToken;

/// How often a connect checks its token: shutting a socket down does not end a connect.
const CONNECT_SLICE: Duration = Duration::from_millis(100);

/// The silence before the first keepalive probe. A vanished peer is detected within 20 + 3 * 10 seconds, even during a wait
/// of hours. The peer's kernel answers the probes, so a busy engine is not affected.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
/// The time between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The number of unanswered probes that end the connection.
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent data may stay unacknowledged, in milliseconds; the kernel's default is about 15 minutes. Overrides the
/// limit of the probes, see `TCP_USER_TIMEOUT` in tcp(7), so it is the lower one.
const USER_TIMEOUT: u32 = 45_000;

/// One connect with its limits.
pub(super) struct Attempt<'a> {
    pub(super) deadline: Instant,
    pub(super) limit: Duration,
    pub(super) cancel: &'a CancelToken,
}

impl Attempt<'_> {
    /// Connects to a Unix socket. With a full backlog, a non-blocking connect fails and cannot be polled, so further ones
    /// block, in slices that the send timeout ends.
    pub(super) fn unix(&self, path: &Path) -> io::Result<OwnedFd> {
        let address = SocketAddrUnix::new(path)?;
        let mut flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            if !flags.contains(SocketFlags::NONBLOCK) {
                let slice = self.slice(self.deadline)?;
                sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(slice))?;
            }
            match connect(&socket, &address) {
                Ok(()) => return Ok(socket),
                Err(Errno::AGAIN | Errno::INTR) => flags = SocketFlags::CLOEXEC,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Connects to the first address of `host` that answers. The name is resolved with the resolver's own timeouts.
    pub(super) fn tcp(&self, host: &str, port: u16) -> io::Result<OwnedFd> {
        self.first_of(&resolve(host, port)?)
    }

    fn first_of(&self, addresses: &[SocketAddr]) -> io::Result<OwnedFd> {
        let wait = |socket: BorrowedFd<'_>, until| self.wait_writable(socket, until);
        connect_first(addresses, self.deadline, set_keepalive, wait).map_err(|failures| {
            // Returns only the last error: usually a host has one address, or all fail for the same reason.
            let last = failures.into_iter().next_back();
            last.map_or_else(|| io::ErrorKind::NotFound.into(), |(_, error)| error)
        })
    }

    /// Connects to a proxy, as [`Attempt::tcp`] does.
    pub(super) fn proxy(&self, proxy: &Proxy) -> io::Result<OwnedFd> {
        let failed = |problem| io::Error::other(ProxyError::new(proxy, problem));
        let addresses = resolve(&proxy.host, proxy.port)
            .map_err(|error| failed(ProxyProblem::Unresolved(error.to_string())))?;
        self.first_of(&addresses).map_err(|error| failed(ProxyProblem::Unreachable(error.to_string())))
    }

    fn wait_writable(&self, socket: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
        loop {
            let seen = poll_one(&socket, PollFlags::OUT, Some(self.slice(until)?))?;
            if !seen.is_empty() {
                return Ok(());
            }
        }
    }

    /// Returns how long to wait before checking the token again, or the error if it is cancelled or the deadline has passed.
    fn slice(&self, deadline: Instant) -> io::Result<Duration> {
        if self.cancel.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("connecting timed out after {:?}", self.limit);
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        // The kernel counts in microseconds and treats zero as no limit.
        Ok(left.clamp(Duration::from_micros(1), CONNECT_SLICE))
    }
}

/// Lets the kernel detect a vanished peer, see tcp(7).
fn set_keepalive(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT)?;
    // The short last chunk of an upload must not wait for the acknowledgement of the chunk before.
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::docker::timeouts::deadline;

    #[test]
    fn a_vanished_peer_is_detected_within_a_minute() {
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
        // The kernel checks this limit only when a probe is due, hence the extra interval.
        let unconfirmed = Duration::from_millis(sockopt::tcp_user_timeout(&socket).unwrap().into());
        assert!(unconfirmed > idle && unconfirmed + interval < minute, "{unconfirmed:?}");
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
    }
}
