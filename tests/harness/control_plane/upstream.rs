//! The stand-in for the public control plane: what it sends, and what it rejects.

use serde_json::{Value, json};

use super::fake_worker::{FakeWorker, rest};
use crate::support::control_plane::check::{parse, violations};
use crate::support::control_plane::{ControlPlane, DEADLINE, Dialect, Options, RunSpec, State};

fn plane() -> ControlPlane {
    ControlPlane::start(Options { dialect: Dialect::Upstream, ..Options::default() })
}

fn check(kind: &str, data: &Value) -> Vec<String> {
    violations(Dialect::Upstream, &parse(&json!({"type": kind, "data": data}).to_string()).unwrap(), "w")
}

/// Returns the task's id and the execution's of the next assignment.
fn assigned(worker: &mut FakeWorker) -> (String, String) {
    let data = worker.next()["data"].clone();
    let text = |field: &str| data[field].as_str().unwrap().to_owned();
    (text("task_id"), text("execution_id"))
}

fn claim(worker: &mut FakeWorker, (task, execution): &(String, String)) {
    worker.send("task_claimed", &json!({"task_id": task, "worker_id": "w", "execution_id": execution}));
}

fn end(worker: &mut FakeWorker, (task, execution): &(String, String), more: &Value) {
    let mut data = json!({"task_id": task, "execution_id": execution, "message": "m"});
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kind = if more["failure_reason"].is_null() { "task_completed" } else { "task_failed" };
    worker.send(kind, &data);
}

#[test]
fn recorded_messages_have_no_violations() {
    let good = [
        ("task_claimed", json!({"worker_id": "w"})),
        ("task_claimed", json!({"worker_id": "w", "execution_id": "e"})),
        ("task_completed", json!({"message": "m"})),
        ("task_completed", json!({"message": "m", "task_state": "CANCELLED", "execution_id": "e"})),
        ("task_failed", json!({"message": "m", "failure_reason": "container_exit", "exit_code": 3})),
        ("task_failed", json!({"message": "m", "failure_reason": "container_oom", "exit_code": 137})),
        ("task_failed", json!({"message": "m", "failure_reason": "graceful_shutdown"})),
        ("task_rejected", json!({"reason": "worker at maximum concurrency"})),
        ("execution_closed", json!({"execution_id": "e"})),
    ];
    for (kind, mut data) in good {
        data["task_id"] = json!("t");
        assert_eq!(check(kind, &data), Vec::<String>::new(), "{kind} {data}");
    }
}

#[test]
fn what_its_worker_would_never_send_is_a_violation() {
    let bad = [
        ("task_claimed", json!({"worker_id": "other"})),
        ("task_claimed", json!({"worker_id": "w", "execution_id": ""})),
        ("task_completed", json!({})),
        ("task_completed", json!({"message": " "})),
        ("task_completed", json!({"message": "m", "exit_code": 0})),
        ("task_completed", json!({"message": "m", "failure_reason": "container_oom"})),
        ("task_completed", json!({"message": "m", "task_state": "FAILED"})),
        ("task_completed", json!({"message": "m", "output": ""})),
        ("task_failed", json!({"message": "m", "failure_reason": "unknown", "worker_id": "w"})),
        ("task_failed", json!({"message": "m"})),
        ("task_failed", json!({"message": "m", "failure_reason": "docker_unreachable"})),
        ("task_failed", json!({"message": "m", "failure_reason": "invalid_assignment"})),
        ("task_failed", json!({"message": "m", "failure_reason": "container_exit"})),
        ("task_failed", json!({"message": "m", "failure_reason": "container_exit", "exit_code": 0})),
        ("task_failed", json!({"message": "m", "failure_reason": "container_oom", "exit_code": 1})),
        ("task_failed", json!({"message": "m", "failure_reason": "graceful_shutdown", "exit_code": 143})),
        ("task_rejected", json!({})),
        ("execution_closed", json!({})),
        ("execution_opened", json!({"execution_id": "e"})),
    ];
    for (kind, mut data) in bad {
        data["task_id"] = json!("t");
        assert_eq!(check(kind, &data).len(), 1, "{kind} {data}");
    }
}

#[test]
fn an_assignment_has_an_execution_and_an_owner_and_no_trace() {
    let plane = plane();
    let team = json!({"Type": "TEAM", "Id": 3});
    plane.submit(RunSpec { owner: Some(team.clone()), ..RunSpec::default() });
    plane.submit(RunSpec::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    for owner in [team, json!({"Type": "USER", "Id": 7})] {
        let data = worker.next()["data"].clone();
        assert_eq!(data["task"]["owner"], owner);
        assert!(data["execution_id"].is_string() && data["trace_id"].is_null(), "{data}");
        assert_eq!(data["task"]["agent_config_snapshot"], json!({}), "no placeholder of a model");
    }
}

#[test]
fn a_task_has_several_executions_each_with_its_own_end() {
    let plane = plane();
    let mut worker = FakeWorker::connect(&plane, "w");
    let id = plane.submit(RunSpec::default());
    let first = assigned(&mut worker);
    claim(&mut worker, &first);
    worker.sync();
    let execution = plane.launch_again(&id);
    let second = assigned(&mut worker);
    assert_eq!(second, (id.clone(), execution.clone()));
    claim(&mut worker, &second);
    end(&mut worker, &first, &json!({"failure_reason": "container_exit", "exit_code": 3}));
    end(&mut worker, &second, &json!({}));
    let (first, second) =
        (plane.wait_execution_ended(&id, &first.1), plane.wait_execution_ended(&id, &execution));
    assert_eq!((first.state, first.exit_code), (State::Failed, Some(3)));
    assert_eq!((second.state, second.claims), (State::Succeeded, 1));
    plane.assert_no_violations();
}

#[test]
fn a_cancel_names_the_execution_and_the_worker_s_answer_ends_it() {
    let plane = plane();
    let mut worker = FakeWorker::connect(&plane, "w");
    let id = plane.submit(RunSpec::default());
    let pair = assigned(&mut worker);
    claim(&mut worker, &pair);
    worker.sync();
    plane.cancel_execution(&id, &pair.1);
    let expected = json!({"type": "task_cancellation", "data": {"task_id": id, "execution_id": pair.1}});
    assert_eq!(worker.next(), expected);
    assert_eq!(plane.run(&id).state, State::InProgress);
    end(&mut worker, &pair, &json!({"task_state": "CANCELLED"}));
    assert_eq!(plane.wait_ended(&id).state, State::Cancelled);
    worker.send("execution_closed", &json!({"task_id": id, "execution_id": pair.1}));
    worker.sync();
    assert_eq!(
        plane.violations(),
        ["connection 1: execution_closed the capability was not announced for ".to_owned() + &id]
    );
    plane.cancel(&id);
    assert_eq!(worker.next(), json!({"type": "task_cancellation", "data": {"task_id": id}}));
}

#[test]
fn the_agent_s_state_is_shown_and_changes_nothing() {
    let plane = plane();
    let mut worker = FakeWorker::connect(&plane, "w");
    let id = plane.submit(RunSpec::default());
    let pair = assigned(&mut worker);
    claim(&mut worker, &pair);
    worker.sync();
    plane.set_agent_state(&id, State::Succeeded);
    let path = format!("/api/v1/agent/runs/{id}");
    assert_eq!(rest(&plane, "GET", &path, Some(plane.key()), "").1["state"], "SUCCEEDED");
    assert_eq!(plane.run(&id).state, State::InProgress);
}

#[test]
fn a_rejected_run_is_sent_to_a_sibling_and_later_to_all_again() {
    let plane = plane();
    let (mut first, mut second) = (FakeWorker::connect(&plane, "w"), FakeWorker::connect(&plane, "w"));
    plane.wait_connected(2);
    let id = plane.submit(RunSpec::default());
    let pair = assigned(&mut first);
    let reject = json!({"task_id": id, "reason": "worker at maximum concurrency"});
    first.send("task_rejected", &reject);
    assert_eq!(assigned(&mut second), pair);
    second.send("task_rejected", &reject);
    plane.wait_for(DEADLINE, |model| model.runs[0].deliveries == 3);
    assert!(plane.run(&id).states.iter().filter(|state| **state == State::Pending).count() >= 3);
    plane.assert_no_violations();
}

#[test]
fn the_end_of_a_connection_changes_only_what_was_sent_there_and_not_claimed() {
    let plane = plane();
    let mut first = FakeWorker::connect(&plane, "w");
    let running = plane.submit(RunSpec::default());
    let pair = assigned(&mut first);
    claim(&mut first, &pair);
    first.sync();
    let mut second = FakeWorker::connect(&plane, "w");
    plane.wait_connected(2);
    let ids = [plane.submit(RunSpec::default()), plane.submit(RunSpec::default())];
    let (on_first, on_second) = (assigned(&mut first), assigned(&mut second));
    assert_ne!(on_first.0, on_second.0);
    drop(first);
    assert_eq!(assigned(&mut second), on_first, "it was not claimed");
    let deliveries = ids.map(|id| plane.run(&id).deliveries);
    assert!(deliveries == [1, 2] || deliveries == [2, 1], "{deliveries:?}");
    end(&mut second, &pair, &json!({}));
    assert_eq!(plane.wait_ended(&running).state, State::Succeeded, "a report on another connection counts");
    plane.assert_no_violations();
}

#[test]
fn messages_about_other_executions_are_violations() {
    let plane = plane();
    let mut worker = FakeWorker::connect(&plane, "w");
    let id = plane.submit(RunSpec::default());
    let pair = assigned(&mut worker);
    end(&mut worker, &pair, &json!({}));
    claim(&mut worker, &(id.clone(), "other".to_owned()));
    worker.send("task_claimed", &json!({"task_id": id, "worker_id": "w"}));
    worker.sync();
    let violations = plane.violations();
    for part in ["no such execution", "execution_id is not that", "before task_claimed"] {
        assert!(violations.iter().any(|one| one.contains(part)), "{part}: {violations:?}");
    }
}
