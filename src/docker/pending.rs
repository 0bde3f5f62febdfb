//! Calls that are sent now and answered later, so that the engine works on several at once without a thread for each.

use std::time::Duration;

use super::exchange::Sent;
use super::request::Limit;
use super::timeouts::End;
use super::{ApiVersion, Docker, Error, Method, Request, RequestTarget, Response};
use crate::sys::cancel::CancelToken;

/// A call that was sent. Dropping it abandons the call, which the engine may execute nevertheless.
#[must_use = "the answer is not read"]
pub struct Pending<T> {
    sent: Sent,
    docker: Docker,
    cancel: CancelToken,
    version: ApiVersion,
    /// The request, which has neither headers nor a body, in case that the engine refuses the version.
    method: Method,
    target: RequestTarget,
    limit: Option<Limit>,
    end: Option<End>,
    decode: fn(Response) -> Result<T, Error>,
}

impl<T> Pending<T> {
    pub(super) fn send(
        docker: &Docker,
        cancel: &CancelToken,
        mut request: Request<'static>,
        decode: fn(Response) -> Result<T, Error>,
    ) -> Result<Self, Error> {
        let (docker, cancel) = (docker.clone(), cancel.clone());
        let version = docker.api_version();
        let sent = docker.dialer().send(&cancel, &mut request)?;
        let Request { method, target, limit, end, .. } = request;
        Ok(Self { sent, docker, cancel, version, method, target, limit, end, decode })
    }

    /// Waits at most `limit` for the beginning of the answer, and returns whether it has come.
    pub(super) fn head_came(&mut self, limit: Duration) -> Result<bool, Error> {
        self.sent.head_came(limit)
    }

    /// Waits for the answer. Its time limit begins now.
    ///
    /// # Errors
    /// As the call itself.
    pub fn finish(self) -> Result<T, Error> {
        let Self { sent, docker, cancel, version, method, target, limit, end, decode } = self;
        let response = sent.response()?;
        let mut request = Request { limit, end, ..Request::new(method, target) };
        decode(docker.answer(&cancel, version, response, &mut request)?)
    }
}
