//! The WebSocket: read one message, queue one, flush. Nothing here waits.
//!
//! Owns tungstenite's manners: `WouldBlock` on a write means queued, a refused message leaves the connection open for a
//! close frame, and only close codes that may be sent are sent. It must not know when to read or what to send.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use tungstenite::error::{CapacityError, ProtocolError};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, Utf8Bytes, WebSocket};

use super::wire::Channel;
use crate::logging::value;

/// The largest message, and the largest frame of one, that is taken from the peer.
const MAX_MESSAGE: usize = 16 << 20;

/// Also how much tungstenite clears before each read, even one that finds nothing.
const READ_BUFFER: usize = 16 << 10;

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// There is nothing now.
    Nothing,
    /// A whole text message.
    Text(String),
    /// A whole binary message of so many bytes.
    Binary(usize),
    /// The payload of a pong.
    Pong(Vec<u8>),
    /// Something that is answered already.
    Handled,
    /// The peer's close frame; the reply goes out with the next flush.
    Closed(String),
}

/// Why nothing more can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection still stands, and is to be closed with this.
    Refused(CloseReason, String),
    /// The connection is gone.
    Lost(String),
}

/// Why we close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseReason {
    /// 1001: the worker stops.
    Leaving,
    /// 1002: the peer broke the protocol.
    Protocol,
    /// 1007: a text that is not UTF-8.
    NotText,
    /// 1009: a message over the bound.
    TooBig,
}

struct SharedText(Arc<str>);

impl AsRef<[u8]> for SharedText {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// One connection after its handshake.
pub(super) struct Socket {
    socket: WebSocket<Channel>,
}

/// The bounds for `client_with_config`.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

impl Socket {
    /// Takes a connection whose handshake is over; from here on nothing waits.
    pub(super) fn new(mut socket: WebSocket<Channel>) -> Self {
        socket.get_mut().expire();
        Self { socket }
    }

    /// A connection whose handshake was left out.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn upgraded(channel: Channel) -> Self {
        let role = tungstenite::protocol::Role::Client;
        Self::new(WebSocket::from_raw_socket(channel, role, Some(config())))
    }

    /// Reads at most one message.
    pub(super) fn read(&mut self) -> Result<Incoming, Fault> {
        match self.socket.read() {
            Ok(Message::Text(text)) => Ok(Incoming::Text(text.as_str().to_owned())),
            Ok(Message::Binary(bytes)) => Ok(Incoming::Binary(bytes.len())),
            Ok(Message::Pong(payload)) => Ok(Incoming::Pong(payload.to_vec())),
            Ok(Message::Close(frame)) => Ok(Incoming::Closed(described(frame.as_ref()))),
            Ok(Message::Ping(_) | Message::Frame(_)) => Ok(Incoming::Handled),
            Err(error) if would_block(&error) => Ok(Incoming::Nothing),
            Err(error) => Err(fault(error)),
        }
    }

    /// Queues a text. The one before it must be out, or tungstenite's buffer grows without a bound.
    pub(super) fn queue_text(&mut self, text: Arc<str>) -> Result<(), Fault> {
        // Not copied: a report is large, and this process keeps it until it is confirmed.
        let bytes = Bytes::from_owner(SharedText(text));
        match Utf8Bytes::try_from(bytes) {
            Ok(text) => queued(self.socket.write(Message::Text(text))),
            Err(error) => Err(Fault::Lost(format!("a message is not UTF-8: {error}"))),
        }
    }

    /// Queues a ping; `payload` is at most 125 bytes.
    pub(super) fn queue_ping(&mut self, payload: Vec<u8>) -> Result<(), Fault> {
        queued(self.socket.write(Message::Ping(payload.into())))
    }

    /// Queues a close frame; after it nothing can be queued.
    pub(super) fn queue_close(&mut self, reason: CloseReason) -> Result<(), Fault> {
        // A pong that waits would be put behind the close frame.
        self.flush()?;
        let (code, reason) = match reason {
            CloseReason::Leaving => (CloseCode::Away, "the worker stops"),
            CloseReason::Protocol => (CloseCode::Protocol, "protocol error"),
            CloseReason::NotText => (CloseCode::Invalid, "text that is not utf-8"),
            CloseReason::TooBig => (CloseCode::Size, "message too big"),
        };
        queued(self.socket.close(Some(CloseFrame { code, reason: reason.into() })))
    }

    /// Sends what is queued; `false` says that the kernel takes no more now.
    pub(super) fn flush(&mut self) -> Result<bool, Fault> {
        match self.socket.flush() {
            Ok(()) => Ok(true),
            Err(error) if would_block(&error) => Ok(false),
            Err(error) => Err(fault(error)),
        }
    }

    /// Bytes from the peer so far, and bytes that the kernel took for it.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.socket.get_ref().received(), self.socket.get_ref().accepted())
    }

    /// Throws away what the peer sends; `false` says that it has closed.
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

fn queued(result: tungstenite::Result<()>) -> Result<(), Fault> {
    match result {
        Err(error) if !would_block(&error) => Err(fault(error)),
        _ => Ok(()),
    }
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { size, .. }) => Fault::Refused(
            CloseReason::TooBig,
            format!("a message of {size} bytes, the limit is {MAX_MESSAGE}"),
        ),
        Error::Utf8(why) => Fault::Refused(CloseReason::NotText, format!("a text that is not utf-8: {why}")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => Fault::Lost("the peer closed without a close frame".to_owned()),
        Error::Protocol(error) => Fault::Refused(CloseReason::Protocol, format!("a protocol error: {error}")),
        Error::Io(error) => Fault::Lost(error.to_string()),
        error => Fault::Lost(error.to_string()),
    }
}

fn described(frame: Option<&CloseFrame>) -> String {
    match frame {
        Some(frame) => {
            format!("the peer closed with code {} {}", u16::from(frame.code), value(frame.reason.as_str()))
        }
        None => "the peer closed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_close_frame_are_shown_as_those_of_somebody_else() {
        let reason = "bye\nWARN \u{202e}forged".into();
        let frame = CloseFrame { code: CloseCode::Away, reason };
        let expected = "the peer closed with code 1001 \"bye\\nWARN \\u{202e}forged\"";
        assert_eq!(described(Some(&frame)), expected);
        assert_eq!(described(None), "the peer closed");
    }
}
