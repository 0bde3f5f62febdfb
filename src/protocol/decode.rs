//! Text frames to messages. A decoded assignment is well formed; the task's plan checks whether it can run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::agent::AGENT;
use super::dialect::{Mark, Marks};
use super::fields::{self, FieldError, Fields};
use super::salvage::{self, Salvaged};
use super::{AdditionalSidecar, AgentConfig, Assignment, Dialect, ExecutionKey, Incoming, InstanceShape};
use super::{instant, json};
use crate::secret::Secret;

/// The longest `task_id` and `execution_id`, in bytes. They become labels, and an engine does not start a process with more
/// than some megabytes of labels.
pub(super) const MAX_ID_BYTES: usize = 4096;

/// The largest assignment, as [`Assignment::size`] counts it. Linux starts no process with more than 6 MiB of arguments and
/// environment (execve(2)).
const MAX_SIZE: usize = 8 << 20;

const FRAME: &[&str] = &["type", "data"];
const CANCEL: &[&str] = &["task_id", "execution_id"];
const ASSIGNMENT: &[&str] = &[
    "task_id",
    "task",
    "docker_image",
    "sidecar_image",
    "env_vars",
    "additional_sidecars",
    "trace_id",
    "execution_id",
    "instance_shape",
    "additional_oz_args",
];
const TASK: &[&str] = &["id", "owner", "updated_at", "agent_config_snapshot"];
const SIDECAR: &[&str] = &["image", "mount_path", "read_write"];
const SHAPE: &[&str] = &["vcpus", "memory_gb"];

/// A text frame that is not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The execution of an assignment, if the run's id could be read: it can be failed, unless its ids are too long
    /// ([`ExecutionKey::can_be_answered`]). Without an execution id it may be any execution of the run.
    pub key: Option<ExecutionKey>,
    /// What the control plane expects for that execution.
    pub dialect: Dialect,
    /// The field and what would be right; never the value, which may be a secret.
    pub message: String,
}

impl From<FieldError> for Invalid {
    fn from(FieldError(message): FieldError) -> Self {
        Self { key: None, dialect: Dialect::default(), message }
    }
}

/// Decodes one text frame. `host` is the dialect of the control plane's host, if that is known. Unknown fields are skipped, and of
/// several fields with one name the last counts.
///
/// # Errors
/// It is not JSON, has no type, or lacks what its type requires.
pub fn decode(text: &str, host: Option<Dialect>) -> Result<Incoming, Invalid> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value: &RawValue = serde_json::from_str(text).map_err(|error| malformed(text, &error, host))?;
    let frame = Fields::new("message", value, FRAME)?;
    let kind = frame.string("type")?.ok_or_else(|| FieldError::missing("type"))?;
    match kind.as_ref() {
        "task_assignment" => assignment(&frame, host),
        "task_cancel" | "task_cancellation" => {
            let data = data(&frame, CANCEL)?;
            let task_id = task_id(&data)?;
            let (execution_id, _) = execution_id(&data);
            short("data.task_id", &task_id)?;
            short("data.execution_id", execution_id.as_deref().unwrap_or_default())?;
            Ok(Incoming::Cancel { task_id, execution_id })
        }
        other => Ok(Incoming::Unknown { kind: other.to_owned() }),
    }
}

/// Returns the error for a message of `bytes` bytes, of which only the beginning was stored. `host` is as in [`decode`].
pub fn too_long(beginning: &[u8], bytes: u64, limit: u64, host: Option<Dialect>) -> Invalid {
    salvaged(beginning, format!("message: must have at most {limit} bytes, not {bytes}"), host)
}

fn salvaged(beginning: &[u8], message: String, host: Option<Dialect>) -> Invalid {
    let Some(Salvaged { key, trace_id }) = salvage::read(beginning) else {
        return Invalid { key: None, dialect: Dialect::default(), message };
    };
    let execution_id = if key.execution_id.is_some() { Mark::Present } else { Mark::Absent };
    let (dialect, _) = Dialect::of(host, Marks { execution_id, owner: Mark::Absent, trace_id });
    Invalid { key: Some(key), dialect, message }
}

/// Keeps serde_json's position and leaves out its text, which may quote the message.
fn malformed(text: &str, error: &serde_json::Error, host: Option<Dialect>) -> Invalid {
    let message = format!("message: is not JSON (line {}, column {})", error.line(), error.column());
    salvaged(text.as_bytes(), message, host)
}

fn data<'a>(frame: &Fields<'a>, names: &'static [&'static str]) -> Result<Fields<'a>, FieldError> {
    let value = frame.value("data").ok_or_else(|| FieldError::missing("data"))?;
    Fields::new("data", value, names)
}

fn task_id(data: &Fields<'_>) -> Result<String, FieldError> {
    let id = data.string("task_id")?.filter(|id| !id.trim().is_empty());
    let id = id.ok_or_else(|| FieldError::new("data.task_id", "must be a string that is not blank"))?;
    Ok(id.into_owned())
}

/// Returns the execution's id, trimmed, and what it says about the dialect. A number counts as its text, and a value of another
/// type as no id.
fn execution_id(data: &Fields<'_>) -> (Option<String>, Mark) {
    match (data.text("execution_id"), data.value("execution_id")) {
        (Ok(id), _) => {
            let mark = if id.is_some() { Mark::Present } else { Mark::Absent };
            (id, mark)
        }
        (Err(_), Some(value)) if json::kind(value) == "a number" => (Some(value.get().to_owned()), Mark::Odd),
        (Err(_), _) => (None, Mark::Odd),
    }
}

/// Returns the trace id, which is only for logs, so that a wrong one is no reason to refuse a task: a number counts as its text, and a
/// value of another type as no id.
fn trace_id(data: &Fields<'_>) -> Option<String> {
    let number = || data.value("trace_id").filter(|value| json::kind(value) == "a number");
    data.text("trace_id").unwrap_or_else(|_| number().map(|value| value.get().to_owned()))
}

/// Returns the type of the run's owner, and what the owner says about the dialect. Names of members are in any case, as Go reads
/// them.
fn owner(task: &Fields<'_>) -> (Option<String>, Mark) {
    let Some(value) = task.value("owner") else { return (None, Mark::Absent) };
    let members = json::all_members(value).unwrap_or_default();
    let kind = members.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("Type"));
    match kind.and_then(|(_, kind)| json::string(kind)) {
        Some(kind) => (Some(kind.into_owned()), Mark::Present),
        None => (None, Mark::Odd),
    }
}

fn assignment(frame: &Fields<'_>, host: Option<Dialect>) -> Result<Incoming, Invalid> {
    let data = data(frame, ASSIGNMENT)?;
    let task_id = task_id(&data)?;
    let (execution_id, mark) = execution_id(&data);
    let key = ExecutionKey { task_id, execution_id };
    let (task, trace_id) = (data.object("task", TASK), trace_id(&data));
    let (owner, owner_mark) = match &task {
        Ok(Some(task)) => owner(task),
        _ => (None, Mark::Absent),
    };
    let has_trace = trace_id.is_some();
    let marks = Marks { execution_id: mark, owner: owner_mark, trace_id: has_trace };
    let (dialect, guess) = Dialect::of(host, marks);
    let read = task.and_then(|task| {
        let assignment = read_assignment(&data, task, &key, dialect)?;
        not_too_large(Assignment { trace_id, ..assignment })
    });
    match read {
        Ok(assignment) => {
            let shared_with_team = dialect.shares_with_team(owner.as_deref());
            let assignment = Assignment { guess, shared_with_team, ..assignment };
            Ok(Incoming::Assignment(Arc::new(assignment)))
        }
        Err(FieldError(message)) => Err(Invalid { key: Some(key), dialect, message }),
    }
}

fn read_assignment(
    data: &Fields<'_>,
    task: Option<Fields<'_>>,
    key: &ExecutionKey,
    dialect: Dialect,
) -> Result<Assignment, FieldError> {
    short("data.task_id", &key.task_id)?;
    short("data.execution_id", key.execution_id.as_deref().unwrap_or_default())?;
    let task = task.ok_or_else(|| FieldError::missing("data.task"))?;
    let agent_task_id = task.text("id")?.unwrap_or_else(|| key.task_id.clone());
    let image = |name| Ok::<_, FieldError>(data.string(name)?.and_then(|text| dialect.image(&text)));
    let sidecar_image = image("sidecar_image")?;
    if sidecar_image.is_none() && dialect.needs_sidecar() {
        return Err(FieldError::new("data.sidecar_image", "must name an image"));
    }
    Ok(Assignment {
        key: key.clone(),
        dialect,
        guess: None,
        shared_with_team: false,
        agent_task_id,
        agent: AgentConfig::read(task.object("agent_config_snapshot", AGENT)?, dialect)?,
        docker_image: image("docker_image")?,
        sidecar_image,
        env_vars: env_vars(data)?,
        additional_sidecars: sidecars(data)?,
        // A time that cannot be read is no reason to refuse the task.
        updated_at: task.string("updated_at").ok().flatten().and_then(|text| instant(&text)),
        trace_id: None,
        shape: shape(data)?,
        additional_oz_args: strings(data, "additional_oz_args")?,
    })
}

fn not_too_large(assignment: Assignment) -> Result<Assignment, FieldError> {
    let size = assignment.size();
    if size > MAX_SIZE {
        let requirement =
            format!("must have at most {MAX_SIZE} bytes of arguments and variables, not {size}");
        return Err(FieldError::new("data", &requirement));
    }
    Ok(assignment)
}

fn short(path: &str, id: &str) -> Result<(), FieldError> {
    if id.len() > MAX_ID_BYTES { Err(too_long_id(path, id)) } else { Ok(()) }
}

fn too_long_id(path: &str, id: &str) -> FieldError {
    FieldError::new(path, &format!("must have at most {MAX_ID_BYTES} bytes, not {}", id.len()))
}

fn env_vars(data: &Fields<'_>) -> Result<BTreeMap<String, Secret>, FieldError> {
    // The last of several members of a name counts, also if an earlier one is invalid.
    let members: BTreeMap<_, _> = data.members("env_vars")?.into_iter().collect();
    let read = |(name, value): (String, &RawValue)| match json::string(value) {
        None if value.get() == "null" => Ok((name, Secret::new(""))),
        Some(text) => Ok((name, Secret::new(text))),
        None => {
            let path = fields::at(&data.at("env_vars"), &name);
            Err(FieldError::wrong_type(&path, "a string", value))
        }
    };
    members.into_iter().map(read).collect()
}

fn sidecars(data: &Fields<'_>) -> Result<Vec<AdditionalSidecar>, FieldError> {
    let read = |(index, value): (usize, &RawValue)| {
        let path = format!("data.additional_sidecars[{index}]");
        let fields = Fields::new(&path, value, SIDECAR)?;
        Ok(AdditionalSidecar {
            image: fields
                .text("image")?
                .ok_or_else(|| FieldError::new(&format!("{path}.image"), "must name an image"))?,
            mount_path: fields
                .text("mount_path")?
                .ok_or_else(|| FieldError::missing(&format!("{path}.mount_path")))?,
            read_write: fields.boolean("read_write")?.unwrap_or(false),
        })
    };
    data.array("additional_sidecars")?.into_iter().enumerate().map(read).collect()
}

fn shape(data: &Fields<'_>) -> Result<InstanceShape, FieldError> {
    let Some(fields) = data.object("instance_shape", SHAPE)? else { return Ok(InstanceShape::default()) };
    let positive = |name| Ok::<_, FieldError>(fields.number(name)?.filter(|number| *number > 0.0));
    Ok(InstanceShape { vcpus: positive("vcpus")?, memory_gb: positive("memory_gb")? })
}

fn strings(data: &Fields<'_>, name: &str) -> Result<Vec<String>, FieldError> {
    let read = |(index, value): (usize, &RawValue)| {
        let path = || format!("{}[{index}]", data.at(name));
        json::string(value)
            .map(String::from)
            .ok_or_else(|| FieldError::wrong_type(&path(), "a string", value))
    };
    data.array(name)?.into_iter().enumerate().map(read).collect()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
