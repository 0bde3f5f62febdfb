//! One connection to the engine: a non-blocking socket, plain or inside TLS, where every wait is a `poll(2)` with a limit.
//!
//! Owns reading and writing with deadlines, and that a cancel ends both and the TLS handshake: it shuts the socket down,
//! which wakes the poll. It must not know HTTP.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use native_tls::TlsStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::Endpoint;
use super::connect::Attempt;
use super::timeouts::deadline;
use super::tls::{Step, TlsClient, TlsError};
use crate::sys::cancel::{CancelToken, Watch};

/// An open connection. Dropping it closes the socket.
pub(super) struct Conn {
    layer: Layer,
    /// What the socket must be ready for before the next write can get on. With TLS that can be a read.
    write_wants: PollFlags,
    _watch: Watch,
}

/// What a connection is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    /// Bytes, an end or an error are there to be read.
    pub(super) readable: bool,
    /// Some bytes can be written.
    pub(super) writable: bool,
}

enum Layer {
    Plain(Wire),
    Tls(Box<Tls>),
}

struct Tls {
    stream: TlsStream<Wire>,
    client: TlsClient,
    host: String,
}

/// The socket. It never waits, and remembers what it would have waited for: TLS reads in a write and writes in a read.
struct Wire {
    socket: OwnedFd,
    wants: PollFlags,
    ended: bool,
}

impl Conn {
    /// Connects within `limit`, all addresses and the TLS handshake together. The look-up of a host name has no deadline
    /// of its own.
    pub(super) fn open(endpoint: &Endpoint, limit: Duration, cancel: &CancelToken) -> io::Result<Self> {
        let attempt = Attempt { deadline: deadline(limit), limit, cancel };
        let socket = match endpoint {
            Endpoint::Unix(path) => attempt.unix(path)?,
            Endpoint::Tcp { host, port } | Endpoint::Tls { host, port, .. } => attempt.tcp(host, *port)?,
        };
        let clone = socket.try_clone()?;
        // An error says that the socket is closed already, which is all that is wanted.
        let watch = cancel.watch(move || {
            let _ = shutdown(&clone, Shutdown::Both);
        });
        let wire = Wire { socket, wants: PollFlags::IN, ended: false };
        let layer = match endpoint {
            Endpoint::Tls { host, client, .. } => Layer::Tls(Box::new(secure(wire, host, client, &attempt)?)),
            _ => Layer::Plain(wire),
        };
        Ok(Self { layer, write_wants: PollFlags::OUT, _watch: watch })
    }

    /// Over a socket that is connected already.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn over(socket: OwnedFd, cancel: &CancelToken) -> Self {
        let wire = Wire { socket, wants: PollFlags::IN, ended: false };
        Self { layer: Layer::Plain(wire), write_wants: PollFlags::OUT, _watch: cancel.watch(|| ()) }
    }

    /// Reads what is there; `Ok(0)` is an end that the peer meant. `TimedOut` when nothing came within `limit` (none: wait
    /// for ever).
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

    /// Waits until something can be written, or read, for at most `limit`.
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

    /// Writes as much as goes without waiting, perhaps nothing. What was not taken must be given again.
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

/// The TLS handshake, within what is left of the connect's time.
fn secure(wire: Wire, host: &str, client: &TlsClient, attempt: &Attempt<'_>) -> io::Result<Tls> {
    let mut step = client.begin(host, wire)?;
    loop {
        match step {
            Step::Done(stream) => return Ok(Tls { stream, client: client.clone(), host: host.to_owned() }),
            Step::Wait(pending) => {
                let wire = pending.get_ref();
                wait(&wire.socket, wire.wants, Some(attempt.deadline)).map_err(|error| {
                    match error.kind() {
                        io::ErrorKind::TimedOut => {
                            let text =
                                format!("the TLS handshake stalled: no answer within {:?}", attempt.limit);
                            io::Error::new(io::ErrorKind::TimedOut, text)
                        }
                        _ => error,
                    }
                })?;
                step = client.resume(host, pending)?;
            }
        }
    }
}

impl Layer {
    fn wire(&self) -> &Wire {
        match self {
            Self::Plain(wire) => wire,
            Self::Tls(tls) => tls.stream.get_ref(),
        }
    }

    /// Whether there is something to be read that the socket does not show any more.
    fn has_plain_text(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.stream.buffered_read_size().is_ok_and(|size| size > 0),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(wire) => wire.write(bytes),
            Self::Tls(tls) => match tls.stream.write(bytes) {
                Err(error) => Err(tls.classify(error)),
                result => result,
            },
        }
    }
}

impl Tls {
    /// The socket's end is not that of TLS: without the peer's `close_notify` anybody on the way may have cut it. OpenSSL's
    /// bindings give both as an `Ok(0)`, so the socket must say which it was.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.stream.read(buf) {
            Ok(0) if self.stream.get_ref().ended => Err(TlsError::Truncated.into()),
            Err(error) => Err(self.classify(error)),
            result => result,
        }
    }

    /// An error of the socket stays as it is; one of TLS is put into words.
    fn classify(&self, error: io::Error) -> io::Error {
        if error.raw_os_error().is_some() || error.kind() != io::ErrorKind::Other {
            return error;
        }
        if self.stream.get_ref().ended {
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
        // Without NOSIGNAL a closed peer would raise SIGPIPE in a program that does not ignore it.
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
        lost(error)
    }
}

/// An error of a connected socket. That the kernel gave the peer up is not the same as a deadline of ours, though it has the
/// same kind: whoever waits for hours must see that the connection is lost.
fn lost(error: Errno) -> io::Error {
    match error {
        Errno::TIMEDOUT => io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "the peer has vanished: nothing confirms what is sent to it",
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

/// What happened on one socket within `limit`; nothing when the time is up or a signal came.
pub(super) fn poll_one(
    socket: &impl AsFd,
    interest: PollFlags,
    limit: Option<Duration>,
) -> io::Result<PollFlags> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_peer_is_a_lost_connection_and_no_deadline() {
        assert_eq!(lost(Errno::TIMEDOUT).kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(lost(Errno::AGAIN).kind(), io::ErrorKind::WouldBlock);
        assert_eq!(lost(Errno::CONNRESET).kind(), io::ErrorKind::ConnectionReset);
    }
}
