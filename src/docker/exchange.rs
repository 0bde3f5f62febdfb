//! One request and its response on a new connection (`Connection: close`), so that no connection is stale.

use std::io;
use std::time::{Duration, Instant};

use super::body::{Body, BodySource, filled};
use super::conn::Conn;
use super::error::one_line;
use super::http::head::{Head, HeadReader};
use super::http::request::{LAST_CHUNK, Length, chunk, head};
use super::request::{Limit, Method, Payload};
use super::timeouts::{End, deadline};
use super::{ApiVersion, Endpoint, Error, Request, Timeouts};
use crate::sys::cancel::CancelToken;
use crate::sys::limits::{check_free_descriptors, is_exhausted};

/// The most bytes of a chunk of an upload.
const UPLOAD: usize = 64 * 1024;
/// The buffer size for reading a response's head, in bytes. Most responses fit. Small enough for the stack: musl maps and unmaps
/// memory for each larger block.
pub(super) const READ: usize = 2 * 1024;
/// The most bytes read of an error's body.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// The phase before the response, in error messages.
const AWAITING: &str = "waiting for the response's head";
/// The phase of an upload, in error messages.
const SENDING: &str = "sending the request";

/// Opens exchanges with one engine.
#[derive(Clone, Copy)]
pub(super) struct Dialer<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) timeouts: &'a Timeouts,
    /// `None` before the version is negotiated.
    pub(super) version: Option<ApiVersion>,
}

impl Dialer<'_> {
    /// Sends a request and reads the response's head.
    pub(super) fn exchange(
        &self,
        cancel: &CancelToken,
        request: &mut Request<'_>,
    ) -> Result<Response, Error> {
        self.send(cancel, request)?.response()
    }

    /// Sends a request.
    pub(super) fn send(&self, cancel: &CancelToken, request: &mut Request<'_>) -> Result<Sent, Error> {
        let address = self.endpoint.to_string();
        let call = Call { name: request.name(), address, cancel: cancel.clone() };
        let head = self.encode(request)?;
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let conn = self.connect(cancel)?;
        let is_head = request.method == Method::Head;
        let limit = request.limit.unwrap_or(Limit::Whole(self.timeouts.call));
        let reader = HeadReader::default();
        let mut exchange = Exchange { conn, call, reader, answer: None, idle: self.timeouts.idle };
        exchange.send(&head, &mut request.payload)?;
        Ok(Sent { exchange, limit, is_head, end: request.end })
    }

    fn connect(&self, cancel: &CancelToken) -> Result<Conn, Error> {
        Conn::open(self.endpoint, self.timeouts.connect, cancel).map_err(|source| {
            if cancel.is_cancelled() {
                return Error::Cancelled;
            }
            // The resolver does not tell why it failed.
            if is_exhausted(&source) || check_free_descriptors(1).is_err() {
                return Error::Exhausted { source };
            }
            Error::Unreachable { address: self.endpoint.to_string(), source }
        })
    }

    fn encode(&self, request: &Request<'_>) -> Result<Vec<u8>, Error> {
        let version = self.version.map(|version| format!("/v{version}")).unwrap_or_default();
        let target = format!("{version}{}", request.target.on_the_wire());
        let headers = request.headers.iter().map(|(name, value)| (*name, value.expose()));
        let length = match &request.payload {
            Payload::Bytes(bytes) => Length::Known(bytes.len()),
            Payload::Stream(_) => Length::Chunked,
            Payload::None if matches!(request.method, Method::Post | Method::Put) => Length::Known(0),
            Payload::None => Length::None,
        };
        head(request.method.as_str(), &target, &self.endpoint.host_header(), headers, length)
            .map_err(|_| Error::Invalid { what: "a header".to_owned() })
    }
}

/// A call's name and token, to convert a socket's error into the call's.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) name: String,
    /// Of the engine, in the form of `DOCKER_HOST`.
    pub(super) address: String,
    pub(super) cancel: CancelToken,
}

impl Call {
    /// Returns the error for a socket operation that failed during `phase`; `after` is its time limit.
    pub(super) fn failed(&self, phase: &str, after: Duration, source: io::Error) -> Error {
        let what = format!("{}: {phase}", self.name);
        match source.kind() {
            _ if self.cancel.is_cancelled() => Error::Cancelled,
            io::ErrorKind::TimedOut => Error::Timeout { what, after },
            _ => Error::Io { what, source },
        }
    }

    /// Returns the error for a connection that ended during `phase`.
    pub(super) fn ended(&self, phase: &str) -> Error {
        self.failed(phase, Duration::ZERO, io::ErrorKind::UnexpectedEof.into())
    }

    /// Returns the error for a status that is not a success, with this body.
    fn refused(&self, status: u16, body: &[u8]) -> Error {
        if status == 403 && engine_message(body).is_none() {
            // Every error of an engine has a message, so this is from a proxy.
            return Error::Forbidden { call: self.name.clone(), address: self.address.clone() };
        }
        Error::Engine { status, message: message(body) }
    }

    /// Returns the error for a response that cannot be decoded.
    pub(super) fn broken(&self, problem: &super::http::HttpError) -> Error {
        // A cancel shuts the socket down, which can truncate anything.
        if self.cancel.is_cancelled() {
            return Error::Cancelled;
        }
        Error::protocol(format!("{}: {problem}", self.name))
    }
}

/// A request that was sent, with its response unread.
pub(super) struct Sent {
    exchange: Exchange,
    limit: Limit,
    is_head: bool,
    /// When the response's body must have ended, if it must.
    end: Option<End>,
}

impl Sent {
    /// Reads the response's head. The limit begins now.
    pub(super) fn response(mut self) -> Result<Response, Error> {
        let end = [End::of(self.limit), self.end].into_iter().flatten().min_by_key(|end| end.at);
        let answer = self.exchange.answer(self.limit.head())?;
        self.exchange.into_response(answer, self.is_head, end)
    }

    /// Waits at most `limit` for the response's head. Returns whether it has come; [`Sent::response`] then returns at once.
    pub(super) fn head_came(&mut self, limit: Duration) -> Result<bool, Error> {
        self.exchange.answer = self.exchange.try_read_head(limit)?;
        Ok(self.exchange.answer.is_some())
    }
}

/// An exchange in progress.
struct Exchange {
    conn: Conn,
    call: Call,
    reader: HeadReader,
    /// The response's head, once read; possibly before the end of the upload.
    answer: Option<Head>,
    idle: Duration,
}

impl Exchange {
    fn send(&mut self, head: &[u8], payload: &mut Payload<'_>) -> Result<(), Error> {
        match payload {
            Payload::None => self.write_at_once(head),
            Payload::Bytes(bytes) => self.write_at_once(&[head, bytes].concat()),
            Payload::Stream(source) => self.upload(head, source),
        }
    }

    /// Sends `source` in chunks. If reading it fails, the last chunk is not sent, so that the engine sees an aborted
    /// upload.
    fn upload(&mut self, head: &[u8], source: &mut dyn io::Read) -> Result<(), Error> {
        let mut data = vec![0; UPLOAD];
        let mut out = head.to_vec();
        while self.write(&out)? {
            let n = match source.read(&mut data) {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    out.clear();
                    continue;
                }
                Err(_) if self.call.cancel.is_cancelled() => return Err(Error::Cancelled),
                Err(error) => return Err(Error::from_read(error)),
            };
            if n == 0 {
                return self.write(LAST_CHUNK).map(drop);
            }
            out.clear();
            chunk(&mut out, filled(&data, n).map_err(|source| Error::Upload { source })?);
        }
        Ok(())
    }

    /// Writes all bytes, without polling first: a new connection has room for a short request.
    fn write_at_once(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.conn.write(bytes) {
            Ok(n) => self.write(bytes.split_at(n).1).map(drop),
            Err(error) => self.early_answer(error).map(drop),
        }
    }

    /// Writes all bytes. Returns `false` if the engine has refused the request meanwhile.
    fn write(&mut self, mut bytes: &[u8]) -> Result<bool, Error> {
        while !bytes.is_empty() {
            // After an early success the rest is still sent: the engine may not have read all of the upload.
            let listening = self.answer.is_none();
            let ready = self.conn.ready(self.idle, listening);
            let ready = ready.map_err(|error| self.call.failed(SENDING, self.idle, error))?;
            if ready.readable && !self.listen()? {
                return Ok(false);
            }
            if ready.writable {
                match self.conn.write(bytes) {
                    Ok(n) => (_, bytes) = bytes.split_at(n),
                    // A response, if there is one, explains the broken pipe.
                    Err(error) => return self.early_answer(error),
                }
            }
        }
        Ok(true)
    }

    /// Reads what the engine sent during the upload. Returns `false` if it is a refusal.
    fn listen(&mut self) -> Result<bool, Error> {
        let mut buffer = [0; READ];
        let n = match self.conn.read(&mut buffer, Some(Duration::ZERO)) {
            Ok(0) => return self.early_answer(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(true),
            Err(error) => return self.early_answer(error),
        };
        let bytes = filled(&buffer, n).map_err(|error| self.call.failed(SENDING, self.idle, error))?;
        self.take(bytes)?;
        Ok(self.answer.as_ref().is_none_or(|head| head.status < 300))
    }

    /// Reads the response of an engine that stopped reading the request. Returns `false` if there is one, else the error.
    fn early_answer(&mut self, error: io::Error) -> Result<bool, Error> {
        let failed = self.call.failed(SENDING, self.idle, error);
        if self.answer.is_none() && !failed.is_cancelled() {
            match self.read_head(self.idle) {
                Ok(head) => self.answer = Some(head),
                // A TLS alert explains the broken pipe too.
                Err(said) if said.is_cancelled() || said.tls().is_some() => return Err(said),
                Err(_) => return Err(failed),
            }
        }
        if self.answer.is_some() { Ok(false) } else { Err(failed) }
    }

    fn answer(&mut self, limit: Duration) -> Result<Head, Error> {
        self.answer.take().map_or_else(|| self.read_head(limit), Ok)
    }

    fn read_head(&mut self, limit: Duration) -> Result<Head, Error> {
        match self.try_read_head(limit)? {
            Some(head) => Ok(head),
            None => Err(self.call.failed(AWAITING, limit, io::ErrorKind::TimedOut.into())),
        }
    }

    /// Returns `None` if the head has not come within `limit`. What has come of it is kept.
    fn try_read_head(&mut self, limit: Duration) -> Result<Option<Head>, Error> {
        let deadline = deadline(limit);
        let mut buffer = [0; READ];
        loop {
            if let Some(head) = self.answer.take() {
                return Ok(Some(head));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.conn.read_later(&mut buffer, left) {
                Ok(0) if self.reader.is_empty() => return Err(self.call.ended(AWAITING)),
                Ok(0) => return Err(self.call.ended("reading the response's head")),
                Ok(n) => {
                    let bytes =
                        filled(&buffer, n).map_err(|error| self.call.failed(AWAITING, limit, error))?;
                    self.take(bytes)?;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.call.cancel.is_cancelled() => {
                    return Ok(None);
                }
                Err(error) => return Err(self.call.failed(AWAITING, limit, error)),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.answer = self.reader.push(bytes).map_err(|problem| self.call.broken(&problem))?;
        Ok(())
    }

    fn into_response(self, head: Head, to_head: bool, end: Option<End>) -> Result<Response, Error> {
        let framing = head.framing(to_head).map_err(|problem| self.call.broken(&problem))?;
        let source = BodySource { conn: self.conn, call: self.call, read_ahead: self.reader.into_rest() };
        Ok(Response { status: head.status, head, body: Body::new(source, framing, self.idle, end) })
    }
}

/// Reads the response to a request that was already sent.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn answer_over(conn: Conn, call: Call, limit: Duration, to_head: bool) -> Result<Response, Error> {
    let reader = HeadReader::default();
    let mut exchange = Exchange { conn, call, reader, answer: None, idle: limit };
    let head = exchange.read_head(limit)?;
    exchange.into_response(head, to_head, None)
}

/// A response with an unread body.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    head: Head,
    /// The unread body.
    pub body: Body,
}

impl Response {
    /// Returns the value of a header; the case of `name` does not matter.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// Returns the response if its status is 2xx, else [`Error::Engine`] with the message in its body, or [`Error::Forbidden`].
    pub fn success(mut self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let status = self.status;
        self.body.limit_as_a_whole();
        let (text, end) = self.body.read_start(MAX_ERROR_BODY);
        match end {
            Err(error) if error.is_cancelled() => Err(error),
            // The status counts, and part of a message is better than none.
            _ => Err(self.body.call().refused(status, &text)),
        }
    }

    /// Reads the whole body as JSON of any length. `T` must skip what it does not use.
    pub(super) fn long_json<T: serde::de::DeserializeOwned>(mut self) -> Result<T, Error> {
        self.body.long_json()
    }

    /// Reads the whole body as JSON, of at most 16 MiB.
    pub fn json<T: serde::de::DeserializeOwned>(mut self) -> Result<T, Error> {
        self.body.json()
    }
}

/// Returns the message of an error's body: that of an engine, or the plain text of a proxy.
pub(super) fn message(body: &[u8]) -> String {
    engine_message(body).unwrap_or_else(|| one_line(&String::from_utf8_lossy(body)))
}

/// Returns the message of an engine's error, `{"message": ...}`.
fn engine_message(body: &[u8]) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    json.get("message")?.as_str().map(one_line)
}
