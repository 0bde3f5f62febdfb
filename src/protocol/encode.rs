//! Message -> text frame.
//!
//! Owns the field names we send and the hard limit on a message's size. It must not know whether or when one is sent.

use serde_json::{Map, Value, json};

use super::{FailureReason, Outgoing, PullRequest, Report, RunResult};
use crate::task::output::fit;

/// No message that we send is longer, in bytes: a control plane of this protocol ends with an error, for all its workers, on one
/// over 100 MiB.
pub const MAX_MESSAGE_BYTES: usize = 80 << 20;

/// What a report may need besides its output: ids, message, links, with every character escaped.
const ENVELOPE_BYTES: usize = 1 << 20;

/// Longest `message` of a failure and `reason` of a rejection, in bytes: for people, so that what engines and registries say
/// cannot fill a frame.
const MAX_TEXT_BYTES: usize = 4096;

/// Writes a message as the text of one frame. Output that would make the frame too long loses more of its middle.
pub fn encode(message: &Outgoing, worker_id: &str) -> String {
    let (kind, mut data) = match message {
        Outgoing::Claimed { .. } => ("task_claimed", Map::new()),
        Outgoing::Rejected { reason, .. } => ("task_rejected", object(json!({ "reason": bounded(reason) }))),
        Outgoing::Report(report) => report_data(report),
    };
    data.insert("task_id".into(), message.task_id().into());
    if matches!(kind, "task_claimed" | "task_completed") {
        data.insert("worker_id".into(), worker_id.into());
    }
    // Not by `json!`, which would copy the output once more.
    let frame = Map::from_iter([("type".into(), kind.into()), ("data".into(), Value::Object(data))]);
    Value::Object(frame).to_string()
}

impl Outgoing {
    /// The task that the message is about.
    pub fn task_id(&self) -> &str {
        match self {
            Self::Claimed { task_id } | Self::Rejected { task_id, .. } => task_id,
            Self::Report(report) => &report.task_id,
        }
    }

    /// Its type on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "task_claimed",
            Self::Rejected { .. } => "task_rejected",
            Self::Report(report) => match report.result {
                RunResult::Completed { .. } => "task_completed",
                RunResult::Failed { .. } => "task_failed",
            },
        }
    }
}

fn report_data(report: &Report) -> (&'static str, Map<String, Value>) {
    let mut data = Map::new();
    let output = fit(report.output.clone(), MAX_MESSAGE_BYTES - ENVELOPE_BYTES);
    let kind = match &report.result {
        RunResult::Completed { exit_code, out_of_memory } => {
            data.insert("exit_code".into(), (*exit_code).into());
            data.insert("output".into(), output.into());
            if *out_of_memory {
                data.insert("failure_reason".into(), FailureReason::ContainerOom.name().into());
            }
            "task_completed"
        }
        RunResult::Failed { reason, message, exit_code } => {
            data.insert("message".into(), bounded(message).into());
            data.insert("failure_reason".into(), reason.name().into());
            if let Some(exit_code) = exit_code {
                data.insert("exit_code".into(), (*exit_code).into());
            }
            if !output.is_empty() {
                data.insert("output".into(), output.into());
            }
            "task_failed"
        }
    };
    if !report.artifacts.is_empty() {
        data.insert("artifacts".into(), report.artifacts.iter().map(artifact).collect());
    }
    if let Some(link) = &report.session_link {
        data.insert("session_link".into(), link.as_str().into());
    }
    (kind, data)
}

/// The branch is not known to the worker, and the field is required.
fn artifact(pull: &PullRequest) -> Value {
    json!({
        "artifact_type": "PULL_REQUEST",
        "created_at": pull.created_at,
        "data": { "branch": "unknown", "url": pull.url },
    })
}

/// NUL is replaced because the control plane's store loses it with all that follows.
fn bounded(text: &str) -> String {
    // Before the cut, as it makes the text longer.
    let text = text.replace('\0', "\u{fffd}");
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
