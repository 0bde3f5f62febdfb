//! The states of a run, and messages that must have no effect.

use std::time::Duration;

use serde_json::json;

use super::fake_worker::{FakeWorker, rest};
use crate::support::control_plane::{ControlPlane, Options, Pacing, RunSpec, State};

#[test]
fn a_run_passes_through_its_states_and_keeps_its_result() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec { prompt: "hello".into(), ..RunSpec::default() });
    assert_eq!(plane.run(&id).state, State::Pending);
    let mut worker = FakeWorker::connect(&plane, "w");
    let assignment = worker.next();
    assert_eq!(assignment["data"]["task"]["task_definition"]["prompt"], "hello");
    assert_eq!(assignment["data"]["task"]["agent_config_snapshot"]["model_id"], "pending");
    worker.claim(&id);
    worker.complete(&id, 0);
    let run = plane.wait_state(&id, State::Succeeded);
    assert_eq!(run.states, [State::Pending, State::Claimed, State::InProgress, State::Succeeded]);
    assert_eq!((run.output.as_deref(), run.exit_code), (Some("done"), Some(0)));
    plane.assert_no_violations();
}

#[test]
fn messages_for_ended_runs_and_runs_of_other_workers_have_no_effect() {
    let plane = ControlPlane::start(Options::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    let mut other = FakeWorker::connect(&plane, "other");
    // Runs are sent alternately; the first goes to the first connection.
    let id = plane.submit(RunSpec::default());
    assert_eq!(worker.assigned(), id);
    other.send("task_failed", &json!({"task_id": id, "message": "no", "failure_reason": "internal"}));
    other.sync();
    assert_eq!(plane.run(&id).state, State::Claimed);
    worker.claim(&id);
    worker.complete(&id, 3);
    worker.complete(&id, 0);
    worker.sync();
    let run = plane.run(&id);
    assert_eq!((run.state, run.exit_code, run.terminal_reports), (State::Failed, Some(3), 3));
}

#[test]
fn a_run_that_is_not_claimed_in_time_is_sent_again() {
    let claim_timeout = Duration::from_millis(50);
    let plane = ControlPlane::start(Options { claim_timeout, ..Options::default() });
    let id = plane.submit(RunSpec::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    assert_eq!((worker.assigned(), worker.assigned()), (id.clone(), id.clone()));
    worker.claim(&id);
    worker.complete(&id, 0);
    assert!(plane.wait_state(&id, State::Succeeded).deliveries >= 2);
}

#[test]
fn polling_sends_one_run_per_connection_and_interval() {
    let pacing = Pacing::Poll(Duration::from_millis(300));
    let plane = ControlPlane::start(Options { pacing, ..Options::default() });
    let mut worker = FakeWorker::connect(&plane, "w");
    let ids = [plane.submit(RunSpec::default()), plane.submit(RunSpec::default())];
    assert_eq!(worker.assigned(), ids[0]);
    assert_eq!(plane.run(&ids[1]).state, State::Pending);
    assert_eq!(worker.assigned(), ids[1]);
}

#[test]
fn a_cancel_changes_the_run_and_is_sent_to_the_newest_connection() {
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec::default());
    let mut old = FakeWorker::connect(&plane, "w");
    assert_eq!(old.assigned(), id);
    let mut new = FakeWorker::connect(&plane, "w");
    plane.wait_connected(2);
    let path = format!("/api/v1/agent/runs/{id}/cancel");
    assert_eq!(rest(&plane, "POST", &path, Some(plane.key()), "").0, 200);
    assert_eq!(new.next(), json!({"type": "task_cancel", "data": {"task_id": id}}));
    new.claim(&id);
    new.sync();
    assert_eq!(plane.run(&id).state, State::Cancelled);
}
