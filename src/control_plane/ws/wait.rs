//! The one place where the link's thread waits: poll(2) on the wake pipe and, where there is one, the socket.
//!
//! Owns the conversion of a deadline into a time-out. It must not know what is waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// A socket, and what is hoped of it.
#[derive(Clone, Copy)]
pub(super) struct Want<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) write: bool,
    pub(super) read: bool,
}

/// What ended the wait; neither of both at the deadline, or for a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Woken {
    pub(super) socket: bool,
    pub(super) waker: bool,
}

/// Waits until something happens, or `until`.
pub(super) fn wait(waker: &impl AsFd, want: Option<Want<'_>>, until: Instant) -> io::Result<Woken> {
    let waker = PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN);
    let left = timeout(until.saturating_duration_since(Instant::now()));
    let Some(want) = want else {
        let mut fds = [waker];
        checked(poll(&mut fds, Some(&left)))?;
        return Ok(Woken { socket: false, waker: !fds[0].revents().is_empty() });
    };
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, want.read);
    flags.set(PollFlags::OUT, want.write);
    let mut fds = [waker, PollFd::from_borrowed_fd(want.socket, flags)];
    checked(poll(&mut fds, Some(&left)))?;
    Ok(Woken { socket: !fds[1].revents().is_empty(), waker: !fds[0].revents().is_empty() })
}

fn timeout(left: Duration) -> Timespec {
    // It fails only for a time that is longer than a clock can tell.
    Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 })
}

fn checked(result: Result<usize, Errno>) -> io::Result<()> {
    match result {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn each_end_is_told_apart() {
        let (waker, mut writer) = UnixStream::pair().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let want = Want { socket: near.as_fd(), read: true, write: false };
        let later = || Instant::now() + Duration::from_secs(30);
        assert_eq!(wait(&waker, Some(want), Instant::now()).unwrap(), Woken::default());
        far.write_all(b"x").unwrap();
        assert_eq!(wait(&waker, Some(want), later()).unwrap(), Woken { socket: true, waker: false });
        let deaf = Want { read: false, ..want };
        assert_eq!(wait(&waker, Some(deaf), Instant::now()).unwrap(), Woken::default());
        let writing = Want { write: true, ..deaf };
        assert_eq!(wait(&waker, Some(writing), later()).unwrap(), Woken { socket: true, waker: false });
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(&waker, Some(want), later()).unwrap(), Woken { socket: true, waker: true });
        assert_eq!(wait(&waker, None, later()).unwrap(), Woken { socket: false, waker: true });
    }
}
