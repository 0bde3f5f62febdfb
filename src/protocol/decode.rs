//! Text frame -> message.
//!
//! Owns what is required, what is ignored and what is wrong in a message of the control plane. It must not know what
//! the worker does with one: a decoded assignment is well formed, not yet found runnable.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::fields::{FieldError, Fields, wrong};
use super::{AdditionalSidecar, AgentConfig, Assignment, DEFAULT_TASK_IMAGE, Incoming, InstanceShape};
use crate::secret::Secret;

/// A run created without a model carries this in place of one.
const NO_MODEL: &str = "pending";

/// A frame that is not a message of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The task it is about, when that much could be read: it can be told that its assignment is wrong.
    pub task_id: Option<String>,
    /// The field and what would be right, never the value.
    pub message: String,
}

impl From<FieldError> for Invalid {
    fn from(message: FieldError) -> Self {
        Self { task_id: None, message }
    }
}

/// Reads one text frame.
///
/// # Errors
/// [`Invalid`] for anything that is not JSON, has no type, or lacks what its type requires.
pub fn decode(text: &str) -> Result<Incoming, Invalid> {
    let value: Value = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    let frame = Fields::new("message", &value)?;
    let kind = frame.string("type")?.ok_or("type: is missing".to_owned())?;
    match kind {
        "task_assignment" => assignment(&frame),
        "task_cancel" | "task_cancellation" => {
            let data = data(&frame)?;
            let task_id = task_id(&data)?;
            Ok(Incoming::Cancel { task_id })
        }
        other => Ok(Incoming::Unknown { kind: other.to_owned() }),
    }
}

/// serde_json's own text quotes what it found only in type errors, which parsing into a `Value` cannot give; its
/// position is kept and the rest is left out all the same.
fn malformed(error: &serde_json::Error) -> Invalid {
    let message = format!("message: is not JSON (line {}, column {})", error.line(), error.column());
    Invalid { task_id: None, message }
}

fn data<'a>(frame: &Fields<'a>) -> Result<Fields<'a>, FieldError> {
    let value = frame.value("data").ok_or("data: is missing")?;
    Fields::new("data", value)
}

fn task_id(data: &Fields<'_>) -> Result<String, FieldError> {
    let id = data.string("task_id")?.filter(|id| !id.trim().is_empty());
    id.map(str::to_owned).ok_or_else(|| "data.task_id: must be a string that is not blank".to_owned())
}

fn assignment(frame: &Fields<'_>) -> Result<Incoming, Invalid> {
    let data = data(frame)?;
    let task_id = task_id(&data)?;
    match read_assignment(&data, &task_id) {
        Ok(assignment) => Ok(Incoming::Assignment(Arc::new(assignment))),
        Err(message) => Err(Invalid { task_id: Some(task_id), message }),
    }
}

fn read_assignment(data: &Fields<'_>, task_id: &str) -> Result<Assignment, FieldError> {
    let task = data.object("task")?.ok_or("data.task: is missing")?;
    let agent_task_id = task.text("id")?.unwrap_or_else(|| task_id.to_owned());
    let sidecar_image = data.text("sidecar_image")?;
    Ok(Assignment {
        task_id: task_id.to_owned(),
        agent_task_id,
        agent: task
            .object("agent_config_snapshot")?
            .map(|fields| agent(&fields))
            .transpose()?
            .unwrap_or_default(),
        docker_image: data.text("docker_image")?.unwrap_or_else(|| DEFAULT_TASK_IMAGE.to_owned()),
        sidecar_image: sidecar_image.ok_or("data.sidecar_image: must name an image")?,
        env_vars: env_vars(data)?,
        additional_sidecars: sidecars(data)?,
        trace_id: data.text("trace_id")?,
        execution_id: data.text("execution_id")?,
        shape: shape(data)?,
        additional_oz_args: strings(data, "additional_oz_args")?,
    })
}

fn agent(fields: &Fields<'_>) -> Result<AgentConfig, FieldError> {
    Ok(AgentConfig {
        environment_id: fields.text("environment_id")?,
        model_id: fields.text("model_id")?.filter(|model| model != NO_MODEL),
        profile_id: fields.text("profile_id")?,
        skill_spec: fields.text("skill_spec")?,
        mcp_servers: mcp_servers(fields)?,
        computer_use: fields.boolean("computer_use_enabled")?,
    })
}

/// An object without entries names no server, so it is unset like a blank string.
fn mcp_servers(fields: &Fields<'_>) -> Result<Option<Secret>, FieldError> {
    let Some(servers) = fields.object("mcp_servers")? else { return Ok(None) };
    let set = servers.entries().next().is_some();
    let compact = fields.value("mcp_servers").filter(|_| set).map(Value::to_string);
    Ok(compact.map(Secret::new))
}

fn env_vars(data: &Fields<'_>) -> Result<BTreeMap<String, Secret>, FieldError> {
    let Some(fields) = data.object("env_vars")? else { return Ok(BTreeMap::new()) };
    let read = |(name, value): (&String, &Value)| {
        let text = value.as_str().ok_or_else(|| wrong(&fields.at(name), "a string", value))?;
        Ok((name.clone(), Secret::new(text)))
    };
    fields.entries().map(read).collect()
}

fn sidecars(data: &Fields<'_>) -> Result<Vec<AdditionalSidecar>, FieldError> {
    let read = |(index, value): (usize, &Value)| {
        let path = format!("data.additional_sidecars[{index}]");
        let fields = Fields::new(&path, value)?;
        Ok(AdditionalSidecar {
            image: fields.text("image")?.ok_or_else(|| format!("{path}.image: must name an image"))?,
            mount_path: fields.text("mount_path")?.ok_or_else(|| format!("{path}.mount_path: is missing"))?,
            read_write: fields.boolean("read_write")?.unwrap_or(false),
        })
    };
    data.array("additional_sidecars")?.iter().enumerate().map(read).collect()
}

fn shape(data: &Fields<'_>) -> Result<InstanceShape, FieldError> {
    let Some(fields) = data.object("instance_shape")? else { return Ok(InstanceShape::default()) };
    let positive = |name| Ok::<_, FieldError>(fields.number(name)?.filter(|number| *number > 0.0));
    Ok(InstanceShape { vcpus: positive("vcpus")?, memory_gb: positive("memory_gb")? })
}

fn strings(data: &Fields<'_>, name: &str) -> Result<Vec<String>, FieldError> {
    let read = |(index, value): (usize, &Value)| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| wrong(&format!("{}[{index}]", data.at(name)), "a string", value))
    };
    data.array(name)?.iter().enumerate().map(read).collect()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
