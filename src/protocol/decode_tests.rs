//! Messages of the control plane, good, odd and wrong.

use serde_json::{Value, json};

use super::*;

/// Decodes a frame of a control plane on an unknown host.
fn decode(text: &str) -> Result<Incoming, Invalid> {
    super::decode(text, None)
}

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

fn task_id(invalid: &Invalid) -> Option<&str> {
    invalid.key.as_ref().map(|key| key.task_id.as_str())
}

fn wrong_field(pointer: &str, value: Value) -> Invalid {
    decode(&with(pointer, value).to_string()).unwrap_err()
}

#[test]
fn an_assignment_with_every_field() {
    let assignment = assigned(&full());
    assert_eq!(assignment.key, ExecutionKey::new("run-1", Some("e")));
    assert_eq!(assignment.agent_task_id, "inner");
    let images = (assignment.docker_image.as_deref(), assignment.sidecar_image.as_deref());
    assert_eq!(images, (Some("img:1"), Some("side:1")));
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
        ..AgentConfig::default()
    };
    assert_eq!(assignment.agent, expected);
}

#[test]
fn optional_fields_may_be_absent_or_null() {
    let small = json!({"type": "task_assignment", "data": {"task_id": "r", "task": {}, "sidecar_image": "s",
        "docker_image": "", "env_vars": null, "additional_sidecars": null, "instance_shape": null}});
    let assignment = assigned(&small);
    assert_eq!(assignment.docker_image, None);
    assert_eq!(assignment.agent_task_id, "r");
    assert_eq!(assignment.agent, AgentConfig::default());
    let idle = with("/data/task/agent_config_snapshot", json!({"mcp_servers": {}, "model_id": "m"}));
    assert_eq!(assigned(&idle).agent, AgentConfig { model_id: Some("m".into()), ..AgentConfig::default() });
    let no_size = with("/data/instance_shape", json!({"vcpus": 0, "memory_gb": -1}));
    assert_eq!(assigned(&no_size).shape, InstanceShape::default());
}

#[test]
fn the_dialect_is_that_of_the_host_or_of_the_fields() {
    let dialect = |text: &Value, host| match super::decode(&text.to_string(), host) {
        Ok(Incoming::Assignment(assignment)) => assignment.dialect,
        other => panic!("not an assignment: {other:?}"),
    };
    assert_eq!(dialect(&full(), None), Dialect::Old, "trace and execution without an owner");
    assert_eq!(dialect(&full(), Some(Dialect::Upstream)), Dialect::Upstream);
    assert_eq!(dialect(&with("/data/trace_id", json!(" ")), None), Dialect::Upstream);
    assert_eq!(dialect(&with("/data/execution_id", json!(" ")), None), Dialect::Old);
    for (owner, expected) in
        [(json!({"Type": "USER", "Id": 1}), Dialect::Upstream), (Value::Null, Dialect::Old)]
    {
        let mut owned = full();
        owned["data"]["task"]["owner"] = owner;
        assert_eq!(dialect(&owned, None), expected);
    }
}

/// The assignment runs, in the dialect that it resembles most.
#[test]
fn an_assignment_that_fits_no_dialect_runs_in_the_nearest() {
    let mut message = full();
    message["data"]["trace_id"] = Value::Null;
    let odd = |field: &str, value: Value| {
        let mut message = message.clone();
        match field {
            "owner" => message["data"]["task"]["owner"] = value,
            field => message["data"][field] = value,
        }
        assigned(&message)
    };
    for owner in [json!("TEAM"), json!({}), json!({"Type": 7}), json!([])] {
        let assignment = odd("owner", owner);
        assert_eq!((assignment.dialect, assignment.shared_with_team), (Dialect::Upstream, false));
        assert_eq!(assignment.guess, Some("task.owner has no Type"));
    }
    for (id, read) in [(json!(7), Some("7")), (json!(true), None), (json!({"id": 7}), None)] {
        let assignment = odd("execution_id", id);
        assert_eq!(assignment.key, ExecutionKey::new("run-1", read));
        assert_eq!(assignment.dialect, Dialect::Upstream);
        assert_eq!(assignment.guess, Some("execution_id is not a string"));
    }
    for owner in [json!({"Type": "TEAM", "Id": 7}), json!({"type": "TEAM"})] {
        let assignment = odd("owner", owner);
        assert_eq!((assignment.shared_with_team, assignment.guess), (true, None));
    }
    assert_eq!(assigned(&full()).guess, Some("trace_id and execution_id without task.owner"));
}

#[test]
fn a_wrong_assignment_is_answered_in_its_dialect() {
    let dialect = |text: &str| super::decode(text, None).unwrap_err().dialect;
    let wrong = with("/data/env_vars", json!(7)).to_string();
    assert_eq!(dialect(&wrong), Dialect::Old);
    assert_eq!(dialect(&wrong.replace("trace_id", "other")), Dialect::Upstream);
    assert_eq!(super::decode(&wrong, Some(Dialect::Upstream)).unwrap_err().dialect, Dialect::Upstream);
    let broken = full().to_string() + "}";
    assert_eq!(dialect(&broken), Dialect::Old);
    assert_eq!(dialect(&broken.replace("trace_id", "other")), Dialect::Upstream);
    assert_eq!(super::decode(&broken, Some(Dialect::Upstream)).unwrap_err().dialect, Dialect::Upstream);
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
        assert_eq!((task_id(&invalid), invalid.message.as_str()), (Some("run-1"), message));
    }
    let invalid = wrong_field("/data/task", Value::Null);
    assert_eq!(invalid.key, Some(ExecutionKey::new("run-1", Some("e"))));
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
        assert_eq!(invalid.key, None);
        assert!(invalid.message.starts_with("data.task_id: "), "{}", invalid.message);
    }
    for text in
        ["", "null", "[]", "{}", r#"{"type": 3}"#, r#"{"type": "task_assignment"}"#, "MARKER", "\u{0}"]
    {
        let invalid = decode(text).unwrap_err();
        assert_eq!(invalid.key, None);
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
        assert_eq!(decode(&text), Ok(Incoming::Cancel { task_id: "r".into(), execution_id: None }));
        for (sent, execution_id) in [
            (json!(" e "), Some("e".into())),
            (json!(" "), None),
            (json!(7), Some("7".into())),
            (json!([]), None),
        ] {
            let text = json!({"type": kind, "data": {"task_id": "r", "execution_id": sent}}).to_string();
            assert_eq!(decode(&text), Ok(Incoming::Cancel { task_id: "r".into(), execution_id }));
        }
    }
    assert_eq!(decode(r#"{"type":"news","data":4}"#), Ok(Incoming::Unknown { kind: "news".into() }));
}

/// A message with this text in the place of the value of a field, which is `"PLACE"` in `message`.
fn raw(message: &Value, text: &str) -> String {
    message.to_string().replace("\"PLACE\"", text)
}

fn decoded(text: &str) -> Assignment {
    match decode(text) {
        Ok(Incoming::Assignment(assignment)) => Assignment::clone(&assignment),
        other => panic!("not an assignment: {other:?}"),
    }
}

#[test]
fn lone_surrogates_become_replacement_characters() {
    let cases = [
        (r#""a\ud83d""#, "a\u{fffd}"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
        (r#""\ud83d\u0041é\uD800""#, "\u{fffd}Aé\u{fffd}"),
        (r#""\ud83d\n\"""#, "\u{fffd}\n\""),
    ];
    for (text, expected) in cases {
        let oz_args = "/data/additional_oz_args/0";
        assert_eq!(decoded(&raw(&with(oz_args, json!("PLACE")), text)).additional_oz_args[0], expected);
        let token = decoded(&raw(&with("/data/env_vars/TOKEN", json!("PLACE")), text)).env_vars;
        assert_eq!(token.get("TOKEN").map(Secret::expose), Some(expected));
        let name = decoded(&raw(&with("/data/env_vars", json!({"PLACE": "v"})), text)).env_vars;
        assert_eq!(name.keys().collect::<Vec<_>>(), [expected]);
        assert_eq!(decoded(&raw(&with("/data/task_id", json!("PLACE")), text)).key.task_id, expected);
        let unused = with("/data/task/title", json!("PLACE"));
        assert_eq!(decoded(&raw(&unused, text)), assigned(&full()));
        assert_eq!(decoded(&raw(&with("/data/unknown", json!({"PLACE": 1})), text)), assigned(&full()));
    }
}

#[test]
fn unknown_values_are_skipped_whatever_they_are() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
    for value in ["1e999", "-1e-999", &"9".repeat(5000), &deep(130), &deep(100_000), &objects] {
        for pointer in ["/data/unknown", "/data/task/task_definition", "/data/task/created_at"] {
            assert_eq!(decoded(&raw(&with(pointer, json!("PLACE")), value)), assigned(&full()), "{pointer}");
        }
        let mut message = full();
        message["other"] = json!("PLACE");
        assert_eq!(decoded(&raw(&message, value)), assigned(&full()));
    }
    let shape = with("/data/instance_shape/vcpus", json!("PLACE"));
    let invalid = decode(&raw(&shape, "1e999")).unwrap_err();
    assert_eq!(invalid.message, "data.instance_shape.vcpus: is out of range");
}

#[test]
fn a_byte_order_mark_is_skipped() {
    assert_eq!(decoded(&format!("\u{feff}{}", full())), assigned(&full()));
}

#[test]
fn mcp_servers_are_compacted_and_not_rebuilt() {
    let pointer = "/data/task/agent_config_snapshot/mcp_servers";
    let servers = |text: &str| {
        decode(&raw(&with(pointer, json!("PLACE")), text)).map(|message| match message {
            Incoming::Assignment(assignment) => assignment.agent.mcp_servers.clone(),
            other => panic!("{other:?}"),
        })
    };
    let cases = [
        (r#"{ "z" : 1.00 , "a":[ 1e999, -0 ,"b  c" ],"z": {"\u00e9\"":"\\" } }"#, {
            r#"{"z":1.00,"a":[1e999,-0,"b  c"],"z":{"\u00e9\"":"\\"}}"#
        }),
        ("{\n\t\"a\"\r: \"\\ud83d \\ud83d\\ude00\\udc00\"}", r#"{"a":"\ufffd \ud83d\ude00\ufffd"}"#),
    ];
    for (text, expected) in cases {
        assert_eq!(servers(text).unwrap().unwrap().expose(), expected);
    }
    assert_eq!(servers(" { } "), Ok(None));
    let deep = |depth: usize| format!("{}1{}", r#"{"[":"#.repeat(depth), "}".repeat(depth));
    assert_eq!(servers(&deep(1000)).unwrap().unwrap().expose(), deep(1000));
    let invalid = servers(&deep(1001)).unwrap_err();
    assert_eq!(task_id(&invalid), Some("run-1"));
    assert!(invalid.message.ends_with("mcp_servers: must not nest deeper than 1000 levels"), "{invalid:?}");
    assert!(servers("[1]").unwrap_err().message.ends_with("mcp_servers: must be an object, not an array"));
}

#[test]
fn the_last_of_several_fields_with_one_name_counts() {
    let text = r#"{"type":"news","data":7,"data":{"task_id":9,"task_id":"r","task":{},"sidecar_image":"s",
        "env_vars":{"A":5,"A":"x"},"docker_image":"i","docker_image":null},"type":"task_assignment"}"#;
    let assignment = decoded(text);
    assert_eq!((assignment.key.task_id.as_str(), assignment.docker_image), ("r", None));
    assert_eq!(assignment.env_vars.get("A").map(Secret::expose), Some("x"));
}

#[test]
fn ids_and_numbers_of_members_are_bounded() {
    for pointer in ["/data/task_id", "/data/execution_id"] {
        assigned(&with(pointer, json!("i".repeat(4096))));
        let invalid = wrong_field(pointer, json!("i".repeat(4097)));
        let name = pointer.replace('/', ".");
        assert_eq!(
            format!(".{}", invalid.message),
            format!("{name}: must have at most 4096 bytes, not 4097")
        );
        assert!(invalid.key.is_some());
    }
    for pointer in ["/data/task_id", "/data/execution_id"] {
        for (length, is_answered) in [(10_000, true), (65_536, true), (65_537, false)] {
            let invalid = wrong_field(pointer, json!("i".repeat(length)));
            assert!(invalid.message.ends_with(&format!(": must have at most 4096 bytes, not {length}")));
            assert_eq!(invalid.key.unwrap().can_be_answered(), is_answered, "{pointer} {length}");
        }
    }
    let broken = full().to_string().replace("run-1", &"i".repeat(10_000)) + "}";
    assert!(decode(&broken).unwrap_err().key.unwrap().can_be_answered());
    let cancel = json!({"type": "task_cancel", "data": {"task_id": "i".repeat(4097)}});
    let invalid = decode(&cancel.to_string()).unwrap_err();
    assert_eq!(invalid.message, "data.task_id: must have at most 4096 bytes, not 4097");
    let large = |mib: usize| with("/data/env_vars", json!({"A": "x".repeat(mib << 20)}));
    assert_eq!(assigned(&large(7)).env_vars.len(), 1);
    let invalid = decode(&large(8).to_string()).unwrap_err();
    assert_eq!(task_id(&invalid), Some("run-1"));
    assert!(invalid.message.starts_with("data: must have at most 8388608 bytes of "), "{}", invalid.message);
    let vars = |count: usize| json!(BTreeMap::from_iter((0..count).map(|n| (n.to_string(), ""))));
    assert_eq!(assigned(&with("/data/env_vars", vars(16_384))).env_vars.len(), 16_384);
    let invalid = wrong_field("/data/env_vars", vars(16_385));
    assert_eq!(invalid.message, "data.env_vars: must have at most 16384 members");
    let invalid = wrong_field("/data/additional_oz_args", json!(vec!["a"; 16_385]));
    assert_eq!(invalid.message, "data.additional_oz_args: must have at most 16384 members");
}

#[test]
fn the_run_of_an_assignment_that_is_not_json_is_found() {
    let id = |text: &str| decode(text).unwrap_err().key.map(|key| key.to_string());
    let found = [
        r#"{"type":"task_assignment","data":{"task_id":"r","task":{]}"#,
        r#"{"data":{"a":{"task_id":"no"},"b":["task_id","no"],"task_id":"r"},"type":"task_assignment" oops"#,
        r#"{"type":"task_assignment","data":{"x":"\"task_id\":\"no\"","task_id" : "r","y":"\x"}}"#,
        "{\"type\":\"task_assignment\",\"data\":{\"task_id\":\"r\",\"prompt\":\"a\nb\"}}",
        r#"{"type":"task_cancel","type":"task_assignment","data":{"task_id":"no","task_id":"r"},}"#,
        r#"{"\u0074ype":"task_assignment","data":{"task_id":"r"#,
    ];
    for text in &found[..5] {
        assert_eq!(id(text).as_deref(), Some("task=r"), "{text}");
    }
    let not_found = [
        found[5],
        r#"{"type":"task_cancel","data":{"task_id":"r"},}"#,
        r#"{"type":"task_assignment","data":[{"task_id":"r"}],}"#,
        r#"{"type":"task_assignment","data":{"task":{"task_id":"r"}},}"#,
        r#"{"type":"task_assignment","task_id":"r",}"#,
        r#"{"type":"task_assignment","data":{"task_id":"r"},"data":{},}"#,
        r#"{"type":"task_assignment","data":{"task_id":"r","task_id":false},}"#,
        r#"{"type":"task_assignment","data":{"task_id":"r"},"type":7,}"#,
        r#"{"type":"task_assignment","data":{"task_id":7},}"#,
        r#"{"type":"task_assignment","data":{"task_id":" "},}"#,
        r#"{"x":{"type":"task_assignment"},"data":{"task_id":"r"},}"#,
        r#"{"x":"\"type\":\"task_assignment\"","data":{"task_id":"r"},}"#,
    ];
    for text in not_found {
        assert_eq!(id(text), None, "{text}");
    }
    let pair = r#"{"type":"task_assignment","data":{"execution_id":"no","x":{"execution_id":"no"},"task_id":"r",
        "execution_id":" e "},}"#;
    assert_eq!(id(pair).as_deref(), Some("task=r execution=e"));
    for none in
        [r#""execution_id":"e","execution_id":7"#, r#""execution_id":" ""#, r#""x":{"execution_id":"e"}"#]
    {
        let text = format!(r#"{{"type":"task_assignment","data":{{"task_id":"r",{none}}},}}"#);
        assert_eq!(id(&text).as_deref(), Some("task=r"), "{none}");
    }
    let far =
        format!(r#"{{"type":"task_assignment","x":"{}","data":{{"task_id":"r"}},}}"#, "x".repeat(70_000));
    assert_eq!(id(&far), None, "beyond the first 64 KiB");
}

/// It is only for logs.
#[test]
fn a_wrong_trace_id_does_not_fail_a_task() {
    let trace_id = |value| assigned(&with("/data/trace_id", value)).trace_id;
    assert_eq!(trace_id(json!(1)).as_deref(), Some("1"));
    for odd in [json!(true), json!({}), json!(["x"]), Value::Null] {
        assert_eq!(trace_id(odd), None);
    }
}
