//! Text frames to messages. A decoded assignment is well formed; the task's plan checks whether it can run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::fields::{FieldError, Fields};
use super::{AdditionalSidecar, AgentConfig, Assignment, DEFAULT_TASK_IMAGE, Incoming, InstanceShape};
use crate::secret::Secret;

/// The `model_id` of a run that was created without a model.
const NO_MODEL: &str = "pending";

/// A text frame that is not a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The task, if its id could be read: its run can be failed.
    pub task_id: Option<String>,
    /// The field and what would be right; never the value, which may be a secret.
    pub message: String,
}

impl From<FieldError> for Invalid {
    fn from(FieldError(message): FieldError) -> Self {
        Self { task_id: None, message }
    }
}

/// Decodes one text frame.
///
/// # Errors
/// It is not JSON, has no type, or lacks what its type requires.
pub fn decode(text: &str) -> Result<Incoming, Invalid> {
    let value: Value = serde_json::from_str(text).map_err(|error| malformed(&error))?;
    let frame = Fields::new("message", &value)?;
    let kind = frame.string("type")?.ok_or_else(|| FieldError::missing("type"))?;
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

/// Keeps serde_json's position and leaves out its text, which may quote the message.
fn malformed(error: &serde_json::Error) -> Invalid {
    let message = format!("message: is not JSON (line {}, column {})", error.line(), error.column());
    Invalid { task_id: None, message }
}

fn data<'a>(frame: &Fields<'a>) -> Result<Fields<'a>, FieldError> {
    let value = frame.value("data").ok_or_else(|| FieldError::missing("data"))?;
    Fields::new("data", value)
}

fn task_id(data: &Fields<'_>) -> Result<String, FieldError> {
    let id = data.string("task_id")?.filter(|id| !id.trim().is_empty());
    id.map(str::to_owned).ok_or_else(|| FieldError::new("data.task_id", "must be a string that is not blank"))
}

fn assignment(frame: &Fields<'_>) -> Result<Incoming, Invalid> {
    let data = data(frame)?;
    let task_id = task_id(&data)?;
    match read_assignment(&data, &task_id) {
        Ok(assignment) => Ok(Incoming::Assignment(Arc::new(assignment))),
        Err(FieldError(message)) => Err(Invalid { task_id: Some(task_id), message }),
    }
}

fn read_assignment(data: &Fields<'_>, task_id: &str) -> Result<Assignment, FieldError> {
    let task = data.object("task")?.ok_or_else(|| FieldError::missing("data.task"))?;
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
        sidecar_image: sidecar_image
            .ok_or_else(|| FieldError::new("data.sidecar_image", "must name an image"))?,
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

/// An empty object counts as unset, like a blank string.
fn mcp_servers(fields: &Fields<'_>) -> Result<Option<Secret>, FieldError> {
    let Some(servers) = fields.object("mcp_servers")? else { return Ok(None) };
    let set = servers.entries().next().is_some();
    let compact = fields.value("mcp_servers").filter(|_| set).map(Value::to_string);
    Ok(compact.map(Secret::new))
}

fn env_vars(data: &Fields<'_>) -> Result<BTreeMap<String, Secret>, FieldError> {
    let Some(fields) = data.object("env_vars")? else { return Ok(BTreeMap::new()) };
    let read = |(name, value): (&String, &Value)| {
        let text =
            value.as_str().ok_or_else(|| FieldError::wrong_type(&fields.at(name), "a string", value))?;
        Ok((name.clone(), Secret::new(text)))
    };
    fields.entries().map(read).collect()
}

fn sidecars(data: &Fields<'_>) -> Result<Vec<AdditionalSidecar>, FieldError> {
    let read = |(index, value): (usize, &Value)| {
        let path = format!("data.additional_sidecars[{index}]");
        let fields = Fields::new(&path, value)?;
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
        text.ok_or_else(|| FieldError::wrong_type(&format!("{}[{index}]", data.at(name)), "a string", value))
    };
    data.array(name)?.iter().enumerate().map(read).collect()
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
