//! Messages of the control plane, good, odd and wrong.

use serde_json::json;

use super::*;

fn full() -> Value {
    json!({"type": "task_assignment", "data": {
        "task_id": "run-1", "trace_id": "t", "execution_id": "e", "docker_image": "img:1", "sidecar_image": "side:1",
        "env_vars": {"TOKEN": "s3cret"}, "additional_oz_args": ["--x", " y "], "unknown": 1,
        "additional_sidecars": [{"image": "a", "mount_path": "/a"}, {"image": "b", "mount_path": "/b", "read_write": true}],
        "instance_shape": {"vcpus": 1.5, "memory_gb": 2},
        "task": {"id": "inner", "title": "T", "task_definition": {"prompt": "p"}, "created_at": "not a date",
            "agent_config_snapshot": {"environment_id": " env ", "model_id": "pending", "profile_id": "  ", "skill_spec": "s",
                "mcp_servers": {"m": {"b": [1, 2]}}, "computer_use_enabled": false, "idle_timeout_minutes": 3}},
    }})
}

fn assigned(value: &Value) -> Assignment {
    match decode(&value.to_string()) {
        Ok(Incoming::Assignment(assignment)) => Assignment::clone(&assignment),
        other => panic!("not an assignment: {other:?}"),
    }
}

fn with(pointer: &str, value: Value) -> Value {
    let mut message = full();
    *message.pointer_mut(pointer).unwrap() = value;
    message
}

fn wrong_field(pointer: &str, value: Value) -> Invalid {
    decode(&with(pointer, value).to_string()).unwrap_err()
}

#[test]
fn an_assignment_with_every_field() {
    let assignment = assigned(&full());
    assert_eq!((assignment.task_id.as_str(), assignment.agent_task_id.as_str()), ("run-1", "inner"));
    assert_eq!((assignment.docker_image.as_str(), assignment.sidecar_image.as_str()), ("img:1", "side:1"));
    assert_eq!(assignment.env_vars.get("TOKEN").map(Secret::expose), Some("s3cret"));
    assert_eq!(assignment.additional_oz_args, ["--x", " y "]);
    assert_eq!(assignment.shape, InstanceShape { vcpus: Some(1.5), memory_gb: Some(2.0) });
    let writable: Vec<_> = assignment.additional_sidecars.iter().map(|sidecar| sidecar.read_write).collect();
    assert_eq!(writable, [false, true]);
    let expected = AgentConfig {
        environment_id: Some("env".into()),
        model_id: None,
        profile_id: None,
        skill_spec: Some("s".into()),
        mcp_servers: Some(Secret::new(r#"{"m":{"b":[1,2]}}"#)),
        computer_use: Some(false),
    };
    assert_eq!(assignment.agent, expected);
}

#[test]
fn optional_fields_may_be_absent_or_null() {
    let small = json!({"type": "task_assignment", "data": {"task_id": "r", "task": {}, "sidecar_image": "s",
        "docker_image": "", "env_vars": null, "additional_sidecars": null, "instance_shape": null}});
    let assignment = assigned(&small);
    assert_eq!(assignment.docker_image, DEFAULT_TASK_IMAGE);
    assert_eq!(assignment.agent_task_id, "r");
    assert_eq!(assignment.agent, AgentConfig::default());
    let idle = with("/data/task/agent_config_snapshot", json!({"mcp_servers": {}, "model_id": "m"}));
    assert_eq!(assigned(&idle).agent, AgentConfig { model_id: Some("m".into()), ..AgentConfig::default() });
    let no_size = with("/data/instance_shape", json!({"vcpus": 0, "memory_gb": -1}));
    assert_eq!(assigned(&no_size).shape, InstanceShape::default());
}

#[test]
fn an_error_names_the_field_and_the_task_and_not_the_value() {
    let cases = [
        ("/data/task", json!("MARKER"), "data.task: must be an object, not a string"),
        ("/data/task", Value::Null, "data.task: is missing"),
        ("/data/env_vars", json!("MARKER"), "data.env_vars: must be an object, not a string"),
        ("/data/env_vars/TOKEN", json!(5), "data.env_vars.TOKEN: must be a string, not a number"),
        ("/data/sidecar_image", json!(" "), "data.sidecar_image: must name an image"),
        ("/data/docker_image", json!(["MARKER"]), "data.docker_image: must be a string, not an array"),
        ("/data/additional_sidecars", json!({}), "data.additional_sidecars: must be an array, not an object"),
        (
            "/data/additional_sidecars/1/image",
            json!(""),
            "data.additional_sidecars[1].image: must name an image",
        ),
        (
            "/data/additional_sidecars/0/mount_path",
            Value::Null,
            "data.additional_sidecars[0].mount_path: is missing",
        ),
        (
            "/data/additional_oz_args/0",
            json!(true),
            "data.additional_oz_args[0]: must be a string, not a boolean",
        ),
        (
            "/data/instance_shape/vcpus",
            json!("MARKER"),
            "data.instance_shape.vcpus: must be a number, not a string",
        ),
    ];
    for (pointer, value, message) in cases {
        let invalid = wrong_field(pointer, value);
        assert_eq!((invalid.task_id.as_deref(), invalid.message.as_str()), (Some("run-1"), message));
    }
    let agent = "/data/task/agent_config_snapshot/computer_use_enabled";
    let invalid = wrong_field(agent, json!("MARKER"));
    assert_eq!(
        invalid.message,
        "data.task.agent_config_snapshot.computer_use_enabled: must be true or false, not a string"
    );
}

#[test]
fn a_field_s_name_in_an_error_is_one_short_line() {
    let invalid = wrong_field("/data/env_vars", json!({"A\nB\u{0}\u{2028}\"": 1}));
    assert_eq!(invalid.message, r#"data.env_vars.A\nB\0\u{2028}\": must be a string, not a number"#);
    let long = "ü".repeat(5000);
    let invalid = wrong_field("/data/env_vars", json!({ long: 1 }));
    assert!(invalid.message.len() < 300, "{}", invalid.message);
    assert!(invalid.message.ends_with("ü…: must be a string, not a number"), "{}", invalid.message);
}

#[test]
fn a_message_without_a_task_id_has_an_error_without_one() {
    for id in [json!(""), json!(" \t"), json!(7), Value::Null] {
        let invalid = wrong_field("/data/task_id", id);
        assert_eq!(invalid.task_id, None);
        assert!(invalid.message.starts_with("data.task_id: "), "{}", invalid.message);
    }
    for text in
        ["", "null", "[]", "{}", r#"{"type": 3}"#, r#"{"type": "task_assignment"}"#, "MARKER", "\u{0}"]
    {
        let invalid = decode(text).unwrap_err();
        assert_eq!(invalid.task_id, None);
        assert!(!invalid.message.contains("MARKER"));
    }
}

#[test]
fn every_prefix_of_a_message_is_an_error() {
    let text = full().to_string();
    for end in 0..text.len() {
        let invalid = decode(text.get(..end).unwrap()).unwrap_err();
        assert!(!invalid.message.contains("s3cret"));
    }
}

#[test]
fn both_types_of_a_cancel_and_an_unknown_type() {
    for kind in ["task_cancel", "task_cancellation"] {
        let text = json!({"type": kind, "data": {"task_id": "r", "why": 1}}).to_string();
        assert_eq!(decode(&text), Ok(Incoming::Cancel { task_id: "r".into() }));
    }
    assert_eq!(decode(r#"{"type":"news","data":4}"#), Ok(Incoming::Unknown { kind: "news".into() }));
}
