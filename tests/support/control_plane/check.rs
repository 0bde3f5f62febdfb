//! Checks a message from the worker against the protocol: the names, types and bounds of its fields. Pure.

use serde_json::{Map, Value};

use super::Dialect;

/// What only the public control plane expects.
#[path = "check_upstream.rs"]
mod upstream;

const REASONS: [&str; 12] = [
    "invalid_assignment",
    "image_pull",
    "sidecar_prep",
    "container_create",
    "container_start",
    "container_wait",
    "container_oom",
    "task_timeout",
    "task_cancelled",
    "graceful_shutdown",
    "docker_unreachable",
    "internal",
];

/// A message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its `type`.
    pub kind: String,
    /// Its `data`, an object.
    pub data: Value,
}

/// Parses a text frame. The error says why it is not a message.
pub fn parse(text: &str) -> Result<Message, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let Some(kind) = value["type"].as_str() else { return Err("no type".to_owned()) };
    if !value["data"].is_object() {
        return Err(format!("{kind}: data is not an object"));
    }
    Ok(Message { kind: kind.to_owned(), data: value["data"].clone() })
}

/// Returns the violations of the protocol in a message from the worker `worker_id`.
pub fn violations(dialect: Dialect, message: &Message, worker_id: &str) -> Vec<String> {
    let Some(data) = message.data.as_object() else { return vec!["data is not an object".to_owned()] };
    let mut fields = Fields { data, seen: Vec::new(), violations: Vec::new() };
    fields.required_text("task_id");
    let known = match dialect {
        Dialect::Old => fields.old(&message.kind, worker_id),
        Dialect::Upstream => fields.upstream(&message.kind, worker_id),
    };
    if !known {
        return vec![format!("unknown type {:?}", message.kind)];
    }
    fields.no_others();
    let name = |violation| format!("{}: {violation}", message.kind);
    fields.violations.into_iter().map(name).collect()
}

struct Fields<'a> {
    data: &'a Map<String, Value>,
    seen: Vec<&'static str>,
    violations: Vec<String>,
}

impl Fields<'_> {
    /// Checks a message to the old control plane. Returns `false` if it does not know the type.
    fn old(&mut self, kind: &str, worker_id: &str) -> bool {
        match kind {
            "task_claimed" => self.worker(worker_id),
            "task_completed" => self.completed(worker_id),
            "task_failed" => self.failed(),
            "task_rejected" => self.required_text("reason"),
            _ => return false,
        }
        true
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.seen.push(name);
        self.data.get(name).cloned()
    }

    fn expect(&mut self, holds: bool, violation: impl Into<String>) {
        if !holds {
            self.violations.push(violation.into());
        }
    }

    fn required_text(&mut self, name: &'static str) {
        let found = self.take(name);
        let good = found.as_ref().and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
        self.expect(good, format!("{name} is missing, blank or not a string"));
    }

    fn optional_text(&mut self, name: &'static str) {
        if let Some(found) = self.take(name) {
            let good = found.as_str().is_some_and(|text| !text.is_empty());
            self.expect(good, format!("{name} is present but empty or not a string"));
        }
    }

    fn worker(&mut self, worker_id: &str) {
        let found = self.take("worker_id");
        let good = found.as_ref().and_then(Value::as_str) == Some(worker_id);
        self.expect(good, format!("worker_id is {found:?} on the connection of {worker_id:?}"));
    }

    fn exit_code(&mut self, required: bool) {
        match self.take("exit_code") {
            None => self.expect(!required, "exit_code is missing"),
            Some(code) => {
                let good = code.as_u64().is_some_and(|code| code <= 255);
                self.expect(good, format!("exit_code {code} is not an integer from 0 to 255"));
            }
        }
    }

    fn completed(&mut self, worker_id: &str) {
        self.worker(worker_id);
        let output = self.take("output");
        self.expect(output.is_some_and(|output| output.is_string()), "output is missing or not a string");
        self.exit_code(true);
        self.output_fields();
        self.optional_text("message");
        if let Some(reason) = self.take("failure_reason") {
            self.expect(reason == "container_oom", format!("failure_reason {reason} on a completed task"));
        }
    }

    fn failed(&mut self) {
        self.required_text("message");
        self.optional_text("output");
        self.exit_code(false);
        self.output_fields();
        let reason = self.take("failure_reason");
        let known = reason.as_ref().and_then(Value::as_str).is_some_and(|reason| REASONS.contains(&reason));
        self.expect(known, format!("failure_reason {reason:?} is missing or unknown"));
    }

    /// Checks the fields that come from the task's output.
    fn output_fields(&mut self) {
        let nul = self.data.get("output").and_then(Value::as_str).is_some_and(|text| text.contains('\0'));
        self.expect(!nul, "output has a NUL");
        self.optional_text("session_link");
        if let Some(artifacts) = self.take("artifacts") {
            let list = artifacts.as_array().cloned().unwrap_or_default();
            self.expect(!list.is_empty(), "artifacts is present but empty or not an array");
            for artifact in list {
                self.expect(is_pull_request(&artifact), format!("not a valid artifact: {artifact}"));
            }
        }
    }

    fn no_others(&mut self) {
        for name in self.data.keys() {
            if !self.seen.contains(&name.as_str()) {
                self.violations.push(format!("field {name} is not in the protocol"));
            }
        }
    }
}

fn is_pull_request(artifact: &Value) -> bool {
    let created = artifact["created_at"].as_str().unwrap_or_default();
    let url = artifact["data"]["url"].as_str().unwrap_or_default();
    let only = |value: &Value, names: &[&str]| {
        value.as_object().is_some_and(|fields| fields.keys().map(String::as_str).eq(names.iter().copied()))
    };
    only(artifact, &["artifact_type", "created_at", "data"])
        && only(&artifact["data"], &["branch", "url"])
        && artifact["artifact_type"] == "PULL_REQUEST"
        && artifact["data"]["branch"] == "unknown"
        && is_utc_time(created)
        && url.starts_with("https://github.com/")
}

/// Whether the text is an RFC 3339 time in UTC, such as `2026-01-02T03:04:05.678Z`. Does not check the ranges.
fn is_utc_time(text: &str) -> bool {
    let Some((head, tail)) = text.split_at_checked(19) else { return false };
    let mark = |(byte, form): (u8, u8)| if form == b'0' { byte.is_ascii_digit() } else { byte == form };
    let head_is_good = head.bytes().zip(*b"0000-00-00T00:00:00").all(mark);
    let zone =
        tail.strip_prefix('.').map_or(tail, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    head_is_good && matches!(zone, "Z" | "+00:00")
}
