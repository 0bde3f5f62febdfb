//! The byte stream under the WebSocket: non-blocking TCP, plain or inside TLS, that waits only during the handshake.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Instant;

use native_tls::TlsStream;

use super::frames::{FrameError, Frames, Kind, Limits};
use super::outbox::Inbox;
use super::wait::{Want, wait};

/// The limits on one message of the peer.
pub(super) const LIMITS: Limits = Limits { stored: 16 << 20, skipped: 100 << 20 };

/// Bytes that are read at once.
const READ: usize = 16 << 10;

/// A non-blocking TCP stream that counts its bytes. While it has a deadline, reads and writes wait, but not beyond it.
pub(super) struct Wire {
    tcp: TcpStream,
    deadline: Option<HandshakeDeadline>,
    received: u64,
    accepted: u64,
}

/// Until when a read or a write may wait, and the inbox whose close ends the wait.
#[derive(Clone)]
pub(super) struct HandshakeDeadline {
    pub(super) until: Instant,
    pub(super) inbox: Rc<Inbox>,
}

impl HandshakeDeadline {
    /// Waits for the socket.
    ///
    /// # Errors
    /// `TimedOut` at the deadline, `ConnectionAborted` when the link is closing, or poll(2) failed.
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
                self.inbox.clear_wake();
                self.inbox.discard_queued();
            }
            if woken.socket {
                return Ok(());
            }
        }
    }
}

impl Wire {
    /// Wraps a stream that is non-blocking already.
    pub(super) fn new(tcp: TcpStream, deadline: HandshakeDeadline) -> Self {
        Self { tcp, deadline: Some(deadline), received: 0, accepted: 0 }
    }

    /// Repeats `io` until it does not have to wait, or returns `WouldBlock` without a deadline.
    fn retry<T>(
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
        let count = self.retry(false, |tcp| tcp.read(buffer))?;
        self.received += count as u64;
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.retry(true, |tcp| tcp.write(bytes))?;
        self.accepted += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The way to the control plane: TCP, or TLS with a proxy that forwards it.
pub(super) enum Route {
    Tcp(Wire),
    TlsProxy(Box<TlsStream<Wire>>),
}

impl Route {
    fn wire(&self) -> &Wire {
        match self {
            Self::Tcp(wire) => wire,
            Self::TlsProxy(stream) => stream.get_ref(),
        }
    }

    fn wire_mut(&mut self) -> &mut Wire {
        match self {
            Self::Tcp(wire) => wire,
            Self::TlsProxy(stream) => stream.get_mut(),
        }
    }
}

impl Read for Route {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(wire) => wire.read(buffer),
            Self::TlsProxy(stream) => stream.read(buffer),
        }
    }
}

impl Write for Route {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(wire) => wire.write(bytes),
            Self::TlsProxy(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(wire) => wire.flush(),
            Self::TlsProxy(stream) => stream.flush(),
        }
    }
}

enum Layer {
    Plain(Route),
    Tls(Box<TlsStream<Route>>),
}

/// The connection under the WebSocket, with or without TLS. Its reads return the frames for tungstenite.
pub(super) struct Channel {
    layer: Layer,
    frames: Frames,
    /// Why the frames end, once those before are read.
    broken: Option<FrameError>,
    buffer: Box<[u8]>,
    /// How many bytes may still be read from the peer.
    allowed: usize,
    /// How many bytes of the buffer that is being written the kernel has taken already.
    written: usize,
    held: bool,
}

impl Channel {
    /// For `ws://`.
    pub(super) fn plain(route: Route) -> Self {
        Self::new(Layer::Plain(route))
    }

    /// For `wss://`, after the TLS handshake.
    pub(super) fn tls(stream: TlsStream<Route>) -> Self {
        Self::new(Layer::Tls(Box::new(stream)))
    }

    fn new(layer: Layer) -> Self {
        Self {
            layer,
            frames: Frames::new(LIMITS),
            broken: None,
            buffer: vec![0; READ].into_boxed_slice(),
            allowed: 0,
            written: 0,
            held: false,
        }
    }

    /// Allows to read this many bytes. Beyond them, reads return `WouldBlock`: one call of tungstenite reads as long as there are
    /// frames without an end of a message.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.allowed = bytes;
    }

    /// Whether everything allowed was read, so that there may be more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.allowed == 0
    }

    /// Returns what the next data message of tungstenite is.
    pub(super) fn next_kind(&mut self) -> Option<Kind> {
        self.frames.next_kind()
    }

    /// Takes the error that ended the reads, if it is one of the frames.
    pub(super) fn take_broken(&mut self) -> Option<FrameError> {
        self.broken.take()
    }

    /// Reads bytes before the first frame.
    pub(super) fn read_head(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.layer.read(buffer)
    }

    /// Takes bytes of frames that were read with the head.
    pub(super) fn push_frames(&mut self, bytes: &[u8]) {
        self.broken = self.frames.push(bytes).err();
    }

    /// While held, every write returns `WouldBlock`.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// Replaces the deadline of the handshake.
    pub(super) fn set_deadline(&mut self, deadline: HandshakeDeadline) {
        self.wire_mut().deadline = Some(deadline);
    }

    /// Ends the handshake: from now on reads and writes return `WouldBlock` instead of waiting.
    pub(super) fn expire(&mut self) {
        self.wire_mut().deadline = None;
    }

    /// Bytes received from the peer, including those of TLS.
    pub(super) fn received(&self) -> u64 {
        self.wire().received
    }

    /// Bytes that the kernel has accepted for sending, including those of TLS.
    pub(super) fn accepted(&self) -> u64 {
        self.wire().accepted
    }

    /// Reads and drops at most 1 MiB of what the peer sends. Returns false once the peer has closed.
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
            Layer::Plain(route) => route.wire(),
            Layer::Tls(stream) => stream.get_ref().wire(),
        }
    }

    fn wire_mut(&mut self) -> &mut Wire {
        match &mut self.layer {
            Layer::Plain(route) => route.wire_mut(),
            Layer::Tls(stream) => stream.get_mut().wire_mut(),
        }
    }
}

impl Read for Layer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(route) => route.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(route) => route.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(route) => route.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.frames.take(buffer);
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            if self.broken.is_some() {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let (allowed, _) = self.buffer.split_at_mut(READ.min(self.allowed));
            if allowed.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = self.layer.read(allowed)?;
            if count == 0 {
                return Ok(0);
            }
            self.allowed = self.allowed.saturating_sub(count);
            let (read, _) = allowed.split_at_checked(count).ok_or(io::ErrorKind::InvalidData)?;
            self.broken = self.frames.push(read).err();
        }
    }
}

impl Write for Channel {
    /// Returns `WouldBlock` until the kernel has taken all bytes. Each call must start with the bytes of the last one, and may
    /// add more behind them. A partial count would make tungstenite move the rest of its buffer, after every few packets of a
    /// message of many megabytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.held {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        loop {
            let (_, rest) = bytes.split_at_checked(self.written).ok_or(io::ErrorKind::InvalidInput)?;
            if rest.is_empty() {
                self.written = 0;
                return Ok(bytes.len());
            }
            let count = self.layer.write(rest)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.written += count;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.layer.flush()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire().tcp.as_fd()
    }
}
