//! Repeats a call to the engine while the engine is unavailable.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::docker::Error;
use crate::logging::{error_chain, value};
use crate::protocol::ExecutionKey;
use crate::sys::cancel::{CancelReason, CancelToken};

/// The first pause between two attempts; each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often one call may be interrupted before it fails. A call that crashes the engine interrupts itself each time.
const MAX_INTERRUPTIONS: u32 = 6;

/// The pause before an engine is asked again whose message hints at an outage.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Returns whether the engine answers.
type Ping<'a> = &'a (dyn Fn(&CancelToken) -> Result<(), Error> + Sync);

/// Returns whether an engine that answers has lost its container runtime.
type LostRuntime<'a> = &'a (dyn Fn(&CancelToken) -> Result<bool, Error> + Sync);

/// How to check an engine, and where to report why it is away, or that it is back (`None`).
#[derive(Clone, Copy)]
pub(in crate::task) struct Probe<'a> {
    /// For error messages.
    pub(in crate::task) address: &'a str,
    pub(in crate::task) ping: Ping<'a>,
    pub(in crate::task) lost_runtime: LostRuntime<'a>,
    pub(in crate::task) report: &'a (dyn Fn(Option<String>) + Sync),
}

/// The retries of one task, shared by its threads.
pub(in crate::task) struct Retry<'a> {
    /// For log lines.
    key: &'a ExecutionKey,
    /// How long an outage may last, and how long one call is retried.
    limit: Duration,
    probe: Probe<'a>,
    /// Cancelled when the worker stops; clean-ups then no longer wait.
    stopping: &'a CancelToken,
    outage: Mutex<Outage>,
}

#[derive(Default)]
struct Outage {
    /// When its first call failed. Kept when a call gives up, so that the next call does not wait the full limit again.
    since: Option<Instant>,
    /// Calls that are waiting for its end.
    waiting: usize,
    /// It was reported that the engine refuses this client's API versions.
    refused: bool,
}

/// What an error says about the engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The engine answered the request.
    None,
    /// The call was cut off, but the engine is there.
    Interrupted,
    /// The engine does not answer.
    Unreachable,
    /// The engine answers, but cannot reach its container runtime.
    Degraded,
    /// The request was not sent, because the worker has no file descriptor left. Ended tasks free some.
    Exhausted,
}

/// Counts one call as waiting for the end of an outage. If dropped without [`OutageWaiter::over`], the call has given up.
struct OutageWaiter<'a, 'b> {
    retry: &'a Retry<'b>,
    over: bool,
}

impl<'a> Retry<'a> {
    /// `limit` bounds each outage. `stopping` is cancelled when the worker stops.
    pub(in crate::task) fn new(
        key: &'a ExecutionKey,
        limit: Duration,
        stopping: &'a CancelToken,
        probe: Probe<'a>,
    ) -> Self {
        Self { key, limit, probe, stopping, outage: Mutex::default() }
    }

    /// Repeats `request` while the engine is unavailable or `retryable` returns true for its error, each for at most the limit.
    /// `cancel` ends the pauses.
    ///
    /// # Errors
    /// The last error of `request`; [`Error::Unreachable`] if the engine stayed away; [`Error::Exhausted`] if the worker has no file
    /// descriptor left; [`Error::Cancelled`].
    pub(super) fn call<T>(
        &self,
        cancel: &CancelToken,
        retryable: impl FnMut(&Error) -> bool,
        request: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.repeat(cancel, cancel, retryable, request)
    }

    /// As [`Retry::call`], for a container that runs: waits for a file descriptor without a limit, because the task goes on
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Retry::call`], but never [`Error::Exhausted`].
    pub(super) fn call_running<T>(
        &self,
        cancel: &CancelToken,
        mut retryable: impl FnMut(&Error) -> bool,
        mut request: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            match self.call(cancel, &mut retryable, &mut request) {
                Err(error) if error.is_exhausted() => {
                    if !cancel.sleep(FIRST_PAUSE) {
                        return Err(Error::Cancelled);
                    }
                }
                result => return result,
            }
        }
    }

    /// As [`Retry::call`] with a fresh token, which is passed to `request`. Once the worker is stopping, it does
    /// not wait for an unavailable engine.
    ///
    /// # Errors
    /// As [`Retry::call`], but [`Error::Cancelled`] only if `request` returns it.
    pub(super) fn cleanup<T>(
        &self,
        retryable: impl FnMut(&Error) -> bool,
        mut request: impl FnMut(&CancelToken) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let cancel = CancelToken::new();
        self.repeat(&cancel, self.stopping, retryable, || request(&cancel))
    }

    /// As [`Retry::call`], but once the worker is stopping, it does not wait for an unavailable engine.
    ///
    /// # Errors
    /// As [`Retry::call`].
    pub(super) fn read<T>(
        &self,
        cancel: &CancelToken,
        request: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (stop_waiting, _linked) = cancel.child();
        let token = stop_waiting.clone();
        let _watch = self.stopping.watch(move || token.cancel(CancelReason::Shutdown));
        self.repeat(cancel, &stop_waiting, |_| false, request)
    }

    /// `cancel` ends the pauses while the engine is available, `stop_waiting` those while it is not.
    fn repeat<T>(
        &self,
        cancel: &CancelToken,
        stop_waiting: &CancelToken,
        mut retryable: impl FnMut(&Error) -> bool,
        mut request: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut interruptions = 0;
        let mut pause = FIRST_PAUSE;
        let mut since = None;
        // Lives across attempts while the engine is degraded, so that its outage is reported once.
        let mut waiter: Option<OutageWaiter<'_, '_>> = None;
        loop {
            let error = match request() {
                Ok(answer) => {
                    waiter.into_iter().for_each(OutageWaiter::over);
                    self.end_unwatched_outage();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let fault = self.fault(cancel, &error);
            if fault != Fault::Degraded {
                waiter.take().into_iter().for_each(OutageWaiter::over);
            }
            match fault {
                Fault::None if retryable(&error) => {}
                Fault::Interrupted | Fault::Unreachable if interruptions < MAX_INTERRUPTIONS => {
                    interruptions += 1;
                }
                Fault::Exhausted => {
                    if since.is_none() {
                        let error = error_chain(&error);
                        warn!("engine call delayed {} error={}", self.key, value(&error));
                    }
                }
                Fault::Degraded => waiter = Some(waiter.unwrap_or_else(|| self.wait(&error))),
                Fault::None | Fault::Interrupted | Fault::Unreachable => return Err(error),
            }
            if fault == Fault::Unreachable {
                if let Err(failure) = self.wait_until_back(stop_waiting, &error) {
                    // If only the waiting was stopped, the failure is still that of the engine.
                    let only_stopped = failure.is_cancelled() && !cancel.is_cancelled();
                    return Err(if only_stopped { error } else { failure });
                }
                pause = FIRST_PAUSE;
                since = None;
                continue;
            }
            if since.get_or_insert_with(Instant::now).elapsed() >= self.limit {
                return Err(error);
            }
            debug!("engine call retried {} error={}", self.key, value(&error_chain(&error)));
            let is_outage = matches!(fault, Fault::Degraded | Fault::Exhausted);
            let token = if is_outage { stop_waiting } else { cancel };
            if !token.sleep(pause) {
                return Err(if cancel.is_cancelled() { Error::Cancelled } else { error });
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Ends an outage that no call waits for any more, because all of them gave up.
    fn end_unwatched_outage(&self) {
        let mut outage = self.lock();
        if outage.waiting == 0 {
            outage.since = None;
        }
    }

    /// Classifies an error. An engine that is shutting down can answer anything, so after a server error it is asked how it is.
    /// Its message decides nothing: it may quote a path or a registry. It is at most a reason to ask again a moment later.
    fn fault(&self, cancel: &CancelToken, error: &Error) -> Fault {
        if error.is_exhausted() {
            return Fault::Exhausted;
        }
        if error.is_gone() {
            return match (self.probe.ping)(cancel) {
                Ok(()) => Fault::Interrupted,
                Err(error) if error.is_exhausted() => Fault::Exhausted,
                Err(_) => Fault::Unreachable,
            };
        }
        let may_be_shutdown = matches!(error, Error::Engine { status: 500.., .. })
            || matches!(error, Error::Pull { .. } | Error::Protocol { .. } | Error::Upload { .. });
        if !may_be_shutdown {
            return Fault::None;
        }
        match self.state(cancel, error) {
            Fault::None if error.hints_at_outage() && cancel.sleep(LOOK_AGAIN) => self.state(cancel, error),
            fault => fault,
        }
    }

    /// Asks the engine how it is, after an error. A failed pull says nothing about its container runtime.
    fn state(&self, cancel: &CancelToken, error: &Error) -> Fault {
        if (self.probe.ping)(cancel).is_err_and(|error| error.is_gone()) {
            return Fault::Unreachable;
        }
        let is_call = matches!(error, Error::Engine { .. });
        if is_call && (self.probe.lost_runtime)(cancel).is_ok_and(|lost| lost) {
            return Fault::Degraded;
        }
        Fault::None
    }

    /// Pings until the engine answers, the limit has passed or `stop_waiting` is cancelled.
    fn wait_until_back(&self, stop_waiting: &CancelToken, error: &Error) -> Result<(), Error> {
        let waiter = self.wait(error);
        let mut pause = FIRST_PAUSE;
        loop {
            let remaining = self.limit.saturating_sub(self.outage_length());
            if !stop_waiting.sleep(pause.min(remaining)) {
                return Err(Error::Cancelled);
            }
            match (self.probe.ping)(stop_waiting) {
                Ok(()) => {
                    waiter.over();
                    return Ok(());
                }
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) if self.outage_length() >= self.limit => {
                    return Err(error.into_unreachable(self.probe.address.to_owned()));
                }
                Err(error) => {
                    self.explain(&error);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn outage_length(&self) -> Duration {
        self.lock().since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Begins to wait. The first waiter reports that the engine is away; the log has one line for each outage.
    fn wait(&self, error: &Error) -> OutageWaiter<'_, 'a> {
        let mut outage = self.lock();
        if outage.since.is_none() {
            outage.since = Some(Instant::now());
            outage.refused = false;
            warn!("engine away {} error={}", self.key, value(&error_chain(error)));
        }
        outage.waiting += 1;
        if outage.waiting == 1 {
            (self.probe.report)(Some(error_chain(error)));
        }
        outage.refused |= matches!(error, Error::Version { .. });
        OutageWaiter { retry: self, over: false }
    }

    /// Reports an engine that answers again during an outage, but in no API version that this client has. Once for each
    /// outage.
    fn explain(&self, error: &Error) {
        let mut outage = self.lock();
        if !matches!(error, Error::Version { .. }) || std::mem::replace(&mut outage.refused, true) {
            return;
        }
        let reason = error_chain(error);
        warn!("engine still away {} error={}", self.key, value(&reason));
        (self.probe.report)(Some(reason));
    }

    fn lock(&self) -> MutexGuard<'_, Outage> {
        // Reports are sent under the lock to keep their order; sending does not panic.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutageWaiter<'_, '_> {
    fn over(mut self) {
        self.over = true;
    }
}

impl Drop for OutageWaiter<'_, '_> {
    /// The last waiter reports that no call waits for the engine any more.
    fn drop(&mut self) {
        let mut outage = self.retry.lock();
        let away = outage.since.map(|since| since.elapsed()).unwrap_or_default();
        outage.waiting -= 1;
        if outage.waiting > 0 {
            return;
        }
        if self.over {
            outage.since = None;
            info!("engine back {} away_ms={}", self.retry.key, away.as_millis());
        }
        (self.retry.probe.report)(None);
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
