//! Messages of the control plane: what is made of one, from the frame's text to the container's plan.
//!
//! Owns what holds for every message. It must not know how frames travel.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Input, MARKER, assert_hidden, assert_one_line, marked};
use crate::policy::VolumeBind;
use crate::protocol::{
    Assignment, FailureReason, Incoming, Invalid, MAX_MESSAGE_BYTES, Outgoing, decode, encode,
};
use crate::secret::Secret;
use crate::task::plan::{Plan, TaskSettings, plan};

/// As much as an error may say of a message: its longest part is the name of a variable.
const LONGEST_ERROR: usize = 2048;

/// A text frame: `decode`, then `plan` and the answer.
pub fn control_plane(bytes: &[u8]) {
    let text = Input::new(bytes).text();
    match decode(&text) {
        Ok(Incoming::Assignment(assignment)) => {
            assert!(!assignment.task_id.trim().is_empty() && !assignment.sidecar_image.is_empty());
            answer(&assignment.task_id, &planned(&assignment));
        }
        Ok(Incoming::Cancel { task_id }) => assert!(!task_id.trim().is_empty()),
        Ok(Incoming::Unknown { .. }) => {}
        Err(invalid) => refused(&invalid),
    }
    if let Ok(message) = serde_json::from_str(&text) {
        without_secrets(&message);
    }
}

fn refused(invalid: &Invalid) {
    assert_one_line(&invalid.message, LONGEST_ERROR);
    if let Some(task_id) = &invalid.task_id {
        answer(task_id, &Err(invalid.message.clone()));
    }
}

/// Whatever stands where a secret may be, neither an error nor a `Debug` shows it.
fn without_secrets(message: &Value) {
    let is_value = |path: &str| !matches!(path, "/type" | "/data/task_id");
    if let Err(invalid) = decode(&marked(message, "", &is_value).to_string()) {
        assert_hidden(&[invalid.message]);
    }
    let is_secret = |path: &str| path.starts_with("/data/env_vars/") || path.contains("/mcp_servers/");
    let decoded = decode(&marked(message, "", &is_secret).to_string());
    if message.to_string().contains(MARKER) {
        return;
    }
    assert_hidden(&[format!("{decoded:?}")]);
    if let Ok(Incoming::Assignment(assignment)) = decoded {
        assert_hidden(&[format!("{:?}", plan(&assignment, &operator(), 4))]);
    }
}

fn operator() -> TaskSettings {
    let volume = VolumeBind { host: "/srv".into(), container: "/srv".into(), mode: String::new() };
    TaskSettings {
        worker_id: "worker 1".into(),
        process_id: "0123456789abcdef".into(),
        server_root_url: "http://h".into(),
        volumes: vec![volume],
        env: vec![("OPERATOR".into(), Secret::new("x"))],
    }
}

fn planned(assignment: &Assignment) -> Result<(), String> {
    let made = plan(assignment, &operator(), 4)?;
    assert!(made.name.len() < 100 && made.name.chars().all(is_plain), "{}", made.name);
    let places: BTreeSet<&str> = made.sidecars.iter().map(|sidecar| sidecar.mount_path.as_str()).collect();
    assert_eq!(places.len(), made.sidecars.len(), "two mounts on one path");
    let outside =
        |path: &&str| !path.starts_with('/') || path.split('/').any(|part| part == "..") || *path == "/srv";
    assert!(!places.iter().any(outside), "{places:?}");
    bounded(&made);
    Ok(())
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn bounded(plan: &Plan) {
    let names = plan.env.iter().filter_map(|pair| pair.expose().split_once('=').map(|(name, _)| name));
    let names: Vec<&str> = names.collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), plan.env.len(), "a name twice, or no name");
    let has_nul = |text: &Secret| text.expose().contains('\0');
    assert!(!plan.args.iter().chain(&plan.env).any(has_nul), "a NUL for the engine");
    assert!(plan.limits.nano_cpus.is_none_or(|cpus| (10_000_000..=4_000_000_000).contains(&cpus)));
    assert!(plan.limits.memory.is_none_or(|memory| memory > 0));
}

/// What goes back is one frame of the contract, whatever was wrong.
fn answer(task_id: &str, planned: &Result<(), String>) {
    let message = match planned {
        Ok(()) => Outgoing::Claimed { task_id: task_id.to_owned() },
        Err(problem) => {
            assert!(!problem.contains(char::is_control), "not one line: {problem:?}");
            let (task_id, message) = (task_id.to_owned(), problem.clone());
            Outgoing::Failed { task_id, reason: FailureReason::InvalidAssignment, message }
        }
    };
    let frame = encode(&message, "worker 1");
    assert!(frame.len() <= MAX_MESSAGE_BYTES);
    let read: Option<Value> = serde_json::from_str(&frame).ok();
    let field = |pointer| read.as_ref().and_then(|read| read.pointer(pointer)).and_then(Value::as_str);
    assert_eq!((field("/type"), field("/data/task_id")), (Some(message.kind()), Some(task_id)));
    assert!(field("/data/message").is_none_or(|text| text.len() <= 4096));
}
