//! Ends the reading of an output early when its task is cancelled, times out or is stopped meanwhile.

use std::time::Duration;

use super::Job;
use super::output::budget::Limits;
use crate::sys::cancel::{CancelReason, CancelToken, Watch};
use crate::sys::pool::spawn_detached;

/// Watches a job while its output is read. Dropping it ends the watch.
pub(super) struct ReadingWatch {
    reading: CancelToken,
    /// Whether the task was ended before the reading began.
    was_ended: bool,
    _watches: [Option<Watch>; 2],
}

impl ReadingWatch {
    /// Begins to watch. `was_ended` is set if an earlier process has ended the task: what this one is told is a second reason.
    pub(super) fn new(job: &Job, limits: Limits, was_ended: bool) -> Self {
        let reading = CancelToken::new();
        let is_cancelled = job.cancel.is_cancelled();
        // If it was ended before, the reading itself has the shorter limit.
        let first = (!is_cancelled).then(|| {
            let (reading, cancel) = (reading.clone(), job.cancel.clone());
            job.cancel.watch(move || {
                let is_unwanted =
                    matches!(cancel.reason(), Some(CancelReason::Requested | CancelReason::RunOver));
                let is_soon = was_ended || is_unwanted;
                cancel_after(&reading, if is_soon { limits.interrupted } else { limits.ended });
            })
        });
        let was_ended = was_ended || is_cancelled;
        let second = reading.clone();
        let second = job.interrupt.watch(move || cancel_after(&second, limits.interrupted));
        Self { reading, was_ended, _watches: [first, Some(second)] }
    }

    pub(super) fn was_ended(&self) -> bool {
        self.was_ended
    }

    /// Returns the token that ends the reading.
    pub(super) fn token(&self) -> &CancelToken {
        &self.reading
    }
}

impl Drop for ReadingWatch {
    /// Also ends the threads.
    fn drop(&mut self) {
        self.reading.cancel(CancelReason::Sibling);
    }
}

/// Cancels `reading` after `limit`. Returns at once: the main thread calls it.
fn cancel_after(reading: &CancelToken, limit: Duration) {
    let token = reading.clone();
    let wait = move || {
        token.sleep(limit);
        token.cancel(CancelReason::Sibling);
    };
    if spawn_detached("oz-limit", wait).is_err() {
        reading.cancel(CancelReason::Sibling);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::{AdoptedTask, JobId, Work};
    use crate::protocol::{Dialect, ExecutionKey};
    use crate::task::JobControl;

    const HOUR: Duration = Duration::from_secs(3600);

    fn job() -> Job {
        let key = ExecutionKey::new("t", None);
        let adopted = AdoptedTask {
            key,
            dialect: Dialect::default(),
            container: String::new(),
            created_as: String::new(),
            volumes: vec![],
            ran: None,
            reduced: None,
            ended_for: None,
        };
        Job {
            id: JobId(0),
            work: Work::Adopt(Arc::new(adopted)),
            cancel: CancelToken::new(),
            interrupt: CancelToken::new(),
            signals: JobControl::new().1,
        }
    }

    /// Of the two limits, `ended` and `interrupted`, one is an hour and the other nothing.
    fn watch(job: &Job, ended: Duration, interrupted: Duration) -> ReadingWatch {
        ReadingWatch::new(job, Limits { ended, interrupted, ..Limits::default() }, false)
    }

    fn wait(watch: &ReadingWatch) {
        assert!(!watch.token().sleep(Duration::from_secs(30)), "the reading goes on");
    }

    #[test]
    fn a_cancel_ends_the_reading_soon_and_a_stop_or_timeout_later() {
        for (reason, ended, interrupted) in [
            (CancelReason::Requested, HOUR, Duration::ZERO),
            (CancelReason::RunOver, HOUR, Duration::ZERO),
            (CancelReason::Shutdown, Duration::ZERO, HOUR),
            (CancelReason::TimedOut, Duration::ZERO, HOUR),
        ] {
            let job = job();
            let watch = watch(&job, ended, interrupted);
            assert!(!watch.was_ended() && !watch.token().is_cancelled());
            job.cancel.cancel(reason);
            wait(&watch);
        }
    }

    #[test]
    fn a_second_reason_ends_the_reading_soon() {
        let job = job();
        job.cancel.cancel(CancelReason::TimedOut);
        let watch = watch(&job, HOUR, Duration::ZERO);
        assert!(watch.was_ended() && !watch.token().is_cancelled());
        job.interrupt.cancel(CancelReason::Shutdown);
        wait(&watch);
    }

    #[test]
    fn a_reason_ends_the_reading_of_a_task_soon_that_an_earlier_process_ended() {
        for reason in [CancelReason::Requested, CancelReason::Shutdown] {
            let job = job();
            let limits = Limits { ended: HOUR, interrupted: Duration::ZERO, ..Limits::default() };
            let watch = ReadingWatch::new(&job, limits, true);
            assert!(watch.was_ended() && !watch.token().is_cancelled());
            job.cancel.cancel(reason);
            wait(&watch);
        }
    }

    #[test]
    fn a_second_reason_before_the_reading_counts_too() {
        let job = job();
        job.interrupt.cancel(CancelReason::Shutdown);
        wait(&watch(&job, HOUR, Duration::ZERO));
    }
}
