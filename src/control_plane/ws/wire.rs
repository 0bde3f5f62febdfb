//! The bytes under the WebSocket: a TCP stream that is never blocking for the kernel, plain or inside TLS.
//!
//! Owns the deadline of the handshake (during which a read or a write waits, but no longer than that), the counters that
//! the heartbeat looks at, and a record of the answer's first bytes. It must not know what the bytes mean.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use native_tls::TlsStream;

use super::outbox::Inbox;
use super::wait::{Want, wait};

/// How much of the answer is kept: a status line and more.
const HEAD: usize = 512;

/// A non-blocking TCP stream that counts. With a deadline it behaves like a blocking one, until the deadline ends.
pub(super) struct Wire {
    tcp: TcpStream,
    deadline: Option<HandshakeDeadline>,
    received: u64,
    accepted: u64,
}

/// How long a read or a write may wait, and who can cut it short.
#[derive(Clone)]
pub(super) struct HandshakeDeadline {
    pub(super) until: Instant,
    pub(super) inbox: Rc<Inbox>,
}

impl HandshakeDeadline {
    /// Waits for the socket. Fails with `TimedOut` when the time is over, and with `ConnectionAborted` when the link
    /// is to end.
    pub(super) fn wait(&self, want: Want<'_>) -> io::Result<()> {
        loop {
            if self.inbox.closing() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if Instant::now() >= self.until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let woken = wait(&self.inbox, Some(want), self.until)?;
            if woken.waker {
                self.inbox.clear();
                self.inbox.discard_queued();
            }
            if woken.socket {
                return Ok(());
            }
        }
    }
}

impl Wire {
    /// Takes a stream that is non-blocking.
    pub(super) fn new(tcp: TcpStream, deadline: HandshakeDeadline) -> Self {
        Self { tcp, deadline: Some(deadline), received: 0, accepted: 0 }
    }

    fn attempt<T>(
        &mut self,
        write: bool,
        mut io: impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match (io(&mut self.tcp), &self.deadline) {
                (Err(error), Some(deadline)) if error.kind() == io::ErrorKind::WouldBlock => {
                    deadline.wait(Want { socket: self.tcp.as_fd(), write, read: !write })?;
                }
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (result, _) => return result,
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.attempt(false, |tcp| tcp.read(buffer))?;
        self.received += count as u64;
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.attempt(true, |tcp| tcp.write(bytes))?;
        self.accepted += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Layer {
    Plain(Wire),
    Tls(Box<TlsStream<Wire>>),
}

/// What the WebSocket is spoken over.
pub(super) struct Channel {
    layer: Layer,
    head: Head,
}

/// The first bytes of the answer, readable by whoever dialled even when the stream is lost in an error.
#[derive(Clone, Default)]
pub(super) struct Head(Rc<RefCell<Vec<u8>>>);

impl Head {
    /// A copy of what was read.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    fn record(&self, bytes: &[u8]) {
        let mut head = self.0.borrow_mut();
        let room = HEAD - head.len();
        head.extend(bytes.iter().take(room));
    }
}

impl Channel {
    /// `ws`.
    pub(super) fn plain(wire: Wire) -> Self {
        Self { layer: Layer::Plain(wire), head: Head::default() }
    }

    /// `wss`.
    pub(super) fn tls(stream: TlsStream<Wire>) -> Self {
        Self { layer: Layer::Tls(Box::new(stream)), head: Head::default() }
    }

    /// The record of the answer's first bytes.
    pub(super) fn head(&self) -> Head {
        self.head.clone()
    }

    /// The handshake is over: from here a read or a write that would wait says so.
    pub(super) fn expire(&mut self) {
        self.wire_mut().deadline = None;
    }

    /// Bytes that came from the peer, TLS included.
    pub(super) fn received(&self) -> u64 {
        self.wire().received
    }

    /// Bytes that the kernel has taken, TLS included.
    pub(super) fn accepted(&self) -> u64 {
        self.wire().accepted
    }

    /// Throws away what the peer sends, up to some bound; `false` says that it has closed.
    pub(super) fn discard(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..64 {
            match self.wire_mut().read(&mut buffer) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    fn wire(&self) -> &Wire {
        match &self.layer {
            Layer::Plain(wire) => wire,
            Layer::Tls(stream) => stream.get_ref(),
        }
    }

    fn wire_mut(&mut self) -> &mut Wire {
        match &mut self.layer {
            Layer::Plain(wire) => wire,
            Layer::Tls(stream) => stream.get_mut(),
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.layer {
            Layer::Plain(wire) => wire.read(buffer),
            Layer::Tls(stream) => stream.read(buffer),
        }?;
        self.head.record(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl Write for Channel {
    /// Takes as much as it can before it says that it would block: tungstenite moves the rest of its buffer after each
    /// write, and TLS takes no more than a record of 16 KiB at a time.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let result = match &mut self.layer {
                Layer::Plain(wire) => wire.write(rest),
                Layer::Tls(stream) => stream.write(rest),
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => taken += count,
                // An error that lasts comes again with the next write.
                Err(_) if taken > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.layer {
            Layer::Plain(wire) => wire.flush(),
            Layer::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire().tcp.as_fd()
    }
}
