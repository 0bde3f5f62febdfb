//! One request and its answer.

use std::io::{self, Read};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::{ApiVersion, Endpoint, Error, Request, Timeouts};
use crate::cancel::CancelToken;

/// What an exchange needs to know of the engine.
#[derive(Clone, Copy)]
pub(super) struct Dial<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) timeouts: &'a Timeouts,
    pub(super) version: Option<ApiVersion>,
}

impl Dial<'_> {
    pub(super) fn exchange(&self, _cancel: &CancelToken, request: Request<'_>) -> Result<Response, Error> {
        let _ = (self.endpoint.host_header(), self.timeouts, self.version, request.name());
        let _ = (request.target.on_the_wire(), request.headers, request.payload, request.head_within);
        Err(Error::protocol("not built yet"))
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// What follows the head.
    pub body: Body,
}

impl Response {
    /// A header's value, whatever the case of its name.
    pub fn header(&self, _name: &str) -> Option<&str> {
        None
    }

    /// The response when its status is 2xx, else [`Error::Engine`] with the message of its body.
    pub fn success(self) -> Result<Self, Error> {
        Ok(self)
    }

    /// The whole body as JSON.
    pub fn json<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        self.body.json()
    }
}

/// A response's body, read as it comes. An end before the promised one is an error, never `Ok(0)`.
#[derive(Debug)]
pub struct Body(());

impl Body {
    pub(super) fn read_within(&mut self, _buf: &mut [u8], _wait: Duration) -> Result<Option<usize>, Error> {
        Ok(None)
    }

    pub(super) fn read_more(&mut self, _buf: &mut [u8]) -> Result<usize, Error> {
        Ok(0)
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        Err(Error::protocol("not built yet"))
    }

    pub(super) fn stalled(&self, after: Duration) -> Error {
        Error::Timeout { what: String::new(), after }
    }

    pub(super) fn never_idle(&mut self) {}
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_more(buf).map_err(Error::into_read)
    }
}
