//! TCP connections with a deadline that is split between the addresses of a name.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// The most addresses of a name that are tried: a resolver's answer has no bound.
const MAX_ADDRESSES: usize = 8;

/// Returns the addresses of a host: at least one. The resolver has its own time-outs and cannot be interrupted.
///
/// # Errors
/// The resolver's, or the name has no address.
pub(crate) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = (host, port).to_socket_addrs()?.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// Connects to the first of `addresses` that answers. Returns a non-blocking socket.
///
/// Each address gets an equal share of the time until `deadline`, so that a silent one does not take the others' time. `prepare` sets
/// options on each socket. `wait` waits until the socket is writable, or fails with `TimedOut` at the time that it is
/// given; `ConnectionAborted` ends the whole attempt.
///
/// # Errors
/// Each address that was tried, with its failure.
pub(crate) fn connect_first(
    addresses: &[SocketAddr],
    deadline: Instant,
    prepare: impl Fn(&OwnedFd) -> io::Result<()>,
    wait: impl Fn(BorrowedFd<'_>, Instant) -> io::Result<()>,
) -> Result<OwnedFd, Vec<(SocketAddr, io::Error)>> {
    let mut failures = Vec::new();
    for (tried, &address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let socket = connect_one(address, &prepare, |socket| wait(socket, now + share));
        match socket {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                let aborted = error.kind() == io::ErrorKind::ConnectionAborted;
                failures.push((address, error));
                if aborted {
                    break;
                }
            }
        }
    }
    Err(failures)
}

fn connect_one(
    address: SocketAddr,
    prepare: impl Fn(&OwnedFd) -> io::Result<()>,
    wait: impl Fn(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    prepare(&socket)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            wait(socket.as_fd())?;
            sockopt::socket_error(&socket)??;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use rustix::event::PollFlags;

    use super::*;
    use crate::net::poll::poll_one;

    fn connected(
        addresses: &[SocketAddr],
        within: Duration,
    ) -> Result<SocketAddr, Vec<(SocketAddr, io::Error)>> {
        let wait = |socket: BorrowedFd<'_>, until: Instant| {
            let left = until.saturating_duration_since(Instant::now());
            match poll_one(&socket, PollFlags::OUT, Some(left))?.is_empty() {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => Ok(()),
            }
        };
        let socket = connect_first(addresses, Instant::now() + within, |_| Ok(()), wait)?;
        Ok(std::net::TcpStream::from(socket).peer_addr().unwrap())
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Addresses where nothing listens.
    fn closed() -> [SocketAddr; 2] {
        let (first, second) = (listener(), listener());
        [first.1, second.1]
    }

    #[test]
    fn every_address_is_tried_until_one_answers() {
        let (_listener, open) = listener();
        let [first, second] = closed();
        let time = Duration::from_secs(20);
        assert_eq!(connected(&[first, second, open], time).unwrap(), open);
        let failures = connected(&[first, second], time).unwrap_err();
        let tried: Vec<_> = failures.iter().map(|(address, error)| (*address, error.kind())).collect();
        let refused = io::ErrorKind::ConnectionRefused;
        assert_eq!(tried, [(first, refused), (second, refused)]);
    }

    #[test]
    fn a_silent_address_leaves_time_for_the_next() {
        // A listener whose queue is full neither accepts nor refuses.
        let socket = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let full = socket(SocketFlags::CLOEXEC);
        rustix::net::bind(&full, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let silent = SocketAddr::try_from(rustix::net::getsockname(&full).unwrap()).unwrap();
        let waiting = [(); 4].map(|()| socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK));
        for queued in &waiting {
            let _ = connect(queued, &silent);
        }
        let (_listener, open) = listener();
        assert_eq!(connected(&[silent, open], Duration::from_secs(3)).unwrap(), open);
    }

    #[test]
    fn an_abort_ends_the_attempt() {
        let [first, second] = closed();
        let aborted = |_: &OwnedFd| Err(io::ErrorKind::ConnectionAborted.into());
        let deadline = Instant::now() + Duration::from_secs(20);
        let failures = connect_first(&[first, second], deadline, aborted, |_, _| Ok(())).unwrap_err();
        assert_eq!(failures.len(), 1);
    }
}
