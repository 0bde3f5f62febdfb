//! One task's handle to the engine: calls that wait for an engine that is unavailable.

mod retry;

use crate::docker::{Docker, Error};
use crate::job::Leftover;
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelToken;

use super::processes::Processes;
pub(super) use retry::{Probe, Retry};

/// Calls the engine for one task, or for a part of it that can be cancelled on its own.
#[derive(Clone)]
pub(super) struct TaskEngine<'a> {
    pub(super) docker: &'a Docker,
    pub(super) key: &'a ExecutionKey,
    /// Ends what [`TaskEngine::call`] is doing.
    pub(super) cancel: CancelToken,
    /// Shared by all parts of the task, so that they agree on when an outage began.
    pub(super) retry: &'a Retry<'a>,
    /// Which other processes of this worker have ended.
    pub(super) processes: &'a Processes,
    /// Takes a helper container that could not be removed.
    pub(super) helper_left: &'a (dyn Fn(Leftover) + Sync),
}

impl TaskEngine<'_> {
    /// The same engine for a part of the task with its own token.
    pub(super) fn with_cancel(&self, cancel: CancelToken) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// Runs `request` under the task's token, and repeats it while the engine is unavailable. It must be safe to repeat.
    ///
    /// # Errors
    /// The engine's last error; [`Error::Unreachable`] if the engine stayed away; [`Error::Cancelled`].
    pub(super) fn call<T>(
        &self,
        request: impl FnMut(&Docker, &CancelToken) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.call_retrying(|_| false, request)
    }

    /// As [`TaskEngine::call`], but also retries errors for which `retryable` returns true.
    ///
    /// # Errors
    /// As [`TaskEngine::call`].
    pub(super) fn call_retrying<T>(
        &self,
        retryable: impl FnMut(&Error) -> bool,
        mut request: impl FnMut(&Docker, &CancelToken) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retry.call(&self.cancel, retryable, || request(self.docker, &self.cancel))
    }

    /// As [`TaskEngine::call_retrying`], for a container that runs: waits for a file descriptor without a limit.
    ///
    /// # Errors
    /// As [`TaskEngine::call`].
    pub(super) fn call_running<T>(
        &self,
        retryable: impl FnMut(&Error) -> bool,
        mut request: impl FnMut(&Docker, &CancelToken) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retry.call_running(&self.cancel, retryable, || request(self.docker, &self.cancel))
    }

    /// As [`TaskEngine::call`] for clean-up, which a cancelled task still needs: `request` gets a fresh token. Once the
    /// worker is stopping, it does not wait for an unavailable engine.
    ///
    /// # Errors
    /// The engine's last error; [`Error::Unreachable`] if the engine stayed away.
    pub(super) fn cleanup<T>(
        &self,
        request: impl FnMut(&Docker, &CancelToken) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.cleanup_retrying(|_| false, request)
    }

    /// As [`TaskEngine::cleanup`] for reading what an ended task has left. `cancel`, which `request` must use, also ends the wait
    /// for an unavailable engine.
    ///
    /// # Errors
    /// As [`TaskEngine::cleanup`], or [`Error::Cancelled`].
    pub(super) fn read<T>(
        &self,
        cancel: &CancelToken,
        mut request: impl FnMut(&Docker) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retry.read(cancel, || request(self.docker))
    }

    /// As [`TaskEngine::cleanup`], but also retries errors for which `retryable` returns true.
    ///
    /// # Errors
    /// As [`TaskEngine::cleanup`].
    pub(super) fn cleanup_retrying<T>(
        &self,
        retryable: impl FnMut(&Error) -> bool,
        mut request: impl FnMut(&Docker, &CancelToken) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.retry.cleanup(retryable, |cancel| request(self.docker, cancel))
    }
}
