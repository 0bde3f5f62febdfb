//! What we send, field by field.

use std::sync::Arc;

use super::*;

fn encoded(message: &Outgoing) -> Value {
    serde_json::from_str(&encode(message, "w 1")).unwrap()
}

fn report(result: RunResult) -> Report {
    Report { task_id: "r".into(), result, output: String::new(), artifacts: Vec::new(), session_link: None }
}

#[test]
fn a_claim_and_a_rejection() {
    let claim = Outgoing::Claimed { task_id: "r".into() };
    assert_eq!(
        encoded(&claim),
        json!({"type": "task_claimed", "data": {"task_id": "r", "worker_id": "w 1"}})
    );
    let rejection = Outgoing::Rejected { task_id: "r".into(), reason: "stopping".into() };
    assert_eq!(
        encoded(&rejection),
        json!({"type": "task_rejected", "data": {"task_id": "r", "reason": "stopping"}})
    );
}

#[test]
fn a_completed_run_has_its_output_even_when_empty() {
    let done = report(RunResult::Completed { exit_code: 0, out_of_memory: false });
    let expected = json!({"type": "task_completed",
        "data": {"task_id": "r", "worker_id": "w 1", "exit_code": 0, "output": ""}});
    assert_eq!(encoded(&Outgoing::Report(Arc::new(done))), expected);
}

#[test]
fn a_run_killed_for_memory_says_so() {
    let mut done = report(RunResult::Completed { exit_code: 137, out_of_memory: true });
    done.output = "o".into();
    done.session_link = Some("https://s".into());
    done.artifacts.push(PullRequest { url: "https://p".into(), created_at: "2026-01-02T03:04:05Z".into() });
    let expected = json!({"type": "task_completed", "data": {"task_id": "r", "worker_id": "w 1", "exit_code": 137,
        "output": "o", "failure_reason": "container_oom", "session_link": "https://s",
        "artifacts": [{"artifact_type": "PULL_REQUEST", "created_at": "2026-01-02T03:04:05Z",
            "data": {"branch": "unknown", "url": "https://p"}}]}});
    assert_eq!(encoded(&Outgoing::Report(Arc::new(done))), expected);
}

#[test]
fn a_failure_leaves_out_what_is_empty_and_bounds_its_message() {
    let failed = Report::failed("r", FailureReason::ImagePull, "no such image");
    let expected = json!({"type": "task_failed",
        "data": {"task_id": "r", "message": "no such image", "failure_reason": "image_pull"}});
    assert_eq!(encoded(&Outgoing::Report(Arc::new(failed))), expected);
    let mut long = Report::failed("r", FailureReason::Internal, "é".repeat(5000) + "\0");
    long.output = "said".into();
    let data = encoded(&Outgoing::Report(Arc::new(long)));
    assert_eq!(data["data"]["message"].as_str().unwrap().len(), 4096);
    assert_eq!(data["data"]["output"], "said");
    let longer = Report::failed("r", FailureReason::Internal, "\0".repeat(5000));
    let data = encoded(&Outgoing::Report(Arc::new(longer)));
    assert_eq!(data["data"]["message"].as_str().unwrap().len(), 4095, "what stands for a NUL counts");
}

#[test]
fn no_output_makes_a_message_longer_than_the_limit() {
    let mut done = report(RunResult::Completed { exit_code: 0, out_of_memory: false });
    // Every one of these bytes takes six in JSON.
    done.output = "\u{1}".repeat(64 << 20);
    let text = encode(&Outgoing::Report(Arc::new(done)), "w");
    assert!(text.len() <= MAX_MESSAGE_BYTES, "{}", text.len());
    assert!(text.len() > MAX_MESSAGE_BYTES - 2 * ENVELOPE_BYTES, "{}", text.len());
    assert!(text.contains("bytes left out"));
}

#[test]
fn every_type_has_its_name() {
    let completed = RunResult::Completed { exit_code: 1, out_of_memory: false };
    let failed =
        RunResult::Failed { reason: FailureReason::Internal, message: String::new(), exit_code: Some(3) };
    let messages = [
        Outgoing::Claimed { task_id: "r".into() },
        Outgoing::Rejected { task_id: "r".into(), reason: String::new() },
        Outgoing::Report(Arc::new(report(completed))),
        Outgoing::Report(Arc::new(report(failed))),
    ];
    for message in messages {
        assert_eq!(encoded(&message)["type"], message.kind());
    }
}
