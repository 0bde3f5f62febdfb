//! The target `control_plane`: a message of the control plane, from its text to the container's plan and the reply.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Input, MARKER, assert_hidden, assert_one_line, marked};
use crate::docker::{Reference, ReferenceError};
use crate::policy::VolumeBind;
use crate::protocol::{
    Assignment, Dialect, ExecutionKey, FailureReason, Incoming, Invalid, MAX_MESSAGE_BYTES, Outgoing, decode,
    encode,
};
use crate::secret::Secret;
use crate::task::plan::{Plan, TaskSettings, plan};

/// The limit of an error about a message, in bytes. Its longest part is a variable's name.
const LONGEST_ERROR: usize = 2048;

/// Decodes a text frame, plans the task, and encodes the reply.
pub fn control_plane(bytes: &[u8]) {
    let text = Input::new(bytes).text();
    match decode(&text, None) {
        Ok(Incoming::Assignment(assignment)) => {
            let Assignment { key, dialect, docker_image, sidecar_image, .. } = &*assignment;
            assert!(!key.task_id.trim().is_empty());
            assert!([docker_image, sidecar_image].into_iter().flatten().all(|image| !image.is_empty()));
            assert!(sidecar_image.is_some() || !dialect.needs_sidecar());
            check_reply(key, *dialect, &check_plan(&assignment));
        }
        Ok(Incoming::Cancel { task_id, execution_id }) => {
            assert!(!task_id.trim().is_empty() && execution_id.is_none_or(|id| !id.trim().is_empty()));
        }
        Ok(Incoming::Unknown { .. }) => {}
        Err(invalid) => check_refusal(&invalid),
    }
    check_salvage(&text);
    if let Ok(message) = serde_json::from_str(&text) {
        check_secrets(&message);
    }
}

/// Asserts that a short assignment is found also when it is followed by something that is not JSON, and nothing else is.
fn check_salvage(text: &str) {
    let valid = decode(text, None);
    let broken = decode(&format!("{text} oops"), None);
    assert!(broken.is_err(), "it is not JSON");
    let found = broken.err().and_then(|invalid| invalid.key);
    match valid {
        Ok(Incoming::Assignment(assignment)) if text.len() < 32 << 10 => {
            // An execution id that is not a string is not found.
            let is_found = found.as_ref() == Some(&assignment.key);
            assert!(is_found || found.is_some() && assignment.guess.is_some());
        }
        Ok(Incoming::Cancel { .. } | Incoming::Unknown { .. }) => assert_eq!(found, None),
        _ => {}
    }
}

fn check_refusal(invalid: &Invalid) {
    assert_one_line(&invalid.message, LONGEST_ERROR);
    if let Some(key) = &invalid.key {
        check_reply(key, invalid.dialect, &Err(invalid.message.clone()));
    }
}

/// Asserts that neither an error nor `Debug` shows a value that may be a secret.
fn check_secrets(message: &Value) {
    let is_value = |path: &str| !matches!(path, "/type" | "/data/task_id" | "/data/execution_id");
    if let Err(invalid) = decode(&marked(message, "", &is_value).to_string(), None) {
        assert_hidden(&[invalid.message]);
    }
    let is_secret = |path: &str| path.starts_with("/data/env_vars/") || path.contains("/mcp_servers/");
    let decoded = decode(&marked(message, "", &is_secret).to_string(), None);
    if message.to_string().contains(MARKER) {
        return;
    }
    assert_hidden(&[format!("{decoded:?}")]);
    if let Ok(Incoming::Assignment(assignment)) = decoded {
        assert_hidden(&[format!("{:?}", settings().map(|settings| plan(&assignment, &settings, 4)))]);
    }
}

fn settings() -> Result<TaskSettings, ReferenceError> {
    let volume = VolumeBind { host: "/srv".into(), container: "/srv".into(), mode: String::new() };
    Ok(TaskSettings {
        worker_id: "worker 1".into(),
        process_id: "0123456789abcdef".into(),
        shared_id: false,
        server_root_url: "http://h".into(),
        volumes: vec![volume],
        container: std::sync::Arc::default(),
        env: vec![("OPERATOR".into(), Secret::new("x"))],
        default_image: Reference::parse("default:1")?,
        sidecar_image: None,
        idle_on_complete: None,
        session_sharing_server_url: None,
    })
}

fn check_plan(assignment: &Assignment) -> Result<(), String> {
    let settings = settings().map_err(|error| error.to_string())?;
    let plan = plan(assignment, &settings, 4).map_err(|error| error.message)?;
    assert!(plan.name.len() < 100 && plan.name.chars().all(is_plain), "{}", plan.name);
    let paths: BTreeSet<&str> = plan.sidecars.iter().map(|sidecar| sidecar.mount_path.as_str()).collect();
    assert_eq!(paths.len(), plan.sidecars.len(), "two mounts on one path");
    let is_forbidden =
        |path: &&str| !path.starts_with('/') || path.split('/').any(|part| part == "..") || *path == "/srv";
    assert!(!paths.iter().any(is_forbidden), "{paths:?}");
    check_limits(&plan);
    Ok(())
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn check_limits(plan: &Plan) {
    let names = plan.env.iter().filter_map(|pair| pair.expose().split_once('=').map(|(name, _)| name));
    let names: Vec<&str> = names.collect();
    assert_eq!(
        names.iter().collect::<BTreeSet<_>>().len(),
        plan.env.len(),
        "a variable occurs twice or has no name"
    );
    let has_nul = |text: &Secret| text.expose().contains('\0');
    assert!(!plan.args.iter().chain(&plan.env).any(has_nul), "a NUL character in the arguments or variables");
    assert!(plan.limits.nano_cpus.is_none_or(|cpus| (10_000_000..=4_000_000_000).contains(&cpus)));
    assert!(plan.limits.memory.is_none_or(|memory| memory > 0));
}

/// Asserts that the reply to the control plane is a valid frame within the size limits.
fn check_reply(key: &ExecutionKey, dialect: Dialect, plan: &Result<(), String>) {
    let message = match plan {
        Ok(()) => Outgoing::Claimed { key: key.clone(), dialect },
        Err(problem) => {
            assert!(!problem.contains(char::is_control), "control characters in {problem:?}");
            let key = key.clone();
            let message = problem.clone();
            Outgoing::Failed { key, dialect, reason: FailureReason::InvalidAssignment, message }
        }
    };
    let frame = encode(&message, "worker 1");
    assert!(frame.len() <= MAX_MESSAGE_BYTES);
    let reply: Option<Value> = serde_json::from_str(&frame).ok();
    let field = |pointer| reply.as_ref().and_then(|reply| reply.pointer(pointer)).and_then(Value::as_str);
    assert_eq!(field("/type"), Some(message.kind()));
    assert_eq!(field("/data/task_id"), Some(key.task_id.as_str()));
    let named = key.execution_id.as_deref().filter(|_| dialect.names_executions(message.kind()));
    assert_eq!(field("/data/execution_id"), named);
    assert!(field("/data/message").is_none_or(|text| text.len() <= 4096));
}
