//! Where the link's thread waits: poll(2) on the wake pipe and, during a connection, the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use crate::net::poll::poll;

/// A socket, and the directions to wait for.
#[derive(Clone, Copy)]
pub(super) struct Want<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) write: bool,
    pub(super) read: bool,
}

/// What ended the wait: neither, at the deadline or after a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Woken {
    pub(super) socket: bool,
    pub(super) waker: bool,
}

/// Waits for the socket, for a wake-up, or until `until`.
///
/// # Errors
/// poll(2) failed with anything but EINTR.
pub(super) fn wait(waker: &impl AsFd, want: Option<Want<'_>>, until: Instant) -> io::Result<Woken> {
    let left = Some(until.saturating_duration_since(Instant::now()));
    let waker = PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN);
    let Some(want) = want else {
        let mut fds = [waker];
        poll(&mut fds, left)?;
        return Ok(Woken { socket: false, waker: !fds[0].revents().is_empty() });
    };
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, want.read);
    flags.set(PollFlags::OUT, want.write);
    let mut fds = [waker, PollFd::from_borrowed_fd(want.socket, flags)];
    poll(&mut fds, left)?;
    Ok(Woken { socket: !fds[1].revents().is_empty(), waker: !fds[0].revents().is_empty() })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_socket_and_the_waker_are_reported_separately() {
        let (waker, mut writer) = UnixStream::pair().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let read = Want { socket: near.as_fd(), read: true, write: false };
        let later = || Instant::now() + Duration::from_secs(30);
        assert_eq!(wait(&waker, Some(read), Instant::now()).unwrap(), Woken::default());
        far.write_all(b"x").unwrap();
        assert_eq!(wait(&waker, Some(read), later()).unwrap(), Woken { socket: true, waker: false });
        let neither = Want { read: false, ..read };
        assert_eq!(wait(&waker, Some(neither), Instant::now()).unwrap(), Woken::default());
        let write = Want { write: true, ..neither };
        assert_eq!(wait(&waker, Some(write), later()).unwrap(), Woken { socket: true, waker: false });
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(&waker, Some(read), later()).unwrap(), Woken { socket: true, waker: true });
        assert_eq!(wait(&waker, None, later()).unwrap(), Woken { socket: false, waker: true });
    }
}
