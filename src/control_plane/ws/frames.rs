//! Reads the peer's frames below tungstenite: a message that is too long is skipped without being stored.
//!
//! tungstenite fails for good on a message beyond its limit, and the control plane fails every run of a worker whose connection
//! ends. So a data message reaches tungstenite as a binary message, and [`Kind`] says what it is: a text, a binary message, or
//! an empty one in the place of a skipped message. Control frames pass in between. RFC 6455, section 5.2, has the format.

use std::collections::VecDeque;

use thiserror::Error;

/// The first bytes of a skipped message that are kept.
const KEPT: usize = 64 << 10;

/// The longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

/// What a data message is that tungstenite returns as a binary message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
    /// A message beyond the limit.
    Skipped(Skipped),
}

/// A message that was skipped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Its first bytes, at most 64 KiB.
    pub(super) beginning: Vec<u8>,
    /// Its length in bytes.
    pub(super) bytes: u64,
    /// Whether it was a text.
    pub(super) is_text: bool,
}

/// The limits on one data message, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A longer message is skipped.
    pub(super) stored: u64,
    /// A longer message is an error.
    pub(super) skipped: u64,
}

/// Why the connection must end.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    /// A message has more bytes than can be skipped: this many at least.
    #[error("a message of {0} bytes")]
    TooLong(u64),
    /// A frame of a message that is skipped has reserved bits or a mask. Others reach tungstenite, which refuses them.
    #[error("reserved bits or a mask")]
    Reserved,
    /// A message begins before the end of the one before it.
    #[error("a message within a message")]
    Nested,
}

/// Takes the bytes of the connection, cut anywhere, and returns those for tungstenite.
pub(super) struct Frames {
    limits: Limits,
    header: Vec<u8>,
    /// The payload bytes of the current frame that have not arrived.
    remaining: u64,
    payload: Payload,
    message: Message,
    ready: Vec<u8>,
    /// How many bytes of `ready` were taken.
    taken: usize,
    kinds: VecDeque<Kind>,
}

/// What becomes of the current frame's payload.
enum Payload {
    /// Of a control frame, or of a whole message within the limit.
    Passed,
    /// Of a message in several frames: passed, and its beginning is kept.
    Kept,
    Skipped,
}

/// The data message whose frames are arriving.
#[derive(Default)]
struct Message {
    /// It has begun. A continuation of nothing is passed, and tungstenite refuses it.
    open: bool,
    bytes: u64,
    beginning: Vec<u8>,
    skipped: bool,
    /// tungstenite has seen a frame of it.
    passed: bool,
    /// The current frame is its last.
    last: bool,
}

impl Frames {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            header: Vec::with_capacity(MAX_HEADER),
            remaining: 0,
            payload: Payload::Passed,
            message: Message::default(),
            ready: Vec::new(),
            taken: 0,
            kinds: VecDeque::new(),
        }
    }

    /// Takes the next bytes from the peer.
    ///
    /// # Errors
    /// The connection must end.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.remaining == 0 {
                let (byte, after) = rest.split_at(1);
                self.header.extend_from_slice(byte);
                rest = after;
                if let Some(length) = payload_length(&self.header) {
                    self.start_frame(length)?;
                }
            } else {
                let count = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(rest.len());
                let (payload, after) = rest.split_at(count);
                rest = after;
                self.remaining -= count as u64;
                self.take_payload(payload);
            }
            if self.remaining == 0 && self.header.is_empty() {
                self.end_frame();
            }
        }
        Ok(())
    }

    /// Copies bytes for tungstenite, and returns how many.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let (_, ready) = self.ready.split_at(self.taken);
        let count = ready.len().min(buffer.len());
        buffer.split_at_mut(count).0.copy_from_slice(ready.split_at(count).0);
        self.taken += count;
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
        count
    }

    /// Returns what the next data message of tungstenite is.
    pub(super) fn next_kind(&mut self) -> Option<Kind> {
        self.kinds.pop_front()
    }

    /// Handles a complete header, and empties it.
    fn start_frame(&mut self, length: u64) -> Result<(), FrameError> {
        let [first, second, ..] = self.header.as_mut_slice() else { return Ok(()) };
        let (opcode, last) = (*first & 0x0f, *first & FINAL != 0);
        let is_valid = *first & RESERVED == 0 && *second & MASKED == 0;
        self.remaining = length;
        self.payload = Payload::Passed;
        self.message.last = false;
        if matches!(opcode, TEXT | BINARY) || (opcode == CONTINUATION && self.message.open) {
            if opcode != CONTINUATION {
                if self.message.open {
                    return Err(FrameError::Nested);
                }
                self.message = Message { open: true, ..Message::default() };
                self.kinds.push_back(if opcode == TEXT { Kind::Text } else { Kind::Binary });
                *first = *first & !0x0f | BINARY;
            }
            let message = &mut self.message;
            message.last = last;
            message.bytes = message.bytes.saturating_add(length);
            if message.bytes > self.limits.skipped {
                return Err(FrameError::TooLong(message.bytes));
            }
            message.skipped |= message.bytes > self.limits.stored;
            if message.skipped && !is_valid {
                return Err(FrameError::Reserved);
            }
            let whole = last && opcode != CONTINUATION;
            self.payload = match (message.skipped, whole) {
                (true, _) => Payload::Skipped,
                (false, true) => Payload::Passed,
                (false, false) => Payload::Kept,
            };
            message.passed |= !message.skipped;
        }
        if !matches!(self.payload, Payload::Skipped) {
            self.ready.extend_from_slice(&self.header);
        }
        self.header.clear();
        Ok(())
    }

    fn take_payload(&mut self, payload: &[u8]) {
        if !matches!(self.payload, Payload::Skipped) {
            self.ready.extend_from_slice(payload);
        }
        if !matches!(self.payload, Payload::Passed) {
            let beginning = &mut self.message.beginning;
            beginning.extend(payload.iter().take(KEPT - beginning.len()));
        }
    }

    fn end_frame(&mut self) {
        if !std::mem::take(&mut self.message.last) {
            return;
        }
        let message = std::mem::take(&mut self.message);
        if message.skipped {
            let opcode = if message.passed { CONTINUATION } else { BINARY };
            self.ready.extend_from_slice(&[FINAL | opcode, 0]);
            // The last one, as a message begins after the end of the one before it.
            if let Some(kind) = self.kinds.back_mut() {
                let is_text = matches!(kind, Kind::Text);
                *kind =
                    Kind::Skipped(Skipped { beginning: message.beginning, bytes: message.bytes, is_text });
            }
        }
    }
}

/// Returns the length of the payload once the header is complete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let (&[_, second], rest) = header.split_first_chunk::<2>()?;
    let mask = if second & MASKED == 0 { 0 } else { 4 };
    let (length, after) = match second & !MASKED {
        126 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from(u16::from_be_bytes(*bytes)), rest)),
        127 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), rest)),
        length => Some((u64::from(length), rest)),
    }?;
    (after.len() == mask).then_some(length)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
