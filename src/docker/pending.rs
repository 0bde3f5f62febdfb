//! Calls that are sent now and answered later, so that the engine works on several at once without a thread for each.

use super::exchange::Sent;
use super::{ApiVersion, Docker, Error, Request, Response};
use crate::sys::cancel::CancelToken;

/// A call that was sent. Dropping it abandons the call, which the engine may execute nevertheless.
#[must_use = "the answer is not read"]
pub struct Pending<T> {
    sent: Sent,
    docker: Docker,
    cancel: CancelToken,
    version: ApiVersion,
    /// In case that the engine refuses the version.
    request: Request<'static>,
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
        Ok(Self { sent, docker, cancel, version, request, decode })
    }

    /// Waits for the answer. Its time limit begins now.
    ///
    /// # Errors
    /// As the call itself.
    pub fn finish(mut self) -> Result<T, Error> {
        let response = self.sent.response()?;
        (self.decode)(self.docker.answer(&self.cancel, self.version, response, &mut self.request)?)
    }
}
