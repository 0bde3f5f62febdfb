//! The checks of messages against the protocol, and the recorded violations.

use serde_json::{Value, json};
use tungstenite::Message;

use super::fake_worker::FakeWorker;
use crate::support::control_plane::check::{parse, violations};
use crate::support::control_plane::{ControlPlane, DEADLINE, Dialect, Options, RunSpec};

fn check(kind: &str, data: &Value) -> Vec<String> {
    violations(Dialect::Old, &parse(&json!({"type": kind, "data": data}).to_string()).unwrap(), "w")
}

#[test]
fn valid_messages_have_no_violations() {
    let pull = json!({"artifact_type": "PULL_REQUEST", "created_at": "2026-01-02T03:04:05.678Z",
        "data": {"branch": "unknown", "url": "https://github.com/a/b/pull/1"}});
    let completed = json!({"task_id": "t", "worker_id": "w", "output": "", "exit_code": 255,
        "artifacts": [pull], "session_link": "https://x", "failure_reason": "container_oom"});
    let failed = json!({"task_id": "t", "message": "m", "failure_reason": "image_pull"});
    assert_eq!(check("task_claimed", &json!({"task_id": "t", "worker_id": "w"})), Vec::<String>::new());
    assert_eq!(check("task_completed", &completed), Vec::<String>::new());
    assert_eq!(check("task_failed", &failed), Vec::<String>::new());
    assert_eq!(check("task_rejected", &json!({"task_id": "t", "reason": "r"})), Vec::<String>::new());
}

#[test]
fn each_violation_is_found() {
    let good = json!({"task_id": "t", "worker_id": "w", "output": "x", "exit_code": 0});
    let mistakes = [
        ("task_id", Some(json!(" "))),
        ("task_id", None),
        ("worker_id", Some(json!("v"))),
        ("output", None),
        ("output", Some(json!("a\0b"))),
        ("exit_code", Some(json!(256))),
        ("exit_code", Some(json!(-1))),
        ("exit_code", Some(json!("0"))),
        ("exit_code", None),
        ("artifacts", Some(json!([]))),
        ("artifacts", Some(json!([{"artifact_type": "PULL_REQUEST", "created_at": "now", "data": {}}]))),
        ("session_link", Some(json!(null))),
        ("failure_reason", Some(json!("internal"))),
        ("sessionLink", Some(json!("https://x"))),
    ];
    for (field, value) in mistakes {
        let mut data = good.clone();
        let fields = data.as_object_mut().unwrap();
        match &value {
            Some(value) => drop(fields.insert(field.to_owned(), value.clone())),
            None => drop(fields.remove(field)),
        }
        assert_eq!(check("task_completed", &data).len(), 1, "{field} {value:?}");
    }
    assert_eq!(check("task_failed", &json!({"task_id": "t", "message": "", "failure_reason": "x"})).len(), 2);
    assert_eq!(check("task_done", &good).len(), 1);
}

#[test]
fn frames_that_are_not_messages_are_violations() {
    let plane = ControlPlane::start(Options::default());
    let mut worker = FakeWorker::connect(&plane, "w");
    worker.socket.send(Message::text("{")).unwrap();
    worker.socket.send(Message::text("{}")).unwrap();
    worker.socket.send(Message::binary(vec![1])).unwrap();
    let id = plane.submit(RunSpec::default());
    worker.complete(&id, 0);
    plane.wait_for(DEADLINE, |model| model.violations.len() == 4);
    assert!(plane.violations()[3].contains("before task_claimed"));
}
