//! The start: which calls to the engine come before the connection, and which messages wait for the others.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::accept_and_stall;
use super::notify::Manager;
use super::stop::sent_close_frame;
use crate::link::{accept, request};
use crate::support::engine_proxy::EngineProxy;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::SyncDir;
use crate::support::worker::{Worker, WorkerBuilder};

/// A stage whose worker reaches the engine through a proxy.
fn stage_with_proxy() -> (Stage, EngineProxy) {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    (stage, proxy)
}

fn builder(stage: &Stage, proxy: &EngineProxy) -> WorkerBuilder {
    stage.worker().env("DOCKER_HOST", &proxy.host())
}

fn wait_ready(worker: &Worker) {
    worker.wait_log(DEADLINE, |line| line.contains("worker ready"));
}

/// Returns the methods and paths of all requests, without API versions and queries.
fn calls(proxy: &EngineProxy) -> Vec<String> {
    let call = |line: String| {
        let line = line.trim_end_matches(" HTTP/1.1");
        let (method, target) = line.split_once(' ').unwrap();
        let path = target.split('?').next().unwrap().trim_start_matches("/v1.");
        format!("{method} {}", path.trim_start_matches(|c: char| c.is_ascii_digit()))
    };
    proxy.requests().into_iter().map(call).collect()
}

/// Docker starts other programs to answer `/version` and `/info`, so the connection must not wait for them.
#[test]
fn a_worker_is_connected_after_one_call_and_asks_nothing_twice() {
    let (stage, proxy) = stage_with_proxy();
    let hold = proxy.hold("/version", 1);
    let worker = builder(&stage, &proxy).start();
    stage.plane.wait_connected(1);
    hold.wait(1);
    assert_eq!(calls(&proxy), ["HEAD /_ping", "GET /version"]);
    hold.release();
    wait_ready(&worker);
    let all = ["HEAD /_ping", "GET /version", "GET /info", "GET /volumes", "GET /containers/json"];
    assert_eq!(calls(&proxy), all);
    stage.stop(worker);
}

#[test]
fn a_worker_sends_no_request_to_the_control_plane_before_the_engine_answers() {
    let (stage, proxy) = stage_with_proxy();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hold = proxy.hold("/_ping", 1);
    let worker = stage.worker_via(&stage.worker_id, &address);
    let mut worker = worker.env("DOCKER_HOST", &proxy.host()).start();
    let mut early = accept(&listener);
    hold.wait(1);
    assert_eq!(early.read(&mut [0; 16]).unwrap(), 0, "the worker has sent something");
    hold.release();
    let request = request(&mut accept(&listener));
    assert!(request.starts_with("GET /"), "{request}");
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
}

#[test]
fn messages_wait_until_the_tasks_of_an_earlier_process_are_found() {
    let (stage, proxy) = stage_with_proxy();
    let sync = SyncDir::new();
    let builder = || builder(&stage, &proxy).args(["--lost-runs", "finish", "-v", &sync.mount()]);
    let mut worker = stage.start(builder());
    let left = stage.plane.submit(stage.spec("trap 'exit 9' TERM; echo >> /sync/log; sleep 1000 & wait"));
    sync.wait_lines(&stage, 1);
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);

    let hold = proxy.hold("/containers/json", 1);
    let worker = builder().start();
    stage.plane.wait_connected(2);
    hold.wait(1);
    let cancel = json!({"type": "task_cancel", "data": {"task_id": left}});
    stage.plane.send_text(cancel.to_string());
    let new = stage.plane.submit(stage.spec("echo new"));
    hold.release();
    let report = stage.plane.wait_message(&left, "task_failed");
    assert_eq!(report.data["failure_reason"], "task_cancelled");
    assert_eq!(stage.plane.wait_ended(&new).output.as_deref(), Some("new\n"));
    stage.wait_clean();
    stage.stop(worker);
}

/// The worker is connected already, so it says goodbye. Then it waits like for an engine that was never there.
#[test]
fn a_worker_that_cannot_search_for_tasks_closes_its_connection() {
    let (stage, proxy) = stage_with_proxy();
    let cut = proxy.swallow("/containers/json", 1);
    let mut once = builder(&stage, &proxy).args(["--engine-start-timeout", "0"]).start();
    assert_eq!(once.wait_exit(DEADLINE).code(), Some(4), "{:#?}", once.stderr().all());
    sent_close_frame(&stage);
    drop(cut);

    let _cut = proxy.swallow("/containers/json", 1);
    let worker = builder(&stage, &proxy).start();
    worker
        .wait_log(DEADLINE, |line| line.contains("waiting for the engine") && line.contains("cannot search"));
    stage.plane.wait_connected(3);
    wait_ready(&worker);
    assert!(stage.plane.view(|model| model.connections[1].ended.is_some()));
    assert_eq!(stage.run(&stage.spec("echo fine")).output.as_deref(), Some("fine\n"));
    stage.stop(worker);
}

/// At boot the engine may come after the worker. Nothing of the worker is seen before.
#[test]
fn a_worker_waits_for_an_engine_that_comes_late() {
    let stage = Stage::new();
    let manager = Manager::new();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let worker = stage.worker().env("DOCKER_HOST", &host).env("NOTIFY_SOCKET", &manager.address());
    let worker = worker.env("OZ_MAX_CONCURRENT_TASKS", "4").start();
    let status = format!("STATUS=waiting for the engine: the docker engine at {host} is not reachable");
    let lines = manager.until_line(|line| line.starts_with(&status));
    assert_eq!(lines.iter().filter(|line| *line == "READY=1").count(), 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("; install and start an engine")), "{lines:?}");
    worker.signal(Signal::USR1);
    worker.wait_log(DEADLINE, |line| line.contains("link state state=not_connected"));
    worker.wait_log(DEADLINE, |line| line.contains("engine state state=away waited_s="));
    assert_eq!(stage.plane.view(|model| model.attempts), 0);

    let engine = stage.engine.host().strip_prefix("unix://").unwrap().to_owned();
    std::os::unix::fs::symlink(engine, &socket).unwrap();
    stage.plane.wait_connected(1);
    let lines = manager.until("STATUS=connected, tasks: 0 of 4");
    assert!(!lines.contains(&"READY=1".to_owned()), "{lines:?}");
    assert_eq!(stage.run(&stage.spec("echo fine")).output.as_deref(), Some("fine\n"));
    let warnings =
        worker.stderr().all().iter().filter(|line| line.contains("waiting for the engine")).count();
    assert_eq!(warnings, 1, "one a minute");
    stage.stop(worker);
}

/// The engine accepts the connection and does not answer, as a socket does that systemd has opened for it.
#[test]
fn an_engine_that_hangs_and_then_resets_is_waited_for_within_the_limit() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let host = format!("unix://{}", path.display());
    let mut worker = stage.worker().env("DOCKER_HOST", &host).env("OZ_ENGINE_START_TIMEOUT", "2s").start();
    drop(accept_and_stall(&listener, || listener.accept().map(|(stream, _)| stream)));
    worker.wait_log(DEADLINE, |line| line.contains("waiting for the engine waited_s=0 error="));
    drop(listener);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(4));
    let log = worker.stderr().all();
    let error = log.iter().find(|line| line.contains("ERROR")).unwrap();
    assert!(
        error.contains("worker ended exit_code=4") && error.contains("no engine listens on it"),
        "{error}"
    );
    assert_eq!(stage.plane.view(|model| model.attempts), 0);
}
