//! Retry with an engine that is a script of answers.

use std::io;

use super::*;
use crate::sys::cancel::CancelReason;

const LIMIT: Duration = Duration::from_secs(60);

/// Answers of the engine and to pings, each in its order, and what was told.
struct Script {
    answers: Mutex<Vec<Result<u32, Error>>>,
    pings: Mutex<Vec<Result<(), Error>>>,
    told: Mutex<Vec<bool>>,
}

impl Script {
    fn new(answers: Vec<Result<u32, Error>>, pings: Vec<Result<(), Error>>) -> Self {
        let (answers, pings) = (Mutex::new(answers), Mutex::new(pings));
        Self { answers, pings, told: Mutex::default() }
    }

    fn play(
        &self,
        limit: Duration,
        job: &CancelToken,
        again: impl FnMut(&Error) -> bool,
    ) -> Result<u32, Error> {
        self.with(limit, job, |retry| retry.call(job, again, || self.answers.lock().unwrap().remove(0)))
    }

    fn with<T>(&self, limit: Duration, stopping: &CancelToken, act: impl FnOnce(&Retry<'_>) -> T) -> T {
        let ping = |_: &CancelToken| self.pings.lock().unwrap().remove(0);
        let tell = |away| self.told.lock().unwrap().push(away);
        act(&Retry::new("t", limit, stopping, Watched { address: "unix:///s", ping: &ping, tell: &tell }))
    }

    fn told(&self) -> Vec<bool> {
        self.told.lock().unwrap().clone()
    }

    fn assert_through(&self) {
        assert!(self.answers.lock().unwrap().is_empty() && self.pings.lock().unwrap().is_empty());
    }
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
fn an_engine_that_comes_back_is_asked_again_and_both_are_told_once() {
    let script = Script::new(
        vec![Err(cut()), Err(says(500, "anything")), Ok(7)],
        vec![Err(away()), Err(stalled()), Ok(()), Err(cut()), Ok(())],
    );
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    assert_eq!(script.told(), [true, false, true, false]);
    script.assert_through();
}

#[test]
fn a_connection_that_was_cut_by_somebody_else_is_no_engine_that_is_away() {
    let script = Script::new(vec![Err(cut()), Ok(7)], vec![Ok(())]);
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    assert!(script.told().is_empty());
    script.assert_through();
}

#[test]
fn an_engine_that_gave_up_by_itself_is_asked_again() {
    let cut = || Error::Pull { message: "context canceled".into() };
    let script = Script::new(vec![Err(cut()), Err(cut()), Ok(7)], vec![Ok(()), Err(away()), Ok(())]);
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 7);
    assert_eq!(script.told(), [true, false]);
    script.assert_through();
}

#[test]
fn what_the_engine_answers_is_the_answer() {
    for (error, pings) in [
        (says(404, "no"), vec![]),
        (says(500, "no"), vec![Ok(())]),
        // An engine that is slow is there.
        (says(500, "no"), vec![Err(stalled())]),
        (stalled(), vec![]),
        (Error::Pull { message: "manifest unknown".into() }, vec![Ok(())]),
    ] {
        let text = error.to_string();
        let script = Script::new(vec![Err(error)], pings);
        assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap_err().to_string(), text);
        assert!(script.told().is_empty(), "{text}");
        script.assert_through();
    }
}

#[test]
fn an_error_that_is_worth_it_is_tried_again() {
    let script = Script::new(vec![Err(says(409, "a")), Err(stalled()), Err(says(404, "b"))], vec![]);
    let error = script.play(LIMIT, &CancelToken::new(), |error| !error.is_not_found()).unwrap_err();
    assert!(error.is_not_found() && script.told().is_empty());
    script.assert_through();
}

#[test]
fn an_engine_without_its_containers_is_as_good_as_away() {
    let script = Script::new(
        vec![
            Err(says(500, "transport is closing: unavailable")),
            Err(says(500, "connection error: desc = x")),
            Ok(1),
        ],
        vec![],
    );
    assert_eq!(script.play(LIMIT, &CancelToken::new(), never).unwrap(), 1);
    assert_eq!(script.told(), [true, false]);
    script.assert_through();
}

/// Whoever comes later in the same outage has no time left of his own.
#[test]
fn patience_ends_and_does_not_begin_anew_in_the_same_outage() {
    let pings = vec![Err(away()), Err(stalled()), Err(away()), Err(away()), Ok(()), Err(away()), Ok(())];
    let script = Script::new(vec![Err(cut()), Err(cut()), Err(cut()), Err(cut()), Ok(3)], pings);
    let token = CancelToken::new();
    script.with(Duration::ZERO, &token, |retry| {
        let ask = || retry.call(&token, never, || script.answers.lock().unwrap().remove(0));
        let error = ask().unwrap_err();
        assert!(error.is_unreachable() && error_chain(&error).contains("stalled"), "{error:?}");
        assert!(ask().unwrap_err().is_unreachable());
        // The engine is there but this call was cut: that is all the answer there is.
        assert!(ask().unwrap_err().is_connection_lost());
        assert_eq!(ask().unwrap(), 3);
    });
    assert_eq!(script.told(), [true, false, true, false, true, false]);
    script.assert_through();
}

#[test]
fn an_engine_that_goes_away_each_time_is_given_up() {
    let cuts = MOST_CUTS as usize;
    let pings = (0..cuts).flat_map(|_| [Err(away()), Ok(())]).chain([Err(away())]);
    let script = Script::new((0..=cuts).map(|_| Err(cut())).collect(), pings.collect());
    assert!(script.play(LIMIT, &CancelToken::new(), never).unwrap_err().is_connection_lost());
    assert_eq!(script.told().len(), 2 * cuts);
    script.assert_through();
}

#[test]
fn a_cancel_ends_the_wait() {
    let script = Script::new(vec![Err(away())], vec![Err(away())]);
    let job = CancelToken::new();
    let answer = script.with(Duration::from_secs(3600), &job, |retry| {
        retry.call(&job, never, || {
            job.cancel(CancelReason::Requested);
            script.answers.lock().unwrap().remove(0)
        })
    });
    assert!(answer.unwrap_err().is_cancelled());
    assert_eq!(script.told(), [true, false]);
}

/// What must be done at the end waits also in a task that was cancelled, but not in a worker that stops, and there it is still
/// tried a few times.
#[test]
fn only_a_stop_ends_the_wait_at_the_end() {
    let script = Script::new(vec![Err(away()), Ok(5)], vec![Err(away()), Ok(())]);
    let ask = |retry: &Retry<'_>| retry.cleanup(never, || script.answers.lock().unwrap().remove(0));
    assert_eq!(script.with(LIMIT, &CancelToken::new(), ask).unwrap(), 5);

    let stopping = CancelToken::new();
    stopping.cancel(CancelReason::Shutdown);
    let script = Script::new(vec![Err(says(409, "busy")), Err(away())], vec![Err(away())]);
    let ask =
        |retry: &Retry<'_>| retry.cleanup(Error::is_conflict, || script.answers.lock().unwrap().remove(0));
    let error = script.with(Duration::from_secs(3600), &stopping, ask).unwrap_err();
    assert!(error.is_gone(), "nobody has cancelled it: {error}");
    script.assert_through();
}

#[test]
fn many_who_wait_for_one_task_tell_once() {
    const MANY: usize = 4;
    let (gone, back) = (std::sync::Barrier::new(MANY), std::sync::atomic::AtomicUsize::new(0));
    let told = Mutex::new(Vec::new());
    let tell = |away| told.lock().unwrap().push(away);
    // Comes back only when all of them wait.
    let ping = |_: &CancelToken| match back.load(std::sync::atomic::Ordering::SeqCst) {
        MANY => Ok(()),
        _ => Err(away()),
    };
    let token = CancelToken::new();
    let retry = Retry::new("t", LIMIT, &token, Watched { address: "x", ping: &ping, tell: &tell });
    std::thread::scope(|scope| {
        let ask = || {
            let mut asked = false;
            retry.call(&token, never, || {
                if std::mem::replace(&mut asked, true) {
                    return Ok(());
                }
                gone.wait();
                Err(cut())
            })
        };
        let threads: Vec<_> = (0..MANY).map(|_| scope.spawn(ask)).collect();
        while retry.lock().waiting < MANY {
            std::thread::yield_now();
        }
        back.store(MANY, std::sync::atomic::Ordering::SeqCst);
        assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_ok()));
    });
    assert_eq!(*told.lock().unwrap(), [true, false]);
}
