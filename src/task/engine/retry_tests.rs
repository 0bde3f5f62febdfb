//! Retries against an engine whose answers are scripted.

use std::io;

use super::*;
use crate::docker::ApiVersion;
use crate::sys::cancel::CancelReason;

const LIMIT: Duration = Duration::from_secs(60);

/// The answers to requests and to pings, each in order, and what was reported.
struct Script {
    answers: Mutex<Vec<Result<u32, Error>>>,
    pings: Mutex<Vec<Result<(), Error>>>,
    /// Whether the container runtime is lost, for each time it is asked for; not lost after that.
    lost: Mutex<Vec<bool>>,
    reported: Mutex<Vec<Option<String>>>,
}

impl Script {
    fn new(answers: Vec<Result<u32, Error>>, pings: Vec<Result<(), Error>>) -> Self {
        Self {
            answers: Mutex::new(answers),
            pings: Mutex::new(pings),
            lost: Mutex::default(),
            reported: Mutex::default(),
        }
    }

    fn losing(self, lost: Vec<bool>) -> Self {
        Self { lost: Mutex::new(lost), ..self }
    }

    fn play(
        &self,
        limit: Duration,
        cancel: &CancelToken,
        retryable: impl FnMut(&Error) -> bool,
    ) -> Result<u32, Error> {
        self.with(limit, cancel, |retry| retry.call(cancel, retryable, || self.next_answer()))
    }

    fn with<T>(&self, limit: Duration, stopping: &CancelToken, act: impl FnOnce(&Retry<'_>) -> T) -> T {
        let ping = |_: &CancelToken| self.pings.lock().unwrap().remove(0);
        let lost_runtime = |_: &CancelToken| {
            let mut lost = self.lost.lock().unwrap();
            Ok(!lost.is_empty() && lost.remove(0))
        };
        let report = |away: Option<String>| self.reported.lock().unwrap().push(away);
        let key = ExecutionKey::new("t", None);
        act(&Retry::new(
            &key,
            limit,
            stopping,
            Probe { address: "unix:///s", ping: &ping, lost_runtime: &lost_runtime, report: &report },
        ))
    }

    fn next_answer(&self) -> Result<u32, Error> {
        self.answers.lock().unwrap().remove(0)
    }

    fn reported(&self) -> Vec<bool> {
        self.reported.lock().unwrap().iter().map(Option::is_some).collect()
    }

    fn assert_used_up(&self) {
        assert!(self.answers.lock().unwrap().is_empty() && self.pings.lock().unwrap().is_empty());
    }
}

fn never(_: &Error) -> bool {
    false
}

fn exhausted() -> Error {
    Error::Exhausted { source: io::Error::other("too many open files") }
}

fn away() -> Error {
    Error::Unreachable { address: "unix:///s".into(), source: io::ErrorKind::ConnectionRefused.into() }
}

fn cut() -> Error {
    Error::Io { what: "x".into(), source: io::ErrorKind::UnexpectedEof.into() }
}

fn says(status: u16, message: &str) -> Error {
    Error::Engine { status, message: message.into() }
}

fn stalled() -> Error {
    Error::Timeout { what: "x".into(), after: LIMIT }
}

#[test]
fn an_outage_is_waited_out_and_its_begin_and_end_are_reported_once() {
    let script = Script::new(
        vec![Err(cut()), Err(says(500, "anything")), Ok(7)],
        vec![Err(away()), Err(stalled()), Ok(()), Err(cut()), Ok(())],
    );
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    assert_eq!(script.reported(), [true, false, true, false]);
    script.assert_used_up();
}

#[test]
fn a_cut_connection_to_a_running_engine_is_not_an_outage() {
    let script = Script::new(vec![Err(cut()), Ok(7)], vec![Ok(())]);
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    assert!(script.reported().is_empty());
    script.assert_used_up();
}

/// An engine that shuts down fails a request first, and is away a moment later.
#[test]
fn a_request_that_a_shutdown_interrupted_is_repeated() {
    for cut in [Error::Pull { message: "context canceled".into() }, says(500, "context canceled")] {
        let script = Script::new(vec![Err(cut), Ok(7)], vec![Ok(()), Err(away()), Ok(())]);
        assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
        assert_eq!(script.reported(), [true, false]);
        script.assert_used_up();
    }
}

/// The path of a file, or the answer of a sick registry.
#[test]
fn a_message_alone_decides_nothing() {
    for text in ["transport is closing", "connection error: desc = x", "context canceled"] {
        for error in [says(500, text), Error::Pull { message: text.into() }] {
            let script = Script::new(vec![Err(error)], vec![Ok(()), Ok(())]);
            let error = script.play(LIMIT, &CancelToken::new(), never).unwrap_err();
            assert!(error.to_string().ends_with(text));
            assert!(script.reported().is_empty(), "{text}");
            script.assert_used_up();
        }
    }
}

#[test]
fn a_failed_pull_says_nothing_about_the_container_runtime() {
    let pull = Error::Pull { message: "manifest unknown".into() };
    let script = Script::new(vec![Err(pull)], vec![Ok(())]).losing(vec![true]);
    script.play(LIMIT, &CancelToken::new(), never).unwrap_err();
    assert!(script.reported().is_empty());
}

#[test]
fn errors_that_the_engine_answers_are_not_retried() {
    for (error, pings) in [
        (says(404, "no"), vec![]),
        (says(500, "no"), vec![Ok(())]),
        // A slow engine is available.
        (says(500, "no"), vec![Err(stalled())]),
        (stalled(), vec![]),
        (Error::Pull { message: "manifest unknown".into() }, vec![Ok(())]),
    ] {
        let text = error.to_string();
        let script = Script::new(vec![Err(error)], pings);
        assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap_err().to_string(), text);
        assert!(script.reported().is_empty(), "{text}");
        script.assert_used_up();
    }
}

/// An engine that was restarted with another version answers again, but not to this client.
#[test]
fn an_engine_without_a_common_api_version_is_away_and_the_reason_is_reported() {
    let refused = || Error::Version {
        address: "unix:///s".into(),
        version: ApiVersion::MAX,
        message: "the minimum is 1.50".into(),
    };
    let pings = vec![Err(away()), Err(refused()), Err(refused()), Ok(()), Err(refused()), Ok(())];
    let script = Script::new(vec![Err(cut()), Err(refused()), Ok(7)], pings);
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    let reported = script.reported.lock().unwrap().clone();
    let reasons: Vec<_> = reported.iter().map(Option::as_deref).collect();
    let [lost, version, None, again, None] = reasons[..] else { panic!("{reasons:?}") };
    let refusal = "the docker engine at unix:///s refuses API version 1.47: the minimum is 1.50";
    assert!(lost.is_some_and(|reason| reason.contains("lost the connection")), "{reasons:?}");
    assert_eq!([version, again], [Some(refusal); 2]);
    script.assert_used_up();
}

#[test]
fn a_retryable_error_is_retried() {
    let script = Script::new(vec![Err(says(409, "a")), Err(stalled()), Err(says(404, "b"))], vec![]);
    let error = script.play(LIMIT, &CancelToken::new(), |error| !error.is_not_found()).unwrap_err();
    assert!(error.is_not_found() && script.reported().is_empty());
    script.assert_used_up();
}

/// Whatever its message is.
#[test]
fn an_engine_without_its_container_runtime_is_reported_as_away() {
    let answers = vec![Err(says(500, "transport is closing: unavailable")), Err(says(500, "x")), Ok(1)];
    let script = Script::new(answers, vec![Ok(()), Ok(())]).losing(vec![true, true]);
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 1);
    assert_eq!(script.reported(), [true, false]);
    script.assert_used_up();
}

/// A later call in the same outage does not wait the full limit again.
#[test]
fn the_limit_counts_from_the_first_failure_of_an_outage() {
    let pings = vec![Err(away()), Err(stalled()), Err(away()), Err(away()), Ok(()), Err(away()), Ok(())];
    let script = Script::new(vec![Err(cut()), Err(cut()), Err(cut()), Err(cut()), Ok(3)], pings);
    let token = CancelToken::new();
    script.with(Duration::ZERO, &token, |retry| {
        let call = || retry.call(&token, never, || script.next_answer());
        let error = call().unwrap_err();
        assert!(error.is_unreachable() && error_chain(&error).contains("stalled"), "{error:?}");
        assert!(call().unwrap_err().is_unreachable());
        // The engine is back, but this call was interrupted and its time is up.
        assert!(call().unwrap_err().is_connection_lost());
        assert_eq!(call().unwrap(), 3);
    });
    assert_eq!(script.reported(), [true, false, true, false, true, false]);
    script.assert_used_up();
}

#[test]
fn a_call_that_is_interrupted_too_often_fails() {
    let cuts = MAX_INTERRUPTIONS as usize;
    let pings = (0..cuts).flat_map(|_| [Err(away()), Ok(())]).chain([Err(away())]);
    let script = Script::new((0..=cuts).map(|_| Err(cut())).collect(), pings.collect());
    assert!(script.play(LIMIT, &CancelToken::new(), never).unwrap_err().is_connection_lost());
    assert_eq!(script.reported().len(), 2 * cuts);
    script.assert_used_up();
}

#[test]
fn a_cancel_ends_the_wait() {
    let script = Script::new(vec![Err(away())], vec![Err(away())]);
    let cancel = CancelToken::new();
    let answer = script.with(Duration::from_secs(3600), &cancel, |retry| {
        retry.call(&cancel, never, || {
            cancel.cancel(CancelReason::Requested);
            script.next_answer()
        })
    });
    assert!(answer.unwrap_err().is_cancelled());
    assert_eq!(script.reported(), [true, false]);
}

/// A clean-up waits out an outage unless the worker is stopping; retryable errors are still retried then.
#[test]
fn only_a_stopping_worker_ends_the_wait_of_a_cleanup() {
    let script = Script::new(vec![Err(away()), Ok(5)], vec![Err(away()), Ok(())]);
    let cleanup = |retry: &Retry<'_>| retry.cleanup(never, |_| script.next_answer());
    assert_eq!(script.with(LIMIT, &CancelToken::new(), cleanup).unwrap(), 5);

    let stopping = CancelToken::new();
    stopping.cancel(CancelReason::Shutdown);
    let script = Script::new(vec![Err(says(409, "busy")), Err(away())], vec![Err(away())]);
    let cleanup = |retry: &Retry<'_>| retry.cleanup(Error::is_conflict, |_| script.next_answer());
    let error = script.with(Duration::from_secs(3600), &stopping, cleanup).unwrap_err();
    assert!(error.is_gone(), "the call was not cancelled: {error}");
    script.assert_used_up();
}

#[test]
fn several_waiting_threads_report_once() {
    const MANY: usize = 4;
    let gone = std::sync::Barrier::new(MANY);
    let back = std::sync::atomic::AtomicUsize::new(0);
    let reported = Mutex::new(Vec::new());
    let report = |away: Option<String>| reported.lock().unwrap().push(away.is_some());
    // The engine is back only once all threads wait.
    let ping = |_: &CancelToken| match back.load(std::sync::atomic::Ordering::SeqCst) {
        MANY => Ok(()),
        _ => Err(away()),
    };
    let lost_runtime = |_: &CancelToken| Ok(false);
    let token = CancelToken::new();
    let key = ExecutionKey::new("t", None);
    let retry = Retry::new(
        &key,
        LIMIT,
        &token,
        Probe { address: "x", ping: &ping, lost_runtime: &lost_runtime, report: &report },
    );
    std::thread::scope(|scope| {
        let call = || {
            let mut failed = false;
            retry.call(&token, never, || {
                if std::mem::replace(&mut failed, true) {
                    return Ok(());
                }
                gone.wait();
                Err(cut())
            })
        };
        let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(call)).collect();
        while retry.lock().waiting < MANY {
            std::thread::yield_now();
        }
        back.store(MANY, std::sync::atomic::Ordering::SeqCst);
        assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_ok()));
    });
    assert_eq!(*reported.lock().unwrap(), [true, false]);
}

#[test]
fn a_lack_of_descriptors_is_waited_out_and_is_no_outage_of_the_engine() {
    let script = Script::new(vec![Err(exhausted()), Err(exhausted()), Ok(7)], vec![]);
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    // The ping after a cut had no descriptor.
    let cut_off = Script::new(vec![Err(cut()), Ok(7)], vec![Err(exhausted())]);
    assert_eq!(cut_off.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    let lasting = Script::new(vec![Err(exhausted())], vec![]);
    assert!(lasting.play(Duration::ZERO, &CancelToken::new(), never).unwrap_err().is_exhausted());
    for script in [script, cut_off, lasting] {
        script.assert_used_up();
        assert!(script.reported().is_empty(), "the engine is not away");
    }
}

#[test]
fn a_running_container_is_waited_for_without_descriptors_until_a_cancel() {
    let cancel = CancelToken::new();
    let running = |script: &Script| {
        script.with(Duration::ZERO, &cancel, |retry| {
            retry.call_running(&cancel, never, || script.next_answer())
        })
    };
    let script = Script::new(vec![Err(exhausted()), Err(exhausted()), Ok(7)], vec![]);
    assert_eq!(running(&script).unwrap(), 7);
    script.assert_used_up();
    cancel.cancel(CancelReason::Requested);
    let script = Script::new(vec![Err(exhausted())], vec![]);
    assert!(running(&script).unwrap_err().is_cancelled());
}
