//! The start: which calls to the engine come before the connection, and which messages wait for the others.

use std::io::Read;
use std::net::TcpListener;

use serde_json::json;

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

/// The worker is connected already, so it says goodbye.
#[test]
fn a_worker_that_cannot_search_for_tasks_ends_with_a_close_frame() {
    let (stage, proxy) = stage_with_proxy();
    let _cut = proxy.swallow("/containers/json", 1);
    let mut worker = builder(&stage, &proxy).start();
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(4), "{:#?}", worker.stderr().all());
    sent_close_frame(&stage);
}
