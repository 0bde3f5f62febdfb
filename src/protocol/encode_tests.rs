//! Each message, field by field.

use std::sync::Arc;

use super::*;
use crate::protocol::{FailureReason, RunResult};

fn encoded(message: &Outgoing) -> Value {
    serde_json::from_str(&encode(message, "w 1")).unwrap()
}

fn sent(report: Report) -> Value {
    encoded(&Outgoing::Report(Arc::new(EncodedReport::new(report, "w 1"))))
}

fn report(result: RunResult) -> Report {
    Report {
        key: ExecutionKey::new("r", Some("e")),
        dialect: Dialect::Old,
        result,
        output: String::new(),
        artifacts: Vec::new(),
        session_link: None,
    }
}

/// The frames that the known control plane gets, byte by byte. It knows no execution ids.
#[test]
fn frames_are_as_recorded() {
    let key = || ExecutionKey::new("r", Some("e"));
    let pull = PullRequest { url: "https://p".into(), created_at: "2026-01-02T03:04:05Z".into() };
    let done = Report {
        key: key(),
        dialect: Dialect::Old,
        result: RunResult::Completed { exit_code: 137, out_of_memory: true, note: None },
        output: "o\n\u{e9}".into(),
        artifacts: vec![pull],
        session_link: Some("https://s".into()),
    };
    let result = RunResult::Failed {
        reason: FailureReason::TaskTimeout,
        step: FailureReason::TaskTimeout,
        message: "m".into(),
        exit_code: Some(143),
    };
    let failed = Report { result, ..done.clone() };
    let sent = |report| Outgoing::Report(Arc::new(EncodedReport::new(report, "w 1")));
    let recorded = [
        (
            Outgoing::Claimed { key: key(), dialect: Dialect::Old },
            r#"{"data":{"task_id":"r","worker_id":"w 1"},"type":"task_claimed"}"#,
        ),
        (
            Outgoing::Rejected { key: key(), dialect: Dialect::Old, reason: "full".into() },
            r#"{"data":{"reason":"full","task_id":"r"},"type":"task_rejected"}"#,
        ),
        (
            Outgoing::Failed {
                key: key(),
                dialect: Dialect::Old,
                reason: FailureReason::TaskCancelled,
                message: "m".into(),
            },
            r#"{"data":{"failure_reason":"task_cancelled","message":"m","task_id":"r"},"type":"task_failed"}"#,
        ),
        (
            sent(report(RunResult::Completed { exit_code: 0, out_of_memory: false, note: None })),
            r#"{"data":{"exit_code":0,"output":"","task_id":"r","worker_id":"w 1"},"type":"task_completed"}"#,
        ),
        (
            sent(report(RunResult::Completed {
                exit_code: 255,
                out_of_memory: false,
                note: Some("n".into()),
            })),
            r#"{"data":{"exit_code":255,"message":"n","output":"","task_id":"r","worker_id":"w 1"},"type":"task_completed"}"#,
        ),
        (
            sent(done),
            r#"{"data":{"artifacts":[{"artifact_type":"PULL_REQUEST","created_at":"2026-01-02T03:04:05Z","data":{"branch":"unknown","url":"https://p"}}],"exit_code":137,"failure_reason":"container_oom","output":"o\né","session_link":"https://s","task_id":"r","worker_id":"w 1"},"type":"task_completed"}"#,
        ),
        (
            sent(failed),
            r#"{"data":{"artifacts":[{"artifact_type":"PULL_REQUEST","created_at":"2026-01-02T03:04:05Z","data":{"branch":"unknown","url":"https://p"}}],"exit_code":143,"failure_reason":"task_timeout","message":"m","output":"o\né","session_link":"https://s","task_id":"r"},"type":"task_failed"}"#,
        ),
    ];
    for (message, frame) in recorded {
        assert_eq!(*encode(&message, "w 1"), frame);
    }
}

/// The same for the public control plane.
#[test]
fn upstream_frames_name_the_execution_and_leave_out_the_output() {
    let dialect = Dialect::Upstream;
    let frame = |result: RunResult, id: Option<&str>| {
        let pull = PullRequest { url: "https://p".into(), created_at: "2026-01-02T03:04:05Z".into() };
        let report = Report {
            key: ExecutionKey::new("r", id),
            dialect,
            result,
            output: "o".into(),
            artifacts: vec![pull],
            session_link: Some("https://s".into()),
        };
        encode(&Outgoing::Report(Arc::new(EncodedReport::new(report, "w 1"))), "w 1").to_string()
    };
    let completed = |exit_code| RunResult::Completed { exit_code, out_of_memory: false, note: None };
    let failed = |reason, step| RunResult::Failed { reason, step, message: "m".into(), exit_code: Some(143) };
    let stopped = failed(FailureReason::GracefulShutdown, FailureReason::GracefulShutdown);
    let cancelled = failed(FailureReason::TaskCancelled, FailureReason::TaskCancelled);
    let away = failed(FailureReason::DockerUnreachable, FailureReason::ImagePull);
    let recorded = [
        (
            frame(completed(0), None),
            r#"{"data":{"message":"the task succeeded","task_id":"r"},"type":"task_completed"}"#,
        ),
        (
            frame(completed(3), Some("e")),
            r#"{"data":{"execution_id":"e","exit_code":3,"failure_reason":"container_exit","message":"the task exited with code 3","task_id":"r"},"type":"task_failed"}"#,
        ),
        (
            frame(stopped, Some("e")),
            r#"{"data":{"execution_id":"e","failure_reason":"graceful_shutdown","message":"m","task_id":"r"},"type":"task_failed"}"#,
        ),
        (
            frame(cancelled, Some("e")),
            r#"{"data":{"execution_id":"e","message":"m","task_id":"r","task_state":"CANCELLED"},"type":"task_completed"}"#,
        ),
        (
            frame(away, None),
            r#"{"data":{"failure_reason":"image_pull","message":"docker_unreachable: m","task_id":"r"},"type":"task_failed"}"#,
        ),
    ];
    for (frame, expected) in recorded {
        assert_eq!(frame, expected);
    }
}

#[test]
fn upstream_messages_without_a_report() {
    let dialect = Dialect::Upstream;
    let key = || ExecutionKey::new("r", Some("e"));
    let messages = [
        (
            Outgoing::Closed { key: key(), dialect },
            r#"{"data":{"execution_id":"e","task_id":"r"},"type":"execution_closed"}"#,
        ),
        (
            Outgoing::Claimed { key: key(), dialect },
            r#"{"data":{"execution_id":"e","task_id":"r","worker_id":"w 1"},"type":"task_claimed"}"#,
        ),
        (
            Outgoing::Rejected { key: key(), dialect, reason: "full".into() },
            r#"{"data":{"reason":"full","task_id":"r"},"type":"task_rejected"}"#,
        ),
        (
            Outgoing::Failed {
                key: key(),
                dialect,
                reason: FailureReason::TaskCancelled,
                message: "m".into(),
            },
            r#"{"data":{"execution_id":"e","message":"m","task_id":"r","task_state":"CANCELLED"},"type":"task_completed"}"#,
        ),
        (
            Outgoing::Failed {
                key: key(),
                dialect,
                reason: FailureReason::InvalidAssignment,
                message: "m".into(),
            },
            r#"{"data":{"execution_id":"e","failure_reason":"unknown","message":"invalid_assignment: m","task_id":"r"},"type":"task_failed"}"#,
        ),
    ];
    for (message, expected) in messages {
        assert_eq!(*encode(&message, "w 1"), expected);
        assert_eq!(encoded(&message)["type"], message.kind());
    }
}

#[test]
fn a_claim_and_a_rejection() {
    let claim = Outgoing::Claimed { key: ExecutionKey::new("r", Some("e")), dialect: Dialect::Old };
    assert_eq!(
        encoded(&claim),
        json!({"type": "task_claimed", "data": {"task_id": "r", "worker_id": "w 1"}})
    );
    let rejection = Outgoing::Rejected {
        key: ExecutionKey::new("r", Some("e")),
        dialect: Dialect::Old,
        reason: "stopping".into(),
    };
    assert_eq!(
        encoded(&rejection),
        json!({"type": "task_rejected", "data": {"task_id": "r", "reason": "stopping"}})
    );
}

#[test]
fn a_completed_run_has_an_output_even_if_it_is_empty() {
    let done = report(RunResult::Completed { exit_code: 0, out_of_memory: false, note: None });
    let expected = json!({"type": "task_completed",
        "data": {"task_id": "r", "worker_id": "w 1", "exit_code": 0, "output": ""}});
    assert_eq!(sent(done), expected);
}

#[test]
fn a_run_killed_for_its_memory() {
    let mut done = report(RunResult::Completed { exit_code: 137, out_of_memory: true, note: None });
    done.output = "o".into();
    done.session_link = Some("https://s".into());
    done.artifacts.push(PullRequest { url: "https://p".into(), created_at: "2026-01-02T03:04:05Z".into() });
    let expected = json!({"type": "task_completed", "data": {"task_id": "r", "worker_id": "w 1", "exit_code": 137,
        "output": "o", "failure_reason": "container_oom", "session_link": "https://s",
        "artifacts": [{"artifact_type": "PULL_REQUEST", "created_at": "2026-01-02T03:04:05Z",
            "data": {"branch": "unknown", "url": "https://p"}}]}});
    assert_eq!(sent(done), expected);
}

#[test]
fn a_failure_omits_empty_fields_and_bounds_its_message() {
    let failed = Report::failed(
        &ExecutionKey::new("r", None),
        Dialect::Old,
        FailureReason::ImagePull,
        "no such image",
    );
    let expected = json!({"type": "task_failed",
        "data": {"task_id": "r", "message": "no such image", "failure_reason": "image_pull"}});
    assert_eq!(sent(failed), expected);
    let mut long = Report::failed(
        &ExecutionKey::new("r", None),
        Dialect::Old,
        FailureReason::Internal,
        "é".repeat(5000) + "\0",
    );
    long.output = "said".into();
    let data = sent(long);
    assert_eq!(data["data"]["message"].as_str().unwrap().len(), 4096);
    assert_eq!(data["data"]["output"], "said");
    let longer = Report::failed(
        &ExecutionKey::new("r", None),
        Dialect::Old,
        FailureReason::Internal,
        "\0".repeat(5000),
    );
    let data = sent(longer);
    assert_eq!(data["data"]["message"].as_str().unwrap().len(), 4095, "the replacement of a NUL counts");
}

#[test]
fn a_frame_is_allocated_once_and_without_waste() {
    let mut done = report(RunResult::Completed { exit_code: 0, out_of_memory: true, note: None });
    done.output = "a\"\n\u{1}€".repeat(1000);
    done.session_link = Some("https://s".repeat(100));
    let pull = PullRequest { url: "https://p".repeat(10), created_at: "2026-01-02T03:04:05Z".into() };
    done.artifacts = vec![pull; 100];
    let failed = Report::failed(
        &ExecutionKey::new("r", None),
        Dialect::Old,
        FailureReason::Internal,
        "\"".repeat(4000),
    );
    for report in [done, failed] {
        let text = EncodedReport::new(report, "w").text;
        assert!(text.capacity() - text.len() < 64, "{} of {}", text.len(), text.capacity());
    }
}

#[test]
fn a_task_that_never_had_a_slot_fails_as_one_that_had() {
    let key = ExecutionKey::new("r", Some("e"));
    let (reason, message) = (FailureReason::TaskCancelled, "cancelled".to_owned());
    let report = Report::failed(&key, Dialect::Old, reason, message.as_str());
    assert_eq!(encoded(&Outgoing::Failed { key, dialect: Dialect::Old, reason, message }), sent(report));
}

#[test]
fn output_never_makes_a_frame_longer_than_its_limit() {
    const LIMIT: usize = ENVELOPE_BYTES + 4096;
    // One, two and six bytes of JSON for each byte of output, and characters of several bytes.
    for unit in ["x", "\"", "\u{1}", "€"] {
        for length in [0, 1, 600, 683, 1000, 2000, 4000, 4096, 5000, 20_000] {
            let mut done = report(RunResult::Completed { exit_code: 0, out_of_memory: false, note: None });
            done.output = unit.repeat(length);
            let text = EncodedReport::with_limit(done, "w", LIMIT).text;
            let escaped = serde_json::to_string(&unit.repeat(length)).unwrap();
            let whole = escaped.len() - 2 <= LIMIT - ENVELOPE_BYTES;
            assert!(text.len() <= LIMIT, "{unit:?} {length}: {}", text.len());
            assert_eq!(text.contains(&escaped), whole, "{unit:?} {length}");
            assert_eq!(text.contains("bytes left out"), !whole, "{unit:?} {length}");
        }
    }
}

#[test]
fn the_kind_is_the_type_on_the_wire() {
    let completed = RunResult::Completed { exit_code: 1, out_of_memory: false, note: None };
    let failed = RunResult::Failed {
        reason: FailureReason::Internal,
        step: FailureReason::Internal,
        message: String::new(),
        exit_code: Some(3),
    };
    let messages = [
        Outgoing::Claimed { key: ExecutionKey::new("r", Some("e")), dialect: Dialect::Old },
        Outgoing::Rejected {
            key: ExecutionKey::new("r", Some("e")),
            dialect: Dialect::Old,
            reason: String::new(),
        },
        Outgoing::Report(Arc::new(EncodedReport::new(report(completed), "w"))),
        Outgoing::Report(Arc::new(EncodedReport::new(report(failed), "w"))),
    ];
    for message in messages {
        assert_eq!(encoded(&message)["type"], message.kind());
    }
}
