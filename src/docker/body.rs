//! A response's body, read from the connection as it comes.
//!
//! Owns the difference between an end and a cut, the longest silence, and the bounds of what is held whole. It must
//! not know what is in the body.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::Error;
use super::conn::Conn;
use super::exchange::Call;
use super::http::HttpError;
use super::http::body::{Decoder, Framing};
use super::timeouts::deadline;

/// How much is taken from the socket at once.
const READ: usize = 64 * 1024;
/// The most bytes of a JSON answer. A list of ten thousand containers is about half of it.
const MAX_JSON: usize = 16 * 1024 * 1024;
const PHASE: &str = "reading the body";

/// A response's body. An end before the promised one is an error, never `Ok(0)`; so is a silence that is too long.
/// Dropping it closes the connection.
pub struct Body {
    source: BodySource,
    decoder: Decoder,
    /// Taken from the socket but not decoded: what is at `start` and after.
    start: usize,
    idle: Option<Duration>,
    /// After bytes that are not HTTP nothing that follows can be trusted.
    broken: Option<HttpError>,
}

/// Where a body's bytes come from.
pub(super) struct BodySource {
    pub(super) conn: Conn,
    pub(super) call: Call,
    /// What came together with the head.
    pub(super) read_ahead: Vec<u8>,
}

impl Body {
    pub(super) fn new(source: BodySource, framing: Framing, idle: Duration) -> Self {
        Self { source, decoder: Decoder::new(framing), start: 0, idle: Some(idle), broken: None }
    }

    /// From now on, a silence of any length is right.
    pub(super) fn never_idle(&mut self) {
        self.idle = None;
    }

    /// Reads some bytes, 0 at the end; `None` when none came within `wait`.
    pub(super) fn read_within(&mut self, buf: &mut [u8], wait: Duration) -> Result<Option<usize>, Error> {
        self.read_until(buf, Some(deadline(wait)))
    }

    /// Reads some bytes, 0 at the end.
    pub(super) fn read_more(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let deadline = self.idle.map(deadline);
        let idle = self.idle.unwrap_or_default();
        self.read_until(buf, deadline)?.ok_or_else(|| self.stalled(idle))
    }

    /// The error of a body that was silent for `after`.
    pub(super) fn stalled(&self, after: Duration) -> Error {
        self.source.call.failed(PHASE, after, io::ErrorKind::TimedOut.into())
    }

    /// The whole body as JSON, of at most 16 MiB.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let (bytes, end) = self.read_start(MAX_JSON + 1);
        end?;
        let name = &self.source.call.name;
        if bytes.len() > MAX_JSON {
            return Err(Error::protocol(format!("{name}: the JSON is longer than {MAX_JSON} bytes")));
        }
        // Only the place of the error: its text may quote a value, and values can be secrets.
        serde_json::from_slice(&bytes).map_err(|error| {
            let (kind, line, column) = (error.classify(), error.line(), error.column());
            Error::protocol(format!("{name}: not the JSON expected: {kind:?} error at {line}:{column}"))
        })
    }

    /// The body's first `max` bytes, and whether reading them went well.
    pub(super) fn read_start(&mut self, max: usize) -> (Vec<u8>, Result<(), Error>) {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; READ.min(max)]);
        while bytes.len() < max {
            let room = buffer.len().min(max - bytes.len());
            match self.read_more(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => break,
                Ok(n) => bytes.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) => return (bytes, Err(error)),
            }
        }
        (bytes, Ok(()))
    }

    fn read_until(&mut self, buf: &mut [u8], deadline: Option<Instant>) -> Result<Option<usize>, Error> {
        if buf.is_empty() {
            return Ok(Some(0));
        }
        loop {
            let produced = self.decode(buf)?;
            if produced > 0 || self.decoder.is_done() {
                return Ok(Some(produced));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !self.fill(left)? {
                return Ok(None);
            }
        }
    }

    fn decode(&mut self, buf: &mut [u8]) -> Result<usize, Error> {
        let input = self.source.read_ahead.get(self.start..).unwrap_or_default();
        let step = match &self.broken {
            Some(problem) => Err(problem.clone()),
            None => self.decoder.decode(input, buf),
        };
        let step = step.map_err(|problem| {
            let error = self.source.call.broken(&problem);
            self.broken = Some(problem);
            error
        })?;
        self.start += step.consumed;
        Ok(step.produced)
    }

    /// Takes more from the socket; all that was there has been decoded. `false` when nothing came in time.
    fn fill(&mut self, wait: Option<Duration>) -> Result<bool, Error> {
        let BodySource { conn, call, read_ahead } = &mut self.source;
        read_ahead.resize(READ, 0);
        let read = conn.read(read_ahead, wait);
        read_ahead.truncate(*read.as_ref().unwrap_or(&0));
        self.start = 0;
        match read {
            // A cancel looks like an end, and must not be taken for that of a body that lasts until the close.
            Ok(0) if call.cancel.is_cancelled() || !self.decoder.close() => Err(call.ended(PHASE)),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(false),
            Err(error) => Err(call.failed(PHASE, Duration::ZERO, error)),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_more(buf).map_err(Error::into_read)
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
