//! Look-ups at the test control plane, and the threads that make them.

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use oz_agent_worker::control_plane::rest::{ControlPlane as Rest, LookupError, RunPoller};
use oz_agent_worker::job::{LookupAnswer, MAX_LOOKUPS, RunLookup};
use oz_agent_worker::protocol::RunState;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::control_plane::fake_worker::FakeWorker;
use crate::link::{accept, api_key, listen, request};
use crate::support::control_plane::{ControlPlane, DEADLINE, Disconnect, Options, RunSpec, State};
use crate::support::peer::Peer;

fn rest(plane: &ControlPlane, key: &str) -> Rest {
    Rest::new(&plane.root_url(), &api_key(key)).unwrap()
}

fn state(rest: &Rest, id: &str) -> Result<RunState, LookupError> {
    rest.look_up(id, DEADLINE).map(|run| run.state)
}

fn lookup(number: u64, id: &str) -> RunLookup {
    RunLookup { number, task_id: id.to_owned(), limit: DEADLINE }
}

fn next(answers: &Receiver<LookupAnswer>) -> LookupAnswer {
    answers.recv_timeout(DEADLINE).expect("no answer")
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
    assert_eq!(state(&rest, &done), Ok(RunState::Pending));
    let mut worker = FakeWorker::connect(&plane, "w");
    plane.wait_state(&done, State::Claimed);
    assert_eq!(state(&rest, &done), Ok(RunState::Claimed));
    worker.claim(&done);
    plane.wait_state(&done, State::InProgress);
    assert_eq!(state(&rest, &done), Ok(RunState::InProgress));
    worker.complete(&done, 0);
    plane.wait_state(&done, State::Succeeded);
    assert_eq!(state(&rest, &done), Ok(RunState::Succeeded));
    plane.wait_state(&failed, State::Claimed);
    worker.claim(&failed);
    plane.wait_state(&failed, State::InProgress);
    plane.cancel(&cancelled);
    plane.drop_connections(Disconnect::Rst);
    plane.wait_ended(&failed);
    assert_eq!(state(&rest, &failed), Ok(RunState::Failed));
    assert_eq!(state(&rest, &cancelled), Ok(RunState::Cancelled));
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
        assert_eq!(state(&rest, id), Ok(RunState::Pending), "{id:?}");
        plane.cancel(id);
        assert_eq!(state(&rest, id), Ok(RunState::Cancelled), "{id:?}");
    }
}

#[test]
fn a_missing_run_and_a_hidden_run_are_unknown() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    assert_eq!(state(&rest(&plane, plane.key()), "none"), Err(LookupError::Unknown));
    assert_eq!(state(&rest(&plane, "other"), &id), Err(LookupError::Unknown));
    plane.fail_rest_with(Some(503));
    let error = state(&rest(&plane, plane.key()), &id).unwrap_err();
    assert!(matches!(error, LookupError::Status { status: 503, .. }), "{error:?}");
}

/// The times that decide whose a run is: the assignment's is that of the state CLAIMED, and a later change is later.
#[test]
fn the_time_of_the_last_change_is_returned() {
    let plane = ControlPlane::start(Options::default());
    let rest = rest(&plane, plane.key());
    let id = plane.submit(RunSpec::default());
    let changed = || rest.look_up(&id, DEADLINE).unwrap().updated_at.expect("a time");
    let pending = changed();
    let mut worker = FakeWorker::connect(&plane, "w");
    let assignment = worker.next();
    let assigned = assignment["data"]["task"]["updated_at"].as_str().unwrap();
    let assigned = OffsetDateTime::parse(assigned, &Rfc3339).unwrap();
    assert!(pending < changed() && changed() <= assigned, "{pending} {assigned}");
    worker.claim(&id);
    plane.wait_state(&id, State::InProgress);
    assert!(changed() > assigned);
}

/// The time and the state come after the output. The rest of the body is not read.
#[test]
fn a_run_with_64_mib_of_output_is_looked_up() {
    let plane = ControlPlane::start(Options::default());
    let rest = rest(&plane, plane.key());
    let id = plane.submit(RunSpec::default());
    plane.pad_rest_with(64 << 20);
    let run = rest.look_up(&id, DEADLINE).unwrap();
    assert!(run.state == RunState::Pending && run.updated_at.is_some());
}

#[test]
fn a_look_up_ends_with_the_two_fields() {
    let (listener, url) = listen();
    let root = url.replace("ws://", "http://").replace("/ws?worker_id=w", "");
    let rest = Rest::new(&root, &api_key("k3y")).unwrap();
    std::thread::scope(|scope| {
        let looked_up = scope.spawn(|| rest.look_up("r", DEADLINE));
        let mut stream = accept(&listener);
        request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 70000000\r\n\r\n";
        let body = r#"{"state":"CLAIMED","updated_at":"2026-01-02T03:04:05Z","output":""#;
        std::io::Write::write_all(&mut stream, format!("{head}{body}").as_bytes()).unwrap();
        assert_eq!(looked_up.join().unwrap().unwrap().state, RunState::Claimed);
        assert!(crate::link::hangs_up(&mut stream), "the connection is closed");
    });
}

#[test]
fn each_look_up_has_one_answer() {
    let plane = ControlPlane::start(Options::default());
    let (sender, answers) = bounded(MAX_LOOKUPS);
    let poller = RunPoller::new(rest(&plane, plane.key()), sender);
    let id = plane.submit(RunSpec::default());
    for (number, id, expected) in
        [(0, id.as_str(), Ok(RunState::Pending)), (1, "none", Err(false)), (2, "..", Err(false))]
    {
        poller.look_up(lookup(number, id)).unwrap();
        let (answered, result) = next(&answers);
        assert_eq!(
            (answered, result.map(|run| run.state).map_err(|failure| failure.systemic)),
            (number, expected)
        );
    }
    plane.fail_rest_with(Some(503));
    poller.look_up(lookup(3, &id)).unwrap();
    assert!(next(&answers).1.unwrap_err().systemic);
}

/// Also those that come one after the other, for a few seconds.
#[test]
fn look_ups_share_kept_connections() {
    let (listener, url) = listen();
    let root = url.replace("ws://", "http://").replace("/ws?worker_id=w", "/base/");
    let (sender, answers) = bounded(MAX_LOOKUPS);
    let poller = RunPoller::new(Rest::new(&root, &api_key("k3y")).unwrap(), sender);
    let answer = |stream: &mut Peer, id: &str| {
        let head = request(stream);
        let expected = format!("GET /base/api/v1/agent/runs/{id} HTTP/1.1\r\n");
        assert!(head.starts_with(&expected), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\nauthorization: bearer k3y\r\n"), "{head}");
        assert!(!head.contains("accept-encoding"), "{head}");
        let body = format!(r#"{{"run_id":"{id}","state":"QUEUED","updated_at":null}}"#);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        std::io::Write::write_all(stream, answer.as_bytes()).unwrap();
    };
    poller.look_up(lookup(0, "a")).unwrap();
    let mut held = accept(&listener);
    poller.look_up(lookup(1, "b")).unwrap();
    let mut shared = accept(&listener);
    answer(&mut shared, "b");
    assert_eq!(next(&answers).0, 1);
    for (number, id) in [(2, "c"), (3, "d")] {
        poller.look_up(lookup(number, id)).unwrap();
        answer(&mut shared, id);
        assert_eq!(next(&answers).0, number);
    }
    answer(&mut held, "a");
    assert_eq!(next(&answers).0, 0);
    drop(poller);
    assert!(
        crate::link::hangs_up(&mut held) && crate::link::hangs_up(&mut shared),
        "a connection is left open"
    );
}

#[test]
fn a_drop_waits_for_the_look_ups_that_are_under_way() {
    let (listener, url) = listen();
    let root = url.replace("ws://", "http://").replace("/ws?worker_id=w", "");
    let (sender, answers) = bounded(MAX_LOOKUPS);
    let poller = RunPoller::new(Rest::new(&root, &api_key("k3y")).unwrap(), sender);
    poller.look_up(RunLookup { limit: Duration::from_millis(300), ..lookup(0, "a") }).unwrap();
    let mut silent = accept(&listener);
    request(&mut silent);
    drop(poller);
    assert!(answers.recv().unwrap().1.unwrap_err().systemic);
}
