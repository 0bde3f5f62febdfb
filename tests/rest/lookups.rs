//! Look-ups at the test control plane, and the thread that makes them.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use oz_agent_worker::control_plane::rest::{ControlPlane as Rest, LookupError, RunPoller, RunStates};
use oz_agent_worker::job::JobId;
use oz_agent_worker::protocol::RunState;
use serde_json::json;

use crate::harness::control_plane::fake_worker::FakeWorker;
use crate::link::{accept, api_key, listen, request};
use crate::support::control_plane::{ControlPlane, DEADLINE, Disconnect, Options, RunSpec, State};

fn rest(plane: &ControlPlane, key: &str) -> Rest {
    Rest::new(&plane.root_url(), &api_key(key)).unwrap()
}

fn next(answers: &Receiver<RunStates>) -> RunStates {
    answers.recv_timeout(DEADLINE).expect("no answer")
}

/// Jobs with numbers from 0.
fn batch(ids: &[&str]) -> Vec<(JobId, String)> {
    (0..).map(JobId).zip(ids.iter().map(|&id| id.to_owned())).collect()
}

#[test]
fn every_state_of_a_run_is_returned() {
    let plane = ControlPlane::start(Options::default());
    let rest = rest(&plane, plane.key());
    let (done, failed, cancelled) = (
        plane.submit(RunSpec::default()),
        plane.submit(RunSpec::default()),
        plane.submit(RunSpec::default()),
    );
    assert_eq!(rest.run_state(&done), Ok(RunState::Pending));
    let mut worker = FakeWorker::connect(&plane, "w");
    plane.wait_state(&done, State::Claimed);
    assert_eq!(rest.run_state(&done), Ok(RunState::Claimed));
    worker.claim(&done);
    plane.wait_state(&done, State::InProgress);
    assert_eq!(rest.run_state(&done), Ok(RunState::InProgress));
    worker.complete(&done, 0);
    plane.wait_state(&done, State::Succeeded);
    assert_eq!(rest.run_state(&done), Ok(RunState::Succeeded));
    plane.wait_state(&failed, State::Claimed);
    worker.claim(&failed);
    plane.wait_state(&failed, State::InProgress);
    plane.cancel(&cancelled);
    plane.drop_connections(Disconnect::Rst);
    plane.wait_ended(&failed);
    assert_eq!(rest.run_state(&failed), Ok(RunState::Failed));
    assert_eq!(rest.run_state(&cancelled), Ok(RunState::Cancelled));
}

#[test]
fn an_id_may_contain_any_characters() {
    let plane = ControlPlane::start(Options::default());
    let rest = rest(&plane, plane.key());
    plane.submit(RunSpec::default());
    let long = "ü".repeat(2000);
    for id in ["a/b", "../runs", "a?b=c#d&e", "100%", "%2e%2e", "a+b c", "né\u{1F980}\t", "x\r\ny: z", &long]
    {
        assert_eq!(plane.submit_raw(json!({"task_id": id})).as_deref(), Some(id));
        assert_eq!(rest.run_state(id), Ok(RunState::Pending), "{id:?}");
        plane.cancel(id);
        assert_eq!(rest.run_state(id), Ok(RunState::Cancelled), "{id:?}");
    }
}

#[test]
fn a_missing_run_and_a_hidden_run_are_unknown() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    assert_eq!(rest(&plane, plane.key()).run_state("none"), Err(LookupError::Unknown));
    assert_eq!(rest(&plane, "other").run_state(&id), Err(LookupError::Unknown));
    plane.fail_rest_with(Some(503));
    let error = rest(&plane, plane.key()).run_state(&id).unwrap_err();
    assert!(matches!(error, LookupError::Status { status: 503, .. }), "{error:?}");
}

#[test]
fn a_batch_has_one_answer_with_the_known_states() {
    let plane = ControlPlane::start(Options::default());
    let (sender, answers) = bounded(1);
    let poller = RunPoller::new(rest(&plane, plane.key()), sender);
    let (first, second) = (plane.submit(RunSpec::default()), plane.submit(RunSpec::default()));
    plane.cancel(&second);
    poller.poll(batch(&[&first, "none", "..", &second])).unwrap();
    assert_eq!(next(&answers), [(JobId(0), RunState::Pending), (JobId(3), RunState::Cancelled)]);
    plane.fail_rest_with(Some(503));
    let before = plane.view(|world| world.requests.len());
    poller.poll(batch(&[&first, &second])).unwrap();
    assert_eq!(next(&answers), []);
    assert_eq!(plane.view(|world| world.requests.len()), before + 1, "the second look-up is skipped");
    plane.fail_rest_with(None);
    poller.poll(batch(&[&first])).unwrap();
    assert_eq!(next(&answers), [(JobId(0), RunState::Pending)], "the next batch is looked up");
}

#[test]
fn a_batch_shares_one_kept_connection() {
    let (listener, url) = listen();
    let root = url.replace("ws://", "http://").replace("/ws?worker_id=w", "/base/");
    let (sender, answers) = bounded(1);
    let poller = RunPoller::new(Rest::new(&root, &api_key("k3y")).unwrap(), sender);
    let body = |id: &str| format!(r#"{{"run_id":"{id}","state":"QUEUED"}}"#);
    for round in 0..2 {
        poller.poll(batch(&["a", "b"])).unwrap();
        let mut stream = accept(&listener);
        for id in ["a", "b"] {
            let head = request(&mut stream);
            let expected = format!("GET /base/api/v1/agent/runs/{id} HTTP/1.1\r\n");
            assert!(head.starts_with(&expected), "{head}");
            let head = head.to_ascii_lowercase();
            assert!(head.contains("\r\nauthorization: bearer k3y\r\n"), "{head}");
            assert!(!head.contains("accept-encoding"), "{head}");
            let body = body(id);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            std::io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
        }
        assert_eq!(next(&answers).len(), 2);
        assert!(crate::link::hangs_up(&mut stream), "batch {round} left its connection open");
    }
}

#[test]
fn a_drop_waits_for_one_look_up_at_most() {
    let (listener, url) = listen();
    let root = url.replace("ws://", "http://").replace("/ws?worker_id=w", "");
    let (sender, answers) = bounded(1);
    let rest = Rest::new(&root, &api_key("k3y")).unwrap().with_deadline(Duration::from_millis(300));
    let poller = RunPoller::new(rest, sender);
    poller.poll((0..1000).map(|id| (JobId(id), id.to_string())).collect()).unwrap();
    let mut silent = accept(&listener);
    request(&mut silent);
    drop(poller);
    if let Ok(found) = answers.recv() {
        assert_eq!(found, []);
    }
}
