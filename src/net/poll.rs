//! poll(2) with a limit.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

/// Waits until one of `fds` is ready, for at most `limit` if there is one. A signal ends the wait early.
///
/// # Errors
/// An error of poll(2).
pub(crate) fn poll(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    // A limit too large for the kernel counts as none.
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match rustix::event::poll(fds, limit.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for `interest` on one socket as [`poll`] does. Returns the events that occurred; none after the limit or a signal.
///
/// # Errors
/// An error of poll(2).
pub(crate) fn poll_one(
    socket: &impl AsFd,
    interest: PollFlags,
    limit: Option<Duration>,
) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(socket, interest)];
    poll(&mut fds, limit)?;
    let [fd] = fds;
    Ok(fd.revents())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_ready_socket_ends_the_wait_and_a_limit_does() {
        let (near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(poll_one(&near, PollFlags::IN, Some(Duration::ZERO)).unwrap(), PollFlags::empty());
        far.write_all(b"x").unwrap();
        for limit in [Some(Duration::ZERO), Some(Duration::MAX), None] {
            assert_eq!(poll_one(&near, PollFlags::IN, limit).unwrap(), PollFlags::IN, "{limit:?}");
        }
    }
}
