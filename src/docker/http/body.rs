//! Decodes the framing of a response's body, and detects a truncated one.

use super::HttpError;

/// The most bytes of the extensions of one chunk, and of the whole trailer.
pub(in crate::docker) const MAX_EXTRA: usize = 16 * 1024;
/// The most digits of a chunk's size: a `u64` has 16 hexadecimal digits.
const MAX_DIGITS: usize = 16;

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::docker) enum Framing {
    /// By this number of bytes.
    Sized(u64),
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// The decoder of one body.
#[derive(Debug)]
pub(in crate::docker) struct Decoder(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sized(u64),
    UntilClose,
    /// In a chunk's size: the value and the number of digits so far.
    Size(u64, usize),
    /// After the size: the size, and the bytes skipped so far.
    Extension(u64, usize),
    /// Before the line feed after the size.
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailer: its bytes so far, and those of the current line.
    Trailer(usize, usize),
    TrailerLf(usize, usize),
    Done,
}

/// The number of bytes that one call of [`Decoder::decode`] read and wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::docker) struct Transfer {
    pub(in crate::docker) consumed: usize,
    pub(in crate::docker) produced: usize,
}

impl Decoder {
    pub(in crate::docker) fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Sized(0) => State::Done,
            Framing::Sized(length) => State::Sized(length),
            Framing::Chunked => State::Size(0, 0),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Returns whether the body is complete.
    pub(in crate::docker) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// Marks the end of the connection. Returns whether the body is complete.
    pub(in crate::docker) fn close(&mut self) -> bool {
        if self.0 == State::UntilClose {
            self.0 = State::Done;
        }
        self.is_done()
    }

    /// Moves payload from `input` to `output` until either is exhausted or the body ends.
    pub(in crate::docker) fn decode(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Transfer, HttpError> {
        let mut from = input;
        let mut to = output;
        let mut produced = 0;
        while !self.is_done()
            && let Some((first, after_first)) = from.split_first()
        {
            let Some(left) = self.payload_left() else {
                (self.0, from) = match self.0.after_framing(from) {
                    Some(next) => next,
                    None => (self.0.after(*first)?, after_first),
                };
                continue;
            };
            let n = from.len().min(to.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
            if n == 0 {
                break;
            }
            let (payload, rest) = from.split_at(n);
            let (filled, free) = to.split_at_mut(n);
            filled.copy_from_slice(payload);
            self.took(n);
            from = rest;
            to = free;
            produced += n;
        }
        Ok(Transfer { consumed: input.len() - from.len(), produced })
    }

    fn payload_left(&self) -> Option<u64> {
        match self.0 {
            State::Sized(left) | State::Data(left) => Some(left),
            State::UntilClose => Some(u64::MAX),
            _ => None,
        }
    }

    fn took(&mut self, n: usize) {
        let n = n as u64;
        self.0 = match self.0 {
            State::Sized(left) if left == n => State::Done,
            State::Sized(left) => State::Sized(left - n),
            State::Data(left) if left == n => State::DataCr,
            State::Data(left) => State::Data(left - n),
            other => other,
        };
    }
}

impl State {
    /// Returns the state and the bytes after the usual framing between two chunks' data, or `None` for any other framing and
    /// where a part of it is missing.
    fn after_framing(self, bytes: &[u8]) -> Option<(Self, &[u8])> {
        let line = match self {
            Self::DataCr => bytes.strip_prefix(b"\r\n")?,
            Self::Size(0, 0) => bytes,
            _ => return None,
        };
        let mut size = 0;
        let mut rest = line;
        while let Some((byte, after)) = rest.split_first()
            && let Some(digit) = char::from(*byte).to_digit(16)
            && line.len() - rest.len() < MAX_DIGITS
        {
            size = size << 4 | u64::from(digit);
            rest = after;
        }
        let data = rest.strip_prefix(b"\r\n")?;
        (size > 0).then_some((Self::Data(size), data))
    }

    /// Returns the state after one byte of framing.
    fn after(self, byte: u8) -> Result<Self, HttpError> {
        match (self, byte) {
            (Self::Size(size, digits), byte) => size_digit(size, digits, byte),
            (Self::Extension(size, _), b'\r') => Ok(Self::SizeEnd(size)),
            (Self::Extension(..), b'\n') => Err(HttpError::ChunkEnd),
            (Self::Extension(_, MAX_EXTRA..), _) => Err(HttpError::ChunkExtra),
            (Self::Extension(size, skipped), _) => Ok(Self::Extension(size, skipped + 1)),
            (Self::SizeEnd(0), b'\n') => Ok(Self::Trailer(0, 0)),
            (Self::SizeEnd(size), b'\n') => Ok(Self::Data(size)),
            (Self::DataCr, b'\r') => Ok(Self::DataLf),
            (Self::DataLf, b'\n') => Ok(Self::Size(0, 0)),
            (Self::Trailer(all, line), b'\r') => Ok(Self::TrailerLf(all, line)),
            (Self::Trailer(MAX_EXTRA.., _), _) => Err(HttpError::ChunkExtra),
            (Self::Trailer(all, line), byte) if byte != b'\n' => Ok(Self::Trailer(all + 1, line + 1)),
            (Self::TrailerLf(_, 0), b'\n') => Ok(Self::Done),
            (Self::TrailerLf(all, _), b'\n') => Ok(Self::Trailer(all, 0)),
            _ => Err(HttpError::ChunkEnd),
        }
    }
}

fn size_digit(size: u64, digits: usize, byte: u8) -> Result<State, HttpError> {
    let digit = char::from(byte).to_digit(16);
    match (digit, byte) {
        (Some(_), _) if digits == MAX_DIGITS => Err(HttpError::ChunkSize),
        (Some(digit), _) => Ok(State::Size(size << 4 | u64::from(digit), digits + 1)),
        (None, _) if digits == 0 => Err(HttpError::ChunkSize),
        (None, b'\r') => Ok(State::SizeEnd(size)),
        (None, b';' | b' ' | b'\t') => Ok(State::Extension(size, 1)),
        _ => Err(HttpError::ChunkSize),
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
