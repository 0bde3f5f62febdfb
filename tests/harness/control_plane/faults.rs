//! The faults of the stand-in's store, and the times of its runs.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tungstenite::{Error, Message};

use super::fake_worker::{FakeWorker, rest};
use crate::support::control_plane::{ControlPlane, DEADLINE, Faults, Options, RunSpec, State};
use crate::support::rng::Seed;

fn look_up(plane: &ControlPlane, id: &str) -> (u16, serde_json::Value) {
    rest(plane, "GET", &format!("/api/v1/agent/runs/{id}"), Some(plane.key()), "")
}

fn instant(value: &serde_json::Value) -> OffsetDateTime {
    OffsetDateTime::parse(value.as_str().expect("a time"), &Rfc3339).unwrap()
}

#[test]
fn an_assignment_and_an_answer_have_the_time_of_the_state() {
    let claim_timeout = Duration::from_millis(50);
    let plane = ControlPlane::start(Options { claim_timeout, ..Options::default() });
    let id = plane.submit(RunSpec::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    let mut last = None;
    for _ in 0..3 {
        let assigned = instant(&worker.next()["data"]["task"]["updated_at"]);
        assert!(last < Some(assigned), "each assignment is later");
        last = Some(assigned);
    }
    worker.claim(&id);
    worker.sync();
    if plane.run(&id).state == State::InProgress {
        assert!(instant(&look_up(&plane, &id).1["updated_at"]) >= last.unwrap());
    }
}

#[test]
fn a_locked_store_answers_pings_and_loses_messages() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    worker.next();
    plane.lock_store(true);
    worker.claim(&id);
    worker.sync();
    assert_eq!((plane.run(&id).state, plane.run(&id).claims), (State::Claimed, 1));
    plane.submit(RunSpec::default());
    assert_eq!(plane.runs()[1].state, State::Pending, "no run is sent");
    plane.lock_store(false);
    worker.claim(&id);
    worker.sync();
    assert_eq!(plane.run(&id).state, State::InProgress);
}

#[test]
fn lost_messages_are_received_and_change_nothing() {
    let plane = ControlPlane::start(Options::default());
    let (first, second) = (plane.submit(RunSpec::default()), plane.submit(RunSpec::default()));
    let mut worker = FakeWorker::connect(&plane, "w");
    let _ = (worker.next(), worker.next());
    plane.inject(Faults { lose_claim: 1, ..Faults::default() }, Seed::or(1).rng());
    worker.claim(&first);
    worker.sync();
    assert_eq!(plane.run(&first).state, State::Claimed);
    plane.inject(Faults { lose_report: 1, ..Faults::default() }, Seed::or(1).rng());
    worker.claim(&second);
    worker.complete(&second, 0);
    worker.sync();
    assert_eq!(plane.run(&second).state, State::InProgress);
    assert_eq!(plane.view(|model| model.faults), 2);
}

#[test]
fn a_crash_comes_after_the_store_and_before_the_pong() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    worker.next();
    plane.inject(Faults { crash: 1, ..Faults::default() }, Seed::or(1).rng());
    // Both arrive before the control plane reads.
    worker
        .socket
        .write(Message::text(
            json!({"type": "task_claimed", "data": {"task_id": id, "worker_id": "w"}}).to_string(),
        ))
        .unwrap();
    worker.socket.write(Message::Ping("p".into())).unwrap();
    worker.socket.flush().unwrap();
    assert!(matches!(worker.socket.read(), Err(Error::Io(_) | Error::Protocol(_))), "no pong");
    plane.wait_for(DEADLINE, |model| model.connected() == 0);
    assert_eq!(plane.run(&id).state, State::InProgress, "nothing sweeps it");
    plane.inject(Faults::default(), Seed::or(1).rng());
    drop(FakeWorker::connect(&plane, "w"));
    assert_eq!(plane.wait_ended(&id).state, State::Failed, "the next disconnect does");
}

#[test]
fn an_answer_can_be_late_large_or_missing() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    plane.delay_rest(Duration::from_millis(200));
    let start = std::time::Instant::now();
    assert_eq!(look_up(&plane, &id).1["state"], "PENDING");
    assert!(start.elapsed() >= Duration::from_millis(200));
    plane.delay_rest(Duration::ZERO);
    plane.pad_rest_with(100_000);
    assert_eq!(look_up(&plane, &id).1["padding"].as_str().unwrap().len(), 100_000);
    plane.inject(Faults { fail_look_up: 1, ..Faults::default() }, Seed::or(1).rng());
    assert_eq!(look_up(&plane, &id).0, 503);
    plane.inject(Faults { large_answer: 1, ..Faults::default() }, Seed::or(1).rng());
    assert_eq!(look_up(&plane, &id).1["padding"].as_str().unwrap().len(), 64 << 20);
}

#[test]
fn the_output_is_in_the_answer_twice() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    worker.next();
    worker.claim(&id);
    worker.complete(&id, 0);
    plane.wait_state(&id, State::Succeeded);
    let answer = look_up(&plane, &id).1;
    assert_eq!((&answer["output"], &answer["status_message"]["message"]), (&json!("done"), &json!("done")));
}
