//! Waits for an engine that has gone away in the middle of a task, and asks again what it did not answer.
//!
//! Owns how long that goes on, what counts as away, and that it is told once. It must not know what is asked: whoever asks must
//! be able to ask the same again.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use crate::docker::Error;
use crate::logging::error_chain;
use crate::logging::value;
use crate::sys::cancel::CancelToken;

/// First and longest pause between two questions.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often one question may be cut before it is given up. An engine that ends because of what is asked comes back each time.
const MOST_CUTS: u32 = 6;

/// Asks whether the engine is there.
pub(super) type Ping<'a> = &'a (dyn Fn(&CancelToken) -> Result<(), Error> + Sync);

/// Is told when the engine has gone away, and when that is over.
pub(super) type Tell<'a> = &'a (dyn Fn(bool) + Sync);

/// The engine, and who wants to know about it.
#[derive(Clone, Copy)]
pub(super) struct Watched<'a> {
    pub(super) address: &'a str,
    pub(super) ping: Ping<'a>,
    pub(super) tell: Tell<'a>,
}

/// One task's retry with the engine, shared by all who work for that task.
pub(super) struct Retry<'a> {
    /// The task, for logs.
    pub(super) task_id: &'a str,
    limit: Duration,
    engine: Watched<'a>,
    /// Cancelled when the worker stops: then nothing is waited for any more.
    stopping: &'a CancelToken,
    outage: Mutex<Outage>,
}

#[derive(Default)]
struct Outage {
    /// Its first failure. It stays when somebody has lost retry, so that the next one does not begin anew.
    since: Option<Instant>,
    waiting: usize,
}

/// What an error says of the engine.
enum Fault {
    /// Nothing: it has answered.
    None,
    /// The call was cut, but the engine is there.
    Interrupted,
    /// It is not there.
    Unreachable,
    /// It answers, but cannot do anything with containers at the moment.
    Degraded,
}

/// Somebody who waits. Dropping it without a word says that the wait was given up.
struct OutageWaiter<'a, 'b> {
    retry: &'a Retry<'b>,
    back: bool,
}

impl<'a> Retry<'a> {
    /// With an engine that is away for at most `limit` at a time. `stopping` is cancelled when the worker stops.
    pub(super) fn new(
        task_id: &'a str,
        limit: Duration,
        stopping: &'a CancelToken,
        engine: Watched<'a>,
    ) -> Self {
        Self { task_id, limit, engine, stopping, outage: Mutex::default() }
    }

    /// Asks, and asks again for as long as the engine is away; after any other error only while `again` says so, and no longer than
    /// the same time. The token ends the waiting, and nothing else.
    ///
    /// # Errors
    /// The last answer; [`Error::Unreachable`] when the engine stayed away; [`Error::Cancelled`] with the token.
    pub(super) fn call<T>(
        &self,
        cancel: &CancelToken,
        again: impl FnMut(&Error) -> bool,
        ask: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.call_until(cancel, cancel, again, ask)
    }

    /// As [`Retry::ask`] for what is done at the end of a task, whatever has ended it. A worker that stops waits for no
    /// engine that is away.
    ///
    /// # Errors
    /// As there.
    pub(super) fn cleanup<T>(
        &self,
        again: impl FnMut(&Error) -> bool,
        ask: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.call_until(&CancelToken::new(), self.stopping, again, ask)
    }

    /// `cancel` ends the pauses between two questions to an engine that is there, `hurry` those while it is not.
    fn call_until<T>(
        &self,
        cancel: &CancelToken,
        hurry: &CancelToken,
        mut again: impl FnMut(&Error) -> bool,
        mut ask: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (mut cuts, mut pause, mut since) = (0, PAUSE.0, None);
        // Kept over several questions to an engine that is unwell.
        let mut waiting: Option<OutageWaiter<'_, '_>> = None;
        loop {
            let error = match ask() {
                Ok(answer) => {
                    waiting.into_iter().for_each(OutageWaiter::over);
                    self.answered();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let trouble = self.trouble(cancel, &error);
            if !matches!(trouble, Fault::Degraded) {
                waiting.take().into_iter().for_each(OutageWaiter::over);
            }
            match trouble {
                Fault::None if again(&error) => {}
                Fault::Interrupted | Fault::Unreachable if cuts < MOST_CUTS => cuts += 1,
                Fault::Degraded => waiting = Some(waiting.unwrap_or_else(|| self.wait(&error))),
                _ => return Err(error),
            }
            if matches!(trouble, Fault::Unreachable) {
                if let Err(given_up) = self.until_back(hurry, &error) {
                    // Who was only stop_waiting_requested has not been cancelled: what is wrong is still the engine.
                    let stop_waiting_requested = given_up.is_cancelled() && !cancel.is_cancelled();
                    return Err(if stop_waiting_requested { error } else { given_up });
                }
                (pause, since) = (PAUSE.0, None);
                continue;
            }
            if since.get_or_insert_with(Instant::now).elapsed() >= self.limit {
                return Err(error);
            }
            debug!("engine asked again task={} error={}", value(self.task_id), value(&error_chain(&error)));
            let unwell = matches!(trouble, Fault::Degraded);
            if !(if unwell { hurry } else { cancel }).sleep(pause) {
                return Err(if cancel.is_cancelled() { Error::Cancelled } else { error });
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// An outage that somebody has lost retry with is over, too.
    fn answered(&self) {
        let mut outage = self.lock();
        if outage.waiting == 0 {
            outage.since = None;
        }
    }

    /// The engine itself is asked, since its last words before it goes can be anything.
    fn trouble(&self, cancel: &CancelToken, error: &Error) -> Fault {
        let last_words = matches!(error, Error::Engine { status: 500.., .. })
            || matches!(error, Error::Pull { .. } | Error::Protocol { .. } | Error::Upload { .. });
        if error.is_degraded() {
            Fault::Degraded
        } else if error.is_gone() || error.is_interrupted() {
            if (self.engine.ping)(cancel).is_ok() { Fault::Interrupted } else { Fault::Unreachable }
        } else if last_words && (self.engine.ping)(cancel).is_err_and(|error| error.is_gone()) {
            Fault::Unreachable
        } else {
            Fault::None
        }
    }

    /// Waits until the engine answers.
    fn until_back(&self, cancel: &CancelToken, error: &Error) -> Result<(), Error> {
        let waiting = self.wait(error);
        let mut pause = PAUSE.0;
        loop {
            let left = self.limit.saturating_sub(self.away_for());
            if !cancel.sleep(pause.min(left)) {
                return Err(Error::Cancelled);
            }
            match (self.engine.ping)(cancel) {
                Ok(()) => {
                    waiting.over();
                    return Ok(());
                }
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) if self.away_for() >= self.limit => {
                    return Err(error.into_unreachable(self.engine.address.to_owned()));
                }
                Err(_) => pause = (pause * 2).min(PAUSE.1),
            }
        }
    }

    fn away_for(&self) -> Duration {
        self.lock().since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// The first who waits tells that the engine is away; in the log, only the first of the whole outage.
    fn wait(&self, error: &Error) -> OutageWaiter<'_, 'a> {
        let mut outage = self.lock();
        if outage.since.is_none() {
            outage.since = Some(Instant::now());
            warn!("engine away task={} error={}", value(self.task_id), value(&error_chain(error)));
        }
        outage.waiting += 1;
        if outage.waiting == 1 {
            (self.engine.tell)(true);
        }
        OutageWaiter { retry: self, back: false }
    }

    fn lock(&self) -> MutexGuard<'_, Outage> {
        // What is told under the lock is told in its order; it does not panic.
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OutageWaiter<'_, '_> {
    fn over(mut self) {
        self.back = true;
    }
}

impl Drop for OutageWaiter<'_, '_> {
    /// The last who waits tells that it is over.
    fn drop(&mut self) {
        let mut outage = self.retry.lock();
        let away = outage.since.map(|since| since.elapsed()).unwrap_or_default();
        outage.waiting -= 1;
        if outage.waiting > 0 {
            return;
        }
        if self.back {
            outage.since = None;
            info!("engine back task={} away_ms={}", value(self.retry.task_id), away.as_millis());
        }
        (self.retry.engine.tell)(false);
    }
}

/// For [`Retry::ask`]: what the engine has answered is the answer.
pub(super) fn never(_: &Error) -> bool {
    false
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
