//! Stops by signals: running tasks are stopped and reported, others are rejected, and the connection is closed properly.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use super::accept_and_stall;
use crate::support::control_plane::State;
use crate::support::control_plane::model::Ended;
use crate::support::engine_proxy::EngineProxy;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{Worker, WorkerBuilder, binary, worker_id};

/// Waits until the worker exits with 0.
fn wait_exit_ok(worker: &mut Worker) {
    let status = worker.wait_exit(DEADLINE);
    assert_eq!(status.code(), Some(0), "{:#?}", worker.stderr().all());
}

/// Checks that the last connection ended with the worker's close frame.
pub(super) fn sent_close_frame(stage: &Stage) {
    stage.plane.wait_for(DEADLINE, |model| model.connections.last().is_some_and(|last| last.ended.is_some()));
    let ended = stage.plane.view(|model| model.connections.last().and_then(|last| last.ended));
    assert!(matches!(ended, Some(Ended::Closed(Some(1000)))), "{ended:?}");
    stage.plane.assert_no_violations();
}

/// Two tasks run, and the worker does not drain; on SIGTERM one exits with 7 and one with 0. A third waits for a slot.
fn stop_with(signal: Signal) {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let mut worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "2", "-v", &sync.mount()]));
    let script = |code| {
        format!("trap 'echo bye; exit {code}' TERM; echo so far; echo >> /sync/log; sleep 1000 & wait")
    };
    let running = [7, 0].map(|code| stage.plane.submit(stage.spec(&script(code))));
    sync.wait_lines(&stage, 2);
    let waiting = stage.plane.submit(stage.spec("echo >> /sync/log"));
    worker.wait_log(DEADLINE, |line| line.contains("assignment received") && line.contains(&waiting));
    worker.signal(signal);
    wait_exit_ok(&mut worker);
    sent_close_frame(&stage);
    for (id, code) in running.iter().zip([7, 0]) {
        let run = stage.plane.run(id);
        assert_eq!(
            (run.state, run.terminal_reports, run.history.last().unwrap().kind.as_str()),
            (State::Failed, 1, "task_failed")
        );
        assert_eq!(
            (run.failure_reason.as_deref(), run.exit_code, run.output.as_deref()),
            (Some("graceful_shutdown"), Some(code), Some("so far\nbye\n"))
        );
    }
    let run = stage.plane.run(&waiting);
    let kinds: Vec<&str> = run.history.iter().map(|received| received.kind.as_str()).collect();
    assert_eq!((kinds.as_slice(), run.state), (["task_rejected"].as_slice(), State::Pending));
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<serde_json::Value>::new());
    assert_eq!(sync.lines().len(), 2, "the waiting task was started");
}

#[test]
fn sigterm_stops_running_tasks_and_rejects_the_others() {
    stop_with(Signal::TERM);
}

#[test]
fn sigint_stops_running_tasks_and_rejects_the_others() {
    stop_with(Signal::INT);
}

#[test]
fn sighup_stops_running_tasks_and_rejects_the_others() {
    stop_with(Signal::HUP);
}

/// What a restart after a crash would keep is kept: the drain takes five minutes by default.
#[test]
fn by_default_running_tasks_finish_before_a_stop() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let builder = stage.worker().env_remove("OZ_DRAIN_TIMEOUT").args(["-v", &sync.mount()]);
    let mut worker = stage.start(builder);
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; echo done")));
    sync.wait_lines(&stage, 1);
    // As `timeout` sends two at once; the worker is halted, so that the second is not late on a busy machine.
    worker.signal(Signal::STOP);
    worker.signal(Signal::TERM);
    worker.signal(Signal::INT);
    worker.signal(Signal::CONT);
    worker.wait_log(DEADLINE, |line| {
        line.contains("stopping tasks=1 backlog=0 drain_s=300 ")
            && line.contains("note=\"draining up to 5m, 1 task; signal again to end them now\"")
    });
    worker.signal(Signal::USR1);
    worker.wait_log(DEADLINE, |line| line.contains("draining tasks=1 working=1"));
    sync.release(1);
    wait_exit_ok(&mut worker);
    sent_close_frame(&stage);
    let run = stage.plane.run(&id);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("done\n")));
}

/// An image can set another signal for stops, one that cannot be handled or that means something else to its program.
#[test]
fn a_task_gets_sigterm_whatever_its_image_says_and_has_the_grace_time_to_end() {
    let mut stage = Stage::new();
    let sync = SyncDir::new();
    let images = ["SIGKILL", "SIGWINCH"].map(|signal| stage.images.stopped_by(&stage.task_image, signal));
    let builder = stage.worker().env("OZ_STOP_GRACE", "2s");
    let mut worker = stage.start(builder.args(["-v", &sync.mount()]));
    let submit = |image: &str, script: &str| {
        let mut spec = stage.spec(script);
        spec.docker_image = Some(image.to_owned());
        stage.plane.submit(&spec)
    };
    let obeys = "trap 'echo bye; exit 7' TERM; echo >> /sync/log; sleep 1000 & wait";
    let ignores = "trap '' TERM; echo >> /sync/log; sleep 1000";
    let obey = images.each_ref().map(|image| submit(image, obeys));
    let ignore = submit(&images[1], ignores);
    sync.wait_lines(&stage, 3);
    let signal = &stage.wait_running(&obey[0])["Config"]["StopSignal"];
    assert_eq!(signal, "SIGTERM", "for `docker stop` and the end of the engine");
    worker.signal(Signal::TERM);
    wait_exit_ok(&mut worker);
    for (id, code, output) in
        [(&obey[0], 7, Some("bye\n")), (&obey[1], 7, Some("bye\n")), (&ignore, 137, None)]
    {
        let run = stage.plane.run(id);
        assert_eq!((run.exit_code, run.output.as_deref()), (Some(code), output), "{run:#?}");
    }
    let log = worker.stderr().all().join("\n");
    assert!(log.contains("budget_s=72") && log.matches("grace_s=2").count() == 4, "{log}");
}

/// One is running, one is pulling, and one waits for the confirmation of its claim.
#[test]
fn tasks_in_every_phase_are_reported_as_stopped() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut worker = stage.start(stage.worker().args(["-v", &sync.mount()]));
    let script = "trap 'exit 7' TERM; echo so far; echo >> /sync/log; sleep 1000 & wait";
    let runs = stage.plane.submit(stage.spec(script));
    sync.wait_lines(&stage, 1);
    let mut spec = stage.spec("");
    spec.docker_image = Some(format!("{}/x:1", registry.local_addr().unwrap()));
    let pulling = stage.plane.submit(&spec);
    let _request = accept_and_stall(&registry, || registry.accept().map(|(stream, _)| stream));
    stage.plane.wait_state(&pulling, State::InProgress);
    stage.plane.hold_pongs(true);
    let unconfirmed = stage.plane.submit(stage.spec("echo >> /sync/log"));
    worker.wait_log(DEADLINE, |line| line.contains("container created") && line.contains(&unconfirmed));
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("task ended") && line.contains(&runs));
    stage.plane.hold_pongs(false);
    wait_exit_ok(&mut worker);
    sent_close_frame(&stage);
    for id in [&runs, &pulling, &unconfirmed] {
        assert_eq!(stage.plane.run(id).failure_reason.as_deref(), Some("graceful_shutdown"));
    }
    let run = stage.plane.run(&runs);
    assert_eq!((run.exit_code, run.output.as_deref()), (Some(7), Some("so far\n")));
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<serde_json::Value>::new());
    assert_eq!(sync.lines().len(), 1, "the unconfirmed task was started");
}

/// The container exits before the signal, but the engine reports the exit late.
#[test]
fn a_task_that_ended_just_before_the_signal_is_completed() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let mut worker = stage.start(builder.args(["-v", &sync.mount()]));
    let id = stage.plane.submit(stage.spec(&format!("{WAIT}; echo done; exit 3")));
    let container = stage.wait_running(&id)["Id"].as_str().unwrap().to_owned();
    worker.wait_log(DEADLINE, |line| line.contains("container started"));
    let hold = proxy.hold("/wait", 1);
    sync.release(1);
    stage.wait("the container has exited", || {
        stage.engine.containers("id", &container)[0]["State"] == "exited"
    });
    hold.wait(1);
    worker.signal(Signal::TERM);
    wait_exit_ok(&mut worker);
    let run = stage.plane.run(&id);
    assert_eq!(
        (run.exit_code, run.failure_reason.as_deref(), run.output.as_deref()),
        (Some(3), None, Some("done\n"))
    );
    assert_eq!(run.history.last().unwrap().kind, "task_completed");
}

#[test]
fn a_second_signal_ends_the_worker_at_once() {
    for engine_hangs in [false, true] {
        let stage = Stage::new();
        let sync = SyncDir::new();
        let proxy = EngineProxy::start(stage.engine.host());
        let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
        let mut worker = stage.start(builder.args(["-v", &sync.mount()]));
        let id = stage.plane.submit(stage.spec("trap '' TERM; echo >> /sync/log; sleep 1000"));
        sync.wait_lines(&stage, 1);
        let hold = engine_hangs.then(|| proxy.hold("", usize::MAX));
        worker.signal(Signal::TERM);
        worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=1"));
        if let Some(hold) = &hold {
            hold.wait(1);
        }
        worker.signal_again(Signal::INT);
        assert_eq!(worker.wait_exit(DEADLINE).code(), Some(130));
        assert_eq!(stage.plane.wait_ended(&id).terminal_reports, 0, "the worker waited for the task");
        let container = stage.wait_running(&id);
        assert_eq!(container["State"]["Running"], true);
        // Otherwise the worker of the next iteration would adopt the container.
        stage.engine.remove_container(container["Id"].as_str().unwrap());
    }
}

#[test]
fn an_idle_worker_sends_a_close_frame() {
    let stage = Stage::new();
    let mut worker = stage.start_worker();
    // The control plane counts the connection before the worker has its answer; until then a stop sends no close frame.
    worker.wait_log(DEADLINE, |line| line.contains(" connected url="));
    worker.signal(Signal::TERM);
    wait_exit_ok(&mut worker);
    sent_close_frame(&stage);
}

#[test]
fn a_worker_that_is_not_connected_exits_with_0() {
    let stage = Stage::new();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", peer.local_addr().unwrap());
    let to = |url: &str| {
        let builder =
            WorkerBuilder::new(&binary()).args(["--worker-id", &worker_id(), "--web-socket-url", url]);
        builder.env("OZ_API_KEY", "key").env("DOCKER_HOST", stage.engine.host()).start()
    };
    let mut connecting = to(&url);
    let request = accept_and_stall(&peer, || peer.accept().map(|(stream, _)| stream));
    connecting.signal(Signal::TERM);
    wait_exit_ok(&mut connecting);
    drop((request, peer));
    let mut waiting = to(&url);
    waiting.wait_log(DEADLINE, |line| line.contains("connecting failed") && line.contains("attempt=2"));
    waiting.signal(Signal::TERM);
    wait_exit_ok(&mut waiting);
}

#[test]
fn a_worker_whose_engine_does_not_answer_can_be_stopped() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let engine = UnixListener::bind(&path).unwrap();
    let host = format!("unix://{}", path.display());
    let mut worker = stage.worker().env("DOCKER_HOST", &host).start();
    let _request = accept_and_stall(&engine, || engine.accept().map(|(stream, _)| stream));
    worker.signal(Signal::TERM);
    wait_exit_ok(&mut worker);
    assert_eq!(stage.plane.connections(), 0);
}

/// stderr is closed from the start, or a pipe without a reader.
#[test]
fn a_worker_runs_and_stops_without_a_usable_stderr() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let broken = format!("exec 3<>{0} 2>{0} 3<&-; exec \"$@\"", pipe.display());
    for script in ["exec \"$@\" 2>&-", &broken] {
        let program = binary();
        let wrapped = WorkerBuilder::new(Path::new("/bin/sh")).args(["-c", script, "sh"]);
        let builder = wrapped
            .args([program.to_str().unwrap(), "--pull", "missing", "--log-level", "debug"])
            .control_plane(&stage.plane, &stage.worker_id)
            .env("DOCKER_HOST", stage.engine.host());
        let before = stage.plane.connections();
        let worker = builder.start();
        stage.plane.wait_connected(before + 1);
        let run = stage.run(&stage.spec("echo fine"));
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("fine\n")));
        let id = stage.plane.submit(stage.spec("trap 'exit 1' TERM; sleep 1000 & wait"));
        stage.wait_running(&id);
        stage.stop(worker);
        let report = &stage.plane.wait_ended(&id).history[1].data;
        assert_eq!(report["failure_reason"], json!("graceful_shutdown"));
        sent_close_frame(&stage);
    }
}

/// stderr is a full pipe.
#[test]
fn a_worker_runs_and_stops_while_its_log_is_blocked() {
    let stage = Stage::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = std::process::Command::new(binary());
    command.env_clear().env("OZ_API_KEY", stage.plane.key()).env("DOCKER_HOST", stage.engine.host());
    command.args(["--worker-id", &stage.worker_id, "--web-socket-url", &stage.plane.ws_url()]);
    command.args(["--pull", "missing", "--log-level", "debug"]);
    let pipe = writer.try_clone().unwrap();
    let mut child = command.stderr(writer).spawn().unwrap();
    stage.plane.wait_connected(1);
    // The answer to each of these is logged; together they are more than the pipe and the log queue hold.
    for _ in 0..8000 {
        stage.plane.send_text(r#"{"type":"task_assignment","data":{"task_id":"invalid"}}"#);
    }
    // It has room for 16 writes that do not fit together into a page, whatever their size.
    stage.wait("the pipe is full", || {
        let mut writable = [rustix::event::PollFd::new(&pipe, rustix::event::PollFlags::OUT)];
        rustix::event::poll(&mut writable, Some(&rustix::event::Timespec::default())) == Ok(0)
    });
    let run = stage.run(&stage.spec("echo fine"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("fine\n")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let status = std::cell::Cell::new(None);
    let child = std::cell::RefCell::new(&mut child);
    stage.wait("the worker exits", || {
        status.set(child.borrow_mut().try_wait().unwrap());
        status.get().is_some()
    });
    assert_eq!(status.get().and_then(|status| status.code()), Some(0));
    drop(reader);
}
