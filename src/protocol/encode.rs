//! Messages to text frames.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::dialect::{Dialect, Ending};
use super::fit::{escaped_len, fit};
use super::{ExecutionKey, Outgoing, PullRequest, Report};
use crate::metrics::TaskEnd;

/// The longest message that is sent, in bytes. The known control plane ends its process, for all its workers, on a message
/// over 100 MiB.
pub const MAX_MESSAGE_BYTES: usize = 80 << 20;
const _: () = assert!(MAX_MESSAGE_BYTES < 100 << 20);

/// What a report may need besides its output, in bytes: ids, message and links, with every character escaped.
const ENVELOPE_BYTES: usize = 1 << 20;

/// The bytes of a frame without its type and its fields: `{"data":{},"type":""}`.
const FRAME: usize = 21;

/// The most bytes that a field adds to its name and value: quotes, a colon and a comma.
const PUNCTUATION: usize = 6;

/// The longest `message` of a failure and `reason` of a rejection, in bytes: texts of engines and registries must not fill
/// a frame.
const MAX_TEXT_BYTES: usize = 4096;

/// A report as the text of its frame: encoded once, sent as often as needed. `Debug` does not show the text.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedReport {
    key: ExecutionKey,
    kind: &'static str,
    end: TaskEnd,
    /// Not an `Arc<str>`, which would copy the text once more.
    text: Arc<String>,
}

impl EncodedReport {
    /// Encodes a report. Output that would make the frame longer than [`MAX_MESSAGE_BYTES`] loses more of its middle.
    pub fn new(report: Report, worker_id: &str) -> Self {
        Self::with_limit(report, worker_id, MAX_MESSAGE_BYTES)
    }

    /// As [`EncodedReport::new`], for a frame of at most `max_bytes`, which must exceed [`ENVELOPE_BYTES`].
    fn with_limit(report: Report, worker_id: &str, max_bytes: usize) -> Self {
        let Report { key, dialect, .. } = &report;
        let (key, dialect, end) = (key.clone(), *dialect, report.end());
        let (kind, data) = report_data(report, max_bytes - ENVELOPE_BYTES);
        let text = Arc::new(frame(kind, &key, dialect, worker_id, data));
        Self { key, kind, end, text }
    }
}

impl EncodedReport {
    /// Returns how the task ended.
    pub fn end(&self) -> TaskEnd {
        self.end
    }

    /// Returns the length of its frame, in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl fmt::Debug for EncodedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedReport({} {}, {} bytes)", self.kind, self.key, self.text.len())
    }
}

/// Returns a message as the text of one frame.
pub fn encode(message: &Outgoing, worker_id: &str) -> Arc<String> {
    let (key, dialect, data) = match message {
        Outgoing::Report(report) => return Arc::clone(&report.text),
        Outgoing::Failed { key, dialect, reason, message } => {
            return EncodedReport::new(Report::failed(key, *dialect, *reason, message), worker_id).text;
        }
        Outgoing::Claimed { key, dialect } | Outgoing::Closed { key, dialect } => (key, *dialect, Map::new()),
        Outgoing::Rejected { key, dialect, reason } => {
            (key, *dialect, object(json!({ "reason": bounded(reason) })))
        }
    };
    Arc::new(frame(message.kind(), key, dialect, worker_id, data))
}

fn frame(
    kind: &str,
    key: &ExecutionKey,
    dialect: Dialect,
    worker_id: &str,
    mut data: Map<String, Value>,
) -> String {
    data.insert("task_id".into(), key.task_id.as_str().into());
    if let Some(id) = key.execution_id.as_deref().filter(|_| dialect.names_executions(kind)) {
        data.insert("execution_id".into(), id.into());
    }
    if dialect.names_worker(kind) {
        data.insert("worker_id".into(), worker_id.into());
    }
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => name.len() + escaped_len(text),
        value => name.len() + value.to_string().len(),
    };
    let length: usize = data.iter().map(field).map(|length| length + PUNCTUATION).sum();
    // `json!` would copy the output once more.
    let frame = Map::from_iter([("type".into(), kind.into()), ("data".into(), Value::Object(data))]);
    // Allocated once: a text that doubles as it grows would take three times the output.
    let mut text = String::with_capacity(length + kind.len() + FRAME);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", Value::Object(frame));
    text
}

impl Outgoing {
    /// The execution that the message is about.
    pub fn key(&self) -> &ExecutionKey {
        match self {
            Self::Claimed { key, .. }
            | Self::Closed { key, .. }
            | Self::Failed { key, .. }
            | Self::Rejected { key, .. } => key,
            Self::Report(report) => &report.key,
        }
    }

    /// The type on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Claimed { .. } => "task_claimed",
            Self::Closed { .. } => "execution_closed",
            Self::Failed { dialect, reason, .. } => dialect.failed_kind(*reason),
            Self::Rejected { .. } => "task_rejected",
            Self::Report(report) => report.kind,
        }
    }
}

/// Returns the type of a report, and its fields without those of its execution.
fn report_data(report: Report, max_output: usize) -> (&'static str, Map<String, Value>) {
    let mut data = Map::new();
    let Report { dialect, result, output, artifacts, session_link, .. } = report;
    let Ending { kind, task_state, failure_reason, exit_code, message, needs_output } =
        dialect.ending(result);
    if let Some(message) = message {
        data.insert("message".into(), bounded(&message).into());
    }
    if let Some(exit_code) = exit_code {
        data.insert("exit_code".into(), exit_code.into());
    }
    for (name, word) in [("task_state", task_state), ("failure_reason", failure_reason)] {
        if let Some(word) = word {
            data.insert(name.into(), word.into());
        }
    }
    if !dialect.reports_output() {
        return (kind, data);
    }
    let output = fit(output, max_output);
    if needs_output || !output.is_empty() {
        data.insert("output".into(), output.into());
    }
    if !artifacts.is_empty() {
        data.insert("artifacts".into(), artifacts.iter().map(artifact).collect());
    }
    if let Some(link) = session_link {
        data.insert("session_link".into(), link.into());
    }
    (kind, data)
}

/// `branch` is required, and the worker does not know it.
fn artifact(pull: &PullRequest) -> Value {
    json!({
        "artifact_type": "PULL_REQUEST",
        "created_at": pull.created_at,
        "data": { "branch": "unknown", "url": pull.url },
    })
}

/// The control plane's store loses a NUL and all that follows it, so NUL is replaced.
fn bounded(text: &str) -> String {
    // Before the cut: the replacement is longer.
    let mut text = text.replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
    text
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
