//! Calls that are sent now and answered later, so that the engine works on several at once without a thread for each.

use super::exchange::Sent;
use super::{Error, Response};

/// A call that was sent. Dropping it abandons the call, which the engine may execute nevertheless.
#[must_use = "the answer is not read"]
pub struct Pending<T> {
    sent: Sent,
    decode: fn(Response) -> Result<T, Error>,
}

impl<T> Pending<T> {
    pub(super) fn new(sent: Sent, decode: fn(Response) -> Result<T, Error>) -> Self {
        Self { sent, decode }
    }

    /// Waits for the answer. Its time limit begins now.
    ///
    /// # Errors
    /// As the call itself.
    pub fn finish(self) -> Result<T, Error> {
        (self.decode)(self.sent.response()?)
    }
}
