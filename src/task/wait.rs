//! Waits for the exit of a container, also behind a proxy that holds the engine's answer back until then.

use std::time::Duration;

use super::engine::TaskEngine;
use crate::docker::{Docker, Error, Wait};
use crate::sys::cancel::CancelToken;

/// How long a start waits for the engine to tell that it waits for the exit.
const HEAD: Duration = Duration::from_secs(2);

/// How often a container is inspected until the engine has told that.
const INSPECT_PAUSE: Duration = Duration::from_secs(5);

/// The same after [`QUICK_INSPECTS`].
const LATER_INSPECT_PAUSE: Duration = Duration::from_secs(30);

/// One minute with [`INSPECT_PAUSE`].
const QUICK_INSPECTS: u32 = 12;

/// Returns a wait once the engine has told that it waits, or after [`HEAD`].
pub(super) fn take_up(docker: &Docker, cancel: &CancelToken, id: &str) -> Result<Wait, Error> {
    let mut wait = docker.container_wait(cancel, id)?;
    begin(&mut wait)?;
    Ok(wait)
}

/// Returns once the engine has told that it waits, or after [`HEAD`].
pub(super) fn begin(wait: &mut Wait) -> Result<(), Error> {
    wait.begin(HEAD).map(drop)
}

/// Waits for the exit of a container, and returns its code if the engine has told it. If the engine had not told that it waits
/// when the container was started, the container is inspected until it has, and once after that: it may have exited before.
///
/// # Errors
/// As [`Wait::join`], or those of an inspect.
pub(super) fn join(engine: &TaskEngine<'_>, id: &str, mut wait: Wait) -> Result<Option<i64>, Error> {
    if wait.has_begun() {
        return wait.join().map(Some);
    }
    let mut inspects = 0;
    loop {
        let began = wait.begin(inspect_pause(inspects))?;
        let state =
            engine.call_running(|_| false, |docker, cancel| docker.container_inspect(cancel, id))?.state;
        if !state.running && state.status != "paused" {
            return Ok(None);
        }
        if began {
            return wait.join().map(Some);
        }
        inspects += 1;
    }
}

/// Starts a created container, and returns its exit code once it has exited. An exit that the wait has missed is found by an
/// inspect.
///
/// # Errors
/// Those of the calls; [`Error::is_cancelled`] after a cancel.
pub(super) fn run(engine: &TaskEngine<'_>, id: &str) -> Result<i64, Error> {
    let wait = take_up(engine.docker, &engine.cancel, id)?;
    engine.docker.container_start(&engine.cancel, id)?;
    match join(engine, id, wait)? {
        Some(code) => Ok(code),
        None => Ok(engine.docker.container_inspect(&engine.cancel, id)?.state.exit_code),
    }
}

/// Returns the pause before the next inspect, after this number of them.
fn inspect_pause(inspects: u32) -> Duration {
    if inspects < QUICK_INSPECTS { INSPECT_PAUSE } else { LATER_INSPECT_PAUSE }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::sys::cancel::CancelReason;
    use crate::task::scripted_engine::{ScriptedEngine, json};

    const DEADLINE: Duration = Duration::from_secs(40);

    /// Runs a container that exits at its start at an engine that answers a wait so.
    fn check_missed(answer_wait: impl Fn(&mut UnixStream, &Receiver<()>) + Send + Sync + 'static) {
        let (start, started) = bounded(1);
        let engine = ScriptedEngine::start(move |line, stream| match line {
            _ if line.contains("/wait?") => answer_wait(stream, &started),
            _ if line.contains("/json") => {
                json(stream, 200, r#"{"Id":"c","Name":"/c","State":{"Status":"exited","ExitCode":3}}"#);
            }
            _ => {
                json(stream, 204, "");
                if line.contains("/start") {
                    start.send(()).expect("a wait");
                }
            }
        });
        let cancel = CancelToken::new();
        std::thread::scope(|scope| {
            let (sender, result) = bounded(1);
            let (engine, token) = (&engine, &cancel);
            scope.spawn(move || sender.send(engine.with(token, |engine| run(engine, "c").ok())));
            let code = result.recv_timeout(DEADLINE);
            cancel.cancel(CancelReason::Requested);
            assert_eq!(code, Ok(Some(3)));
        });
    }

    #[test]
    fn an_exit_before_a_wait_that_is_not_answered_is_found_by_an_inspect() {
        // Returns once the client goes.
        check_missed(|stream, _| drop(stream.read(&mut [0])));
    }

    #[test]
    fn an_exit_before_the_wait_begins_is_found_by_an_inspect() {
        check_missed(|stream, started| {
            started.recv().expect("a start");
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let _ = stream.read(&mut [0]);
        });
    }

    #[test]
    fn a_container_is_inspected_every_5_s_for_a_minute_and_then_every_30_s() {
        let mut at = Duration::ZERO;
        let times = (0..14).map(|inspects| {
            at += inspect_pause(inspects);
            at.as_secs()
        });
        let times: Vec<_> = times.collect();
        assert_eq!(times, [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 90, 120]);
    }
}
