//! The WebSocket over tungstenite: read a message, queue one, flush. Nothing here waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

use super::frames::{FrameError, Kind, Skipped};
use super::wire::{Channel, LIMITS};
use crate::logging::value;

/// The largest message that reaches tungstenite, in bytes.
const MAX_MESSAGE: usize = LIMITS.stored as usize;

/// The most bytes of pongs and small messages that wait to be sent. Beyond them tungstenite keeps only the last pong.
const WRITE_BUFFER: usize = 256 << 10;

/// tungstenite's read buffer, in bytes. It clears this many before every read, so more would cost processor time.
const READ_BUFFER: usize = 16 << 10;

/// A longer text, in bytes, is written through a buffer of its own.
const LONG: usize = 64 << 10;

/// The result of one read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing to read at the moment.
    Nothing,
    /// A complete text message.
    Text(Utf8Bytes),
    /// A text message that is too long and was skipped.
    Skipped(Skipped),
    /// A complete binary message: its length in bytes. The content is dropped.
    Binary(usize),
    /// The payload of a pong.
    Pong(Vec<u8>),
    /// A frame that needs no further action, such as a ping: tungstenite has queued the pong.
    Handled,
    /// The peer's close frame, described for the log. The next flush sends the reply.
    Closed(String),
}

/// Why a connection cannot be used any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The peer sent something invalid. A close frame with this reason can still be sent.
    Refused(CloseReason, String),
    /// The connection is lost.
    Lost(String),
}

/// The reason in a close frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// 1000: the worker stops.
    Leaving,
    /// 1002: the peer violated the protocol.
    Protocol,
    /// 1007: a text message is not UTF-8.
    NotText,
    /// 1009: a message exceeds [`MAX_MESSAGE`].
    TooBig,
}

impl CloseReason {
    /// Returns the code, and the text for people.
    pub(super) fn code(self) -> (u16, &'static str) {
        match self {
            Self::Leaving => (1000, "the worker stops"),
            Self::Protocol => (1002, "protocol error"),
            Self::NotText => (1007, "text that is not utf-8"),
            Self::TooBig => (1009, "message too big"),
        }
    }
}

/// Lets tungstenite send a text without a copy.
struct SharedText(Arc<String>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// One connection after its handshake.
pub(super) struct Socket {
    socket: WebSocket<Channel>,
    /// Writes one long text and is then dropped: a buffer of tungstenite keeps the size of its largest frame. Meanwhile
    /// `socket` can read, but its writes are held.
    long: Option<WebSocketContext>,
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .max_write_buffer_size(WRITE_BUFFER)
}

impl Socket {
    /// Takes a connection after its handshake. From now on reads and writes do not wait.
    pub(super) fn new(mut channel: Channel) -> Self {
        channel.expire();
        let socket = WebSocket::from_raw_socket(channel, Role::Client, Some(config()));
        Self { socket, long: None }
    }

    /// Allows the following calls of [`read`](Self::read) to read this many bytes from the peer.
    pub(super) fn allow(&mut self, bytes: usize) {
        self.socket.get_mut().allow(bytes);
    }

    /// Whether everything allowed was read, so that there may be more to read.
    pub(super) fn is_exhausted(&self) -> bool {
        self.socket.get_ref().is_exhausted()
    }

    /// Reads at most one message.
    pub(super) fn read(&mut self) -> Result<Received, Fault> {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => self.data(bytes),
            Ok(Message::Pong(payload)) => Ok(Received::Pong(payload.to_vec())),
            Ok(Message::Close(frame)) => Ok(Received::Closed(describe_close(frame.as_ref()))),
            // No text: the channel makes it binary.
            Ok(Message::Ping(_) | Message::Frame(_) | Message::Text(_)) => Ok(Received::Handled),
            Err(error) if would_block(&error) => Ok(Received::Nothing),
            Err(error) => Err(self.frame_fault(&error).unwrap_or_else(|| fault(error))),
        }
    }

    /// Returns the fault for an error with which the channel reported broken frames.
    fn frame_fault(&mut self, error: &Error) -> Option<Fault> {
        if !matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::InvalidData) {
            return None;
        }
        Some(match self.socket.get_mut().take_broken()? {
            FrameError::TooLong(bytes) => Fault::Refused(
                CloseReason::TooBig,
                format!("a message of {bytes} bytes, the limit is {}", LIMITS.skipped),
            ),
            error @ (FrameError::Nested | FrameError::Reserved) => {
                Fault::Refused(CloseReason::Protocol, format!("a protocol error: {error}"))
            }
        })
    }

    fn data(&mut self, bytes: Bytes) -> Result<Received, Fault> {
        match self.socket.get_mut().next_kind() {
            Some(Kind::Skipped(skipped)) if skipped.is_text => Ok(Received::Skipped(skipped)),
            Some(Kind::Skipped(skipped)) => {
                Ok(Received::Binary(usize::try_from(skipped.bytes).unwrap_or(usize::MAX)))
            }
            Some(Kind::Text) => Utf8Bytes::try_from(bytes).map(Received::Text).map_err(|error| {
                Fault::Refused(CloseReason::NotText, format!("a text message is not UTF-8: {error}"))
            }),
            Some(Kind::Binary) | None => Ok(Received::Binary(bytes.len())),
        }
    }

    /// Queues a text. Everything before it must be flushed.
    pub(super) fn queue_text(&mut self, text: Arc<String>) -> Result<(), Fault> {
        // Without a copy: a report may have megabytes and stays in memory until it is confirmed.
        let text = Utf8Bytes::try_from(Bytes::from_owner(SharedText(text)))
            .map_err(|error| Fault::Lost(format!("a message is not UTF-8: {error}")))?;
        if text.len() <= LONG {
            return ignore_would_block(self.socket.write(Message::Text(text)));
        }
        let channel = self.socket.get_mut();
        let long = self.long.insert(WebSocketContext::new(Role::Client, None));
        let result = ignore_would_block(long.write(channel, Message::Text(text)));
        channel.hold(true);
        result
    }

    /// Queues a ping; `payload` is at most 125 bytes.
    pub(super) fn queue_ping(&mut self, payload: Vec<u8>) -> Result<(), Fault> {
        ignore_would_block(self.socket.write(Message::Ping(payload.into())))
    }

    /// Queues a close frame. Nothing can be queued after it.
    pub(super) fn queue_close(&mut self, reason: CloseReason) -> Result<(), Fault> {
        // tungstenite would put a pending pong behind the close frame.
        self.flush()?;
        let (code, text) = reason.code();
        let frame = CloseFrame { code: CloseCode::from(code), reason: text.into() };
        ignore_would_block(self.socket.close(Some(frame)))
    }

    /// Sends the queued frames. Returns false if the kernel's send buffer is full.
    pub(super) fn flush(&mut self) -> Result<bool, Fault> {
        if let Some(long) = &mut self.long {
            let channel = self.socket.get_mut();
            channel.hold(false);
            if !flushed(long.flush(channel))? {
                channel.hold(true);
                return Ok(false);
            }
            self.long = None;
        }
        flushed(self.socket.flush())
    }

    /// Returns the bytes received from the peer, and the bytes accepted by the kernel for sending.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.socket.get_ref().received(), self.socket.get_ref().accepted())
    }

    /// Reads and drops at most 1 MiB of what the peer sends. Returns false once the peer has closed.
    pub(super) fn discard(&mut self) -> bool {
        self.socket.get_mut().discard()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// For flushes: returns false if the kernel's send buffer is full.
fn flushed(result: tungstenite::Result<()>) -> Result<bool, Fault> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if would_block(&error) => Ok(false),
        Err(error) => Err(fault(error)),
    }
}

/// For writes: tungstenite has queued the frame even if it returns `WouldBlock`.
fn ignore_would_block(result: tungstenite::Result<()>) -> Result<(), Fault> {
    match result {
        Err(error) if !would_block(&error) => Err(fault(error)),
        _ => Ok(()),
    }
}

fn fault(error: Error) -> Fault {
    match error {
        // Of a close frame.
        Error::Utf8(error) => {
            Fault::Refused(CloseReason::NotText, format!("text that is not UTF-8: {error}"))
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => {
            Fault::Lost("the control plane closed the connection without a close frame".to_owned())
        }
        Error::Protocol(error) => Fault::Refused(CloseReason::Protocol, format!("a protocol error: {error}")),
        error => Fault::Lost(error.to_string()),
    }
}

fn describe_close(frame: Option<&CloseFrame>) -> String {
    let closed = "the control plane closed the connection";
    match frame {
        Some(frame) => {
            format!("{closed} with code {} {}", u16::from(frame.code), value(frame.reason.as_str()))
        }
        None => closed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::time::Instant;

    use super::super::outbox;
    use super::super::wire::{HandshakeDeadline, Route, Wire};
    use super::*;

    /// A connection of small kernel buffers, and its peer, which waits when it reads.
    fn pair() -> (Socket, WebSocket<UnixStream>) {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (_, inbox) = outbox::pair().unwrap();
        let deadline = HandshakeDeadline { until: Instant::now(), inbox: Rc::new(inbox) };
        let wire = Wire::new(std::os::fd::OwnedFd::from(ours).into(), deadline);
        let mut socket = Socket::new(Channel::plain(Route::Tcp(wire)));
        socket.allow(usize::MAX);
        (socket, WebSocket::from_raw_socket(peer, Role::Server, None))
    }

    #[test]
    fn a_pong_waits_for_the_end_of_a_long_text() {
        let (mut socket, mut peer) = pair();
        let text = Arc::new("ä€".repeat(1 << 20));
        peer.send(Message::Ping("one".into())).unwrap();
        socket.queue_text(Arc::clone(&text)).unwrap();
        assert_eq!(socket.flush(), Ok(false), "the kernel does not take all of it");
        assert_eq!(socket.read(), Ok(Received::Handled));
        let peer = std::thread::spawn(move || [(); 3].map(|()| peer.read().unwrap()));
        while !socket.flush().unwrap() {
            // tungstenite tries to send the pong in every read.
            assert_eq!(socket.read(), Ok(Received::Nothing));
        }
        assert!(socket.long.is_none(), "its buffer is kept");
        socket.queue_text(Arc::new("short".to_owned())).unwrap();
        assert_eq!(socket.flush(), Ok(true));
        let [long, pong, short] = peer.join().unwrap();
        assert!(long == Message::text(text.as_str()), "another text");
        assert_eq!([pong, short], [Message::Pong("one".into()), Message::text("short")]);
    }

    #[test]
    fn texts_of_every_length_arrive_whole_and_in_order() {
        let lengths = [0, 1, LONG - 1, LONG, LONG + 1, 1 << 20, 5, 3 << 20, LONG + 2, 0];
        let (mut socket, mut peer) = pair();
        let peer = std::thread::spawn(move || lengths.map(|_| peer.read().unwrap().into_text().unwrap()));
        for (index, length) in lengths.into_iter().enumerate() {
            socket.queue_text(Arc::new(index.to_string().repeat(length))).unwrap();
            while !socket.flush().unwrap() {
                std::thread::yield_now();
            }
        }
        for (index, text) in peer.join().unwrap().into_iter().enumerate() {
            assert!(text.as_str() == index.to_string().repeat(lengths[index]), "{index}");
        }
    }

    #[test]
    fn the_text_of_a_close_frame_is_quoted_and_escaped() {
        let reason = "bye\nWARN \u{202e}forged".into();
        let frame = CloseFrame { code: CloseCode::Away, reason };
        let expected = "the control plane closed the connection with code 1001 \"bye\\nWARN \\u202eforged\"";
        assert_eq!(describe_close(Some(&frame)), expected);
        assert_eq!(describe_close(None), "the control plane closed the connection");
    }
}
