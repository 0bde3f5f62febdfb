//! Takes a response's body out of its framing.
//!
//! Owns the three ways a body can end, and that an end too early is seen. It must not know where the bytes come from.

use super::HttpError;

/// The most bytes of all chunk extensions in one line, and of the whole trailer.
pub(in crate::docker) const MAX_EXTRA: usize = 16 * 1024;
/// The most digits of a chunk's size; 16 hexadecimal digits are all of a `u64`.
const MAX_DIGITS: usize = 16;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::docker) enum Framing {
    Sized(u64),
    Chunked,
    UntilClose,
}

/// The state of one body.
#[derive(Debug)]
pub(in crate::docker) struct Decoder(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sized(u64),
    UntilClose,
    /// Within a chunk's size: its value and its number of digits so far.
    Size(u64, usize),
    /// After the size, up to the line's end: the size, and the bytes skipped.
    Extension(u64, usize),
    /// The size's line feed is due.
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailer: bytes of it so far, bytes in this line.
    Trailer(usize, usize),
    TrailerLf(usize, usize),
    Done,
}

/// What one step took and gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::docker) struct Step {
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

    /// Whether the body has come to its end.
    pub(in crate::docker) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    /// The connection has ended; `true` when that is the body's end too.
    pub(in crate::docker) fn close(&mut self) -> bool {
        if self.0 == State::UntilClose {
            self.0 = State::Done;
        }
        self.is_done()
    }

    /// Moves payload from `input` to `output` until one of them is used up or the body ends.
    pub(in crate::docker) fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, HttpError> {
        let mut step = Step::default();
        while !self.is_done() {
            let from = input.get(step.consumed..).unwrap_or_default();
            let Some(&first) = from.first() else { break };
            match self.payload_left() {
                Some(left) => {
                    let to = output.get_mut(step.produced..).unwrap_or_default();
                    let n = copy(from, to, left);
                    if n == 0 {
                        break;
                    }
                    self.took(n);
                    step.consumed += n;
                    step.produced += n;
                }
                None => {
                    self.0 = self.0.after(first)?;
                    step.consumed += 1;
                }
            }
        }
        Ok(step)
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
    /// The state after one byte of framing.
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

fn copy(from: &[u8], to: &mut [u8], left: u64) -> usize {
    let n = from.len().min(to.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
    if let (Some(to), Some(from)) = (to.get_mut(..n), from.get(..n)) {
        to.copy_from_slice(from);
    }
    n
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
