//! Signals: running tasks are ended and reported, the rest is given back, the control plane is told goodbye.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use super::gate::{Gate, PASS};
use super::{DEADLINE, Stage, kept_waiting};
use crate::support::control_plane::State;
use crate::support::control_plane::world::Ended;
use crate::support::process::Signal;
use crate::support::proxy::Proxy;
use crate::support::worker::{Builder, Worker, binary};

/// Waits for the end of a worker that is to end in order.
fn ends_well(worker: &mut Worker) {
    let status = worker.wait_exit(DEADLINE);
    assert_eq!(status.code(), Some(0), "{:#?}", worker.stderr().all());
}

/// Checks that the last connection ended with a close frame.
fn said_goodbye(stage: &Stage) {
    stage.plane.wait_for(DEADLINE, |world| world.connections.last().is_some_and(|last| last.ended.is_some()));
    let ended = stage.plane.view(|world| world.connections.last().and_then(|last| last.ended));
    assert!(matches!(ended, Some(Ended::Closed(Some(1000 | 1001)))), "{ended:?}");
    stage.plane.assert_no_violations();
}

/// Running tasks: one that ends with TERM in its own way, one that calls that a success. One task waits for a slot.
fn each_signal(signal: Signal) {
    let (stage, gate) = (Stage::new(), Gate::new());
    let mut worker =
        stage.connected(stage.worker().args(["--max-concurrent-tasks", "2", "-v", &gate.mount()]));
    let script = |code| {
        format!("trap 'echo bye; exit {code}' TERM; echo so far; echo >> /gate/log; sleep 1000 & wait")
    };
    let running = [7, 0].map(|code| stage.plane.submit(stage.spec(&script(code))));
    gate.wait_told(&stage, 2);
    let waiting = stage.plane.submit(stage.spec("echo >> /gate/log"));
    worker.wait_log(DEADLINE, |line| line.contains("assignment received") && line.contains(&waiting));
    worker.signal(signal);
    ends_well(&mut worker);
    said_goodbye(&stage);
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
    assert_eq!(gate.told().len(), 2, "what waited has run");
}

#[test]
fn term_ends_running_tasks_and_gives_the_others_back() {
    each_signal(Signal::TERM);
}

#[test]
fn int_ends_running_tasks_and_gives_the_others_back() {
    each_signal(Signal::INT);
}

#[test]
fn hup_ends_running_tasks_and_gives_the_others_back() {
    each_signal(Signal::HUP);
}

/// One runs, one still pulls, one waits for its claim to be confirmed.
#[test]
fn tasks_in_every_phase_are_reported_as_stopped() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut worker = stage.connected(stage.worker().args(["-v", &gate.mount()]));
    let script = "trap 'exit 7' TERM; echo so far; echo >> /gate/log; sleep 1000 & wait";
    let runs = stage.plane.submit(stage.spec(script));
    gate.wait_told(&stage, 1);
    let mut spec = stage.spec("");
    spec.docker_image = Some(format!("{}/x:1", registry.local_addr().unwrap()));
    let pulling = stage.plane.submit(&spec);
    let _asked = kept_waiting(&registry, || registry.accept().map(|(stream, _)| stream));
    stage.plane.wait_state(&pulling, State::InProgress);
    stage.plane.hold_pongs(true);
    let unconfirmed = stage.plane.submit(stage.spec("echo >> /gate/log"));
    worker.wait_log(DEADLINE, |line| line.contains("container created") && line.contains(&unconfirmed));
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("task ended") && line.contains(&runs));
    stage.plane.hold_pongs(false);
    ends_well(&mut worker);
    said_goodbye(&stage);
    for id in [&runs, &pulling, &unconfirmed] {
        assert_eq!(stage.plane.run(id).failure_reason.as_deref(), Some("graceful_shutdown"));
    }
    let run = stage.plane.run(&runs);
    assert_eq!((run.exit_code, run.output.as_deref()), (Some(7), Some("so far\n")));
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<serde_json::Value>::new());
    assert_eq!(gate.told().len(), 1, "what was not confirmed has run");
}

/// The engine has not told of the end yet when the signal comes, but it was before.
#[test]
fn a_task_that_has_just_ended_by_itself_is_completed() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let proxy = Proxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let mut worker = stage.connected(builder.args(["-v", &gate.mount()]));
    let id = stage.plane.submit(stage.spec(&format!("{PASS}; echo done; exit 3")));
    let container = stage.running(&id)["Id"].as_str().unwrap().to_owned();
    worker.wait_log(DEADLINE, |line| line.contains("container started"));
    let hold = proxy.hold("/wait", 1);
    gate.open(1);
    stage.wait("the container has ended", || {
        stage.engine.containers("id", &container)[0]["State"] == "exited"
    });
    hold.wait(1);
    worker.signal(Signal::TERM);
    ends_well(&mut worker);
    let run = stage.plane.run(&id);
    assert_eq!(
        (run.exit_code, run.failure_reason.as_deref(), run.output.as_deref()),
        (Some(3), None, Some("done\n"))
    );
    assert_eq!(run.history.last().unwrap().kind, "task_completed");
}

#[test]
fn a_second_signal_ends_at_once_whatever_the_tasks_and_the_engine_do() {
    for engine_hangs in [false, true] {
        let (stage, gate) = (Stage::new(), Gate::new());
        let proxy = Proxy::start(stage.engine.host());
        let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
        let mut worker = stage.connected(builder.args(["-v", &gate.mount()]));
        let id = stage.plane.submit(stage.spec("trap '' TERM; echo >> /gate/log; sleep 1000"));
        gate.wait_told(&stage, 1);
        let hold = engine_hangs.then(|| proxy.hold("", usize::MAX));
        worker.signal(Signal::TERM);
        worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=1"));
        if let Some(hold) = &hold {
            hold.wait(1);
        }
        worker.signal(Signal::INT);
        assert_eq!(worker.wait_exit(DEADLINE).code(), Some(130));
        assert_eq!(stage.plane.wait_ended(&id).terminal_reports, 0, "it has waited for the task");
        let container = stage.running(&id);
        assert_eq!(container["State"]["Running"], true);
        // The next one would adopt it.
        stage.engine.remove_container(container["Id"].as_str().unwrap());
    }
}

#[test]
fn an_idle_worker_says_goodbye() {
    let stage = Stage::new();
    let mut worker = stage.started();
    // The control plane calls it connected before the worker has the answer, and one that still dials just ends.
    worker.wait_log(DEADLINE, |line| line.contains(" connected url="));
    worker.signal(Signal::TERM);
    ends_well(&mut worker);
    said_goodbye(&stage);
}

#[test]
fn a_worker_that_is_not_connected_just_ends() {
    let stage = Stage::new();
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", peer.local_addr().unwrap());
    let to = |url: &str| {
        let builder = Builder::new(&binary()).args(["--worker-id", "w", "--web-socket-url", url]);
        builder.env("OZ_API_KEY", "key").env("DOCKER_HOST", stage.engine.host()).start()
    };
    let mut dialling = to(&url);
    let request = kept_waiting(&peer, || peer.accept().map(|(stream, _)| stream));
    dialling.signal(Signal::TERM);
    ends_well(&mut dialling);
    drop((request, peer));
    let mut waiting = to(&url);
    waiting.wait_log(DEADLINE, |line| line.contains("connecting failed") && line.contains("attempt=2"));
    waiting.signal(Signal::TERM);
    ends_well(&mut waiting);
}

#[test]
fn an_engine_that_never_answers_keeps_nobody_from_stopping() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let engine = UnixListener::bind(&path).unwrap();
    let host = format!("unix://{}", path.display());
    let mut worker = stage.worker().env("DOCKER_HOST", &host).start();
    let _asked = kept_waiting(&engine, || engine.accept().map(|(stream, _)| stream));
    worker.signal(Signal::TERM);
    ends_well(&mut worker);
    assert_eq!(stage.plane.connections(), 0);
}

/// Closed from the beginning, or a pipe that nobody reads any more.
#[test]
fn nobody_has_to_read_the_log() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let broken = format!("exec 3<>{0} 2>{0} 3<&-; exec \"$@\"", pipe.display());
    for script in ["exec \"$@\" 2>&-", &broken] {
        let program = binary();
        let wrapped = Builder::new(Path::new("/bin/sh")).args(["-c", script, "sh"]);
        let builder = wrapped
            .args([program.to_str().unwrap(), "--pull", "missing", "--log-level", "debug"])
            .plane(&stage.plane, &stage.worker_id)
            .env("DOCKER_HOST", stage.engine.host());
        let worker = stage.connected(builder);
        let run = stage.run(&stage.spec("echo fine"));
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("fine\n")));
        let id = stage.plane.submit(stage.spec("trap 'exit 1' TERM; sleep 1000 & wait"));
        stage.running(&id);
        stage.stop(worker);
        let report = &stage.plane.wait_ended(&id).history[1].data;
        assert_eq!(report["failure_reason"], json!("graceful_shutdown"));
        said_goodbye(&stage);
    }
}

/// A log that nobody reads holds nothing up: neither a task, nor the orderly stop.
#[test]
fn a_worker_whose_log_is_stuck_goes_on() {
    let stage = Stage::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = std::process::Command::new(binary());
    command.env_clear().env("OZ_API_KEY", stage.plane.key()).env("DOCKER_HOST", stage.engine.host());
    command.args(["--worker-id", &stage.worker_id, "--web-socket-url", &stage.plane.ws_url()]);
    let mut child = command.args(["--pull", "missing"]).stderr(writer).spawn().unwrap();
    stage.plane.wait_connected(1);
    // Each of these is a warning; together they are far more than a pipe and the queue before it hold.
    for _ in 0..8000 {
        stage.plane.send_text("x".repeat(64));
    }
    stage.wait("the log is stuck", || rustix::io::ioctl_fionread(&reader).is_ok_and(|bytes| bytes > 60_000));
    let run = stage.run(&stage.spec("echo fine"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("fine\n")));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let status = std::cell::Cell::new(None);
    let child = std::cell::RefCell::new(&mut child);
    stage.wait("the worker ends", || {
        status.set(child.borrow_mut().try_wait().unwrap());
        status.get().is_some()
    });
    assert_eq!(status.get().and_then(|status| status.code()), Some(0));
    drop(reader);
}
