//! The body of a response, read from its connection.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::Error;
use super::conn::Conn;
use super::exchange::Call;
use super::http::HttpError;
use super::http::body::{Decoder, Framing};
use super::json;
use super::request::Limit;
use super::timeouts::{End, deadline};

/// The largest buffer for reading from the socket, in bytes.
const READ: usize = 64 * 1024;
/// The first buffer for reading from the socket. Most bodies are shorter, and touching the pages of a larger one takes longer
/// than such a call.
const FIRST_READ: usize = 4 * 1024;
/// As [`FIRST_READ`], for a short body that may take hours to come: each running task waits for one.
const FIRST_READ_LATE: usize = 512;
/// The room for the next bytes of a body that is kept, while none have come.
const ROOM: usize = 64;
/// The most bytes of a JSON body, except of lists and inspects.
const MAX_JSON: usize = 16 * 1024 * 1024;
/// A JSON body with fewer bytes is decoded at once, which takes less time.
const SHORT_JSON: usize = 64 * 1024;
const PHASE: &str = "reading the body";

/// The body of a response. A truncated body and too long a silence are errors, never `Ok(0)`. Dropping the body closes the
/// connection.
pub struct Body {
    source: BodySource,
    decoder: Decoder,
    /// Where the undecoded bytes of `source.read_ahead` start and end.
    start: usize,
    read_end: usize,
    /// The longest silence; `None` for no limit.
    idle: Option<Duration>,
    /// When the whole body must have come, if that is limited.
    end: Option<End>,
    /// The first size of the buffer for reading.
    first_read: usize,
    /// The error of an earlier read. Bytes after an error cannot be decoded.
    broken: Option<HttpError>,
}

/// The connection of a body.
pub(super) struct BodySource {
    pub(super) conn: Conn,
    pub(super) call: Call,
    /// The buffer for reading; at first the bytes that came with the head.
    pub(super) read_ahead: Vec<u8>,
}

impl Body {
    pub(super) fn new(source: BodySource, framing: Framing, idle: Duration, call_end: Option<End>) -> Self {
        let read_end = source.read_ahead.len();
        Self {
            source,
            decoder: Decoder::new(framing),
            start: 0,
            read_end,
            idle: Some(idle),
            end: call_end,
            first_read: FIRST_READ,
            broken: None,
        }
    }

    /// Removes the limit on silence, and uses little memory: for a short body that may take hours to come.
    pub(super) fn comes_late(&mut self) {
        self.idle = None;
        self.end = None;
        self.first_read = FIRST_READ_LATE;
    }

    pub(super) fn call(&self) -> &Call {
        &self.source.call
    }

    /// Makes the limit on silence one for the rest of the body, unless it has one.
    pub(super) fn limit_as_a_whole(&mut self) {
        self.end = self.end.or_else(|| self.idle.and_then(|idle| End::of(Limit::Whole(idle))));
    }

    /// Reads some bytes into `buf` and returns them; none at the end. Returns `None` if none came within `wait`.
    pub(super) fn read_within<'b>(
        &mut self,
        buf: &'b mut [u8],
        wait: Duration,
    ) -> Result<Option<&'b [u8]>, Error> {
        self.read_until(buf, Some(deadline(wait)))
    }

    /// Reads some bytes into `buf` and returns them; none at the end.
    pub(super) fn read_more<'b>(&mut self, buf: &'b mut [u8]) -> Result<&'b [u8], Error> {
        let silence = self.idle.map(End::after);
        let first = [silence, self.end].into_iter().flatten().min_by_key(|end| end.at);
        let limit = first.map(|end| end.limit).unwrap_or_default();
        self.read_until(buf, first.map(|end| end.at))?.ok_or_else(|| self.stalled(limit))
    }

    /// Returns the error for a body that was silent, or not complete, for `after`.
    pub(super) fn stalled(&self, after: Duration) -> Error {
        self.source.call.failed(PHASE, after, io::ErrorKind::TimedOut.into())
    }

    /// Reads the whole body as JSON, of at most 16 MiB.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let (bytes, end) = self.read_start(MAX_JSON + 1);
        end?;
        let name = &self.source.call.name;
        if bytes.len() > MAX_JSON {
            return Err(Error::protocol(format!("{name}: the JSON is longer than {MAX_JSON} bytes")));
        }
        serde_json::from_slice(&bytes).map_err(|error| json::unexpected(name, &error))
    }

    /// Reads the whole body as JSON of any length. `T` must skip what it does not use.
    pub(super) fn long_json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let (start, end) = self.read_start(SHORT_JSON);
        end?;
        let name = self.source.call.name.clone();
        if start.len() < SHORT_JSON {
            return serde_json::from_slice(&start).map_err(|error| json::unexpected(&name, &error));
        }
        json::read(&name, &start, self)
    }

    /// Reads at most `max` bytes. Returns them with the error that ended the reading, if any.
    pub(super) fn read_start(&mut self, max: usize) -> (Vec<u8>, Result<(), Error>) {
        let mut bytes = Vec::new();
        while !self.decoder.is_done() && bytes.len() < max {
            let kept = bytes.len();
            // For all that has come: a usual body comes with the head, and takes one allocation of its size.
            let room = (self.read_end - self.start).max(ROOM).min(max - kept);
            bytes.resize(kept + room, 0);
            let read = self.read_more(bytes.split_at_mut(kept).1).map(<[u8]>::len);
            bytes.truncate(kept + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return (bytes, Err(error)),
            }
        }
        (bytes, Ok(()))
    }

    fn read_until<'b>(
        &mut self,
        buf: &'b mut [u8],
        deadline: Option<Instant>,
    ) -> Result<Option<&'b [u8]>, Error> {
        if buf.is_empty() {
            return Ok(Some(&[]));
        }
        loop {
            let produced = self.decode(buf)?;
            if produced > 0 || self.decoder.is_done() {
                return Ok(Some(buf.split_at(produced).0));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.fill(left)? {
                return Ok(None);
            }
        }
    }

    fn decode(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let (read, _) = self.source.read_ahead.split_at(self.read_end);
        let (_, input) = read.split_at(self.start);
        let decoded = match &self.broken {
            Some(problem) => Err(problem.clone()),
            None => self.decoder.decode(input, buf),
        };
        let transfer = decoded.map_err(|problem| {
            let error = self.source.call.broken(&problem);
            self.broken = Some(problem);
            error
        })?;
        self.start += transfer.consumed;
        Ok(transfer.produced)
    }

    /// Reads more from the socket, once everything before is decoded. Returns `false` if nothing came within `wait`.
    fn fill(&mut self, wait: Option<Duration>) -> Result<bool, Error> {
        let BodySource { conn, call, read_ahead } = &mut self.source;
        // Grows after a read that filled it. Clearing it before each read would cost more than a short read itself.
        if self.read_end == read_ahead.len() {
            read_ahead.resize((4 * self.read_end).clamp(self.first_read, READ), 0);
        }
        let read = conn.read(read_ahead, wait);
        self.start = 0;
        self.read_end = *read.as_ref().unwrap_or(&0);
        match read {
            // A cancelled call closes the socket, which must not count as the end of a body without a length.
            Ok(0) if call.cancel.is_cancelled() || !self.decoder.close() => Err(call.ended(PHASE)),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(call.failed(PHASE, Duration::ZERO, error)),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_more(buf).map(<[u8]>::len).map_err(Error::into_read)
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body")
            .field("call", &self.source.call.name)
            .field("decoder", &self.decoder)
            .finish_non_exhaustive()
    }
}

/// Returns the first `n` bytes of `buffer`, which a read has filled.
pub(super) fn filled(buffer: &[u8], n: usize) -> io::Result<&[u8]> {
    buffer.get(..n).ok_or_else(|| io::Error::other("a read returned more bytes than its buffer can hold"))
}
