//! Work that is given up after a time, whatever it waits for.

use std::time::Duration;

use crossbeam_channel::bounded;

use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::pool::spawn_detached;

/// Runs `work` on the thread `oz-step`. Returns its result, or `None` if there is none after `limit`, or no thread. Then its token is
/// cancelled, and the thread is left to end when it can: for a process that is about to end.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&CancelToken) -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = bounded(1);
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let step = move || {
        // Fails if the time is over.
        let _ = done.send(work(&token));
    };
    spawn_detached("oz-step", step).ok()?;
    let result = result.recv_timeout(limit).ok();
    if result.is_none() {
        cancel.cancel(CancelReason::TimedOut);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_takes_too_long_is_given_up_and_cancelled() {
        assert_eq!(within(Duration::from_secs(60), |_| 7), Some(7));
        let (ended, end) = bounded(1);
        let wait = move |cancel: &CancelToken| {
            cancel.sleep(Duration::from_secs(3600));
            ended.send(cancel.reason()).unwrap();
        };
        assert_eq!(within(Duration::from_millis(10), wait), None);
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(Some(CancelReason::TimedOut)));
        assert_eq!(within(Duration::from_secs(60), |_| panic!("on purpose")), None::<()>);
    }
}
