//! Invalid messages from the control plane are reported if they name a task, else logged, and do not affect other tasks.

use serde_json::{Value, json};

use crate::support::control_plane::State;
use crate::support::images::RootFs;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::Worker;

const MIB: usize = 1 << 20;

/// A task that runs until [`Bystander::finish`], to check that the messages do not affect it.
struct Bystander<'a> {
    stage: &'a Stage,
    id: String,
    connections: usize,
}

impl<'a> Bystander<'a> {
    fn start(stage: &'a Stage) -> Self {
        let id = stage.plane.submit(stage.spec("while [ ! -e go ]; do sleep 0.1; done; echo untouched"));
        stage.wait_running(&id);
        Self { stage, id, connections: stage.plane.connections() }
    }

    fn finish(self) {
        let container = self.stage.wait_running(&self.id);
        let path = format!("/containers/{}/archive?path=/workspace", container["Id"].as_str().unwrap());
        let go = RootFs::default().file("go", 0o644, "").finish();
        assert_eq!(self.stage.engine.request("PUT", &path, &[], &go).status, 200);
        let run = self.stage.plane.wait_ended(&self.id);
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("untouched\n")));
        assert_eq!((run.claims, run.terminal_reports), (1, 1));
        assert_eq!(self.stage.plane.connections(), self.connections, "no reconnect");
    }
}

/// Checks that every line begins as the logger writes it and has no control character.
fn assert_no_forged_line(worker: &Worker) {
    for line in worker.stderr().all() {
        let mut words = line.split_whitespace();
        let time = words.next().unwrap_or_default();
        let level = words.next().unwrap_or_default();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 24, "{line:?}");
        assert!(["DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line:?}");
        assert!(words.next().is_some_and(|word| word.starts_with("[oz_agent_worker")), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

fn warnings(worker: &Worker, what: &str) -> Vec<String> {
    let lines = worker.stderr().all();
    lines.into_iter().filter(|line| line.contains("WARN") && line.contains(what)).collect()
}

#[test]
fn a_message_without_a_task_id_is_logged_as_a_warning() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let bystander = Bystander::start(&stage);
    let deep = "[".repeat(100_000);
    let invalid = [
        ("", "message: is not JSON"),
        ("{", "message: is not JSON"),
        (&deep, "message: is not JSON"),
        ("null", "message: must be an object, not null"),
        ("[]", "message: must be an object, not an array"),
        (r#""x""#, "message: must be an object, not a string"),
        ("{}", "type: is missing"),
        (r#"{"type":7,"data":{}}"#, "message.type: must be a string, not a number"),
        (r#"{"type":"task_assignment"}"#, "data: is missing"),
        (r#"{"type":"task_assignment","data":"x"}"#, "data: must be an object, not a string"),
        (r#"{"type":"task_assignment","data":{"task":{}}}"#, "data.task_id: must be a string"),
        (r#"{"type":"task_assignment","data":{"task_id":" \n","task":{}}}"#, "not blank"),
        (
            r#"{"type":"task_assignment","data":{"task_id":7}}"#,
            "data.task_id: must be a string, not a number",
        ),
        (r#"{"type":"task_cancel","data":{}}"#, "data.task_id: must be a string"),
        (r#"{"type":"task_cancel","data":{"task_id":[]}}"#, "not an array"),
    ];
    for (text, _) in &invalid {
        stage.plane.send_text(*text);
    }
    stage.plane.send_binary(*b"\0\xff{}");
    stage.plane.send_text(r#"{"type":"task_later\n2026 ERROR","data":{"task_id":"x"}}"#);
    stage.plane.send_text(r#"{"type":"task_cancel","data":{"task_id":"nobody"}}"#);
    // Frames are handled in order, so this run's report proves that all frames before it were handled.
    assert_eq!(stage.run(&stage.spec("echo ok")).output.as_deref(), Some("ok\n"));
    let warned = warnings(&worker, "message invalid");
    assert_eq!(warned.len(), invalid.len() + 1, "{warned:#?}");
    for (line, (text, expected)) in warned.iter().zip(&invalid) {
        assert!(line.contains(expected), "{text:.80}: {line}");
    }
    assert!(warned[invalid.len()].contains("a binary frame") && warned[invalid.len()].contains("bytes=4"));
    assert_eq!(warnings(&worker, "message ignored").len(), 1);
    assert!(worker.stderr().all().iter().any(|line| line.contains("cancel ignored task=nobody")));
    let about = |received: &crate::support::control_plane::Received| received.data["task_id"].clone();
    let ids: Vec<Value> = stage.plane.messages().iter().map(about).collect();
    assert!(
        ids.iter().all(|id| id.as_str().is_some_and(|id| id.len() == 36)),
        "the worker answered an invalid message: {ids:?}"
    );
    bystander.finish();
    assert_no_forged_line(&worker);
    stage.stop(worker);
}

/// Returns the assignment with one field changed, or removed if `value` is null.
fn with(base: &Value, pointer: &str, value: Value) -> Value {
    let mut data = base.clone();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = data.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Value::Null => drop(parent.remove(name)),
        value => drop(parent.insert(name.to_owned(), value)),
    }
    data
}

fn sidecars(paths: &[&str]) -> Value {
    paths.iter().map(|path| json!({"image": "busybox", "mount_path": path})).collect()
}

/// Returns a field, its invalid value, and a part of the expected message.
fn wrong_assignments() -> Vec<(&'static str, Value, &'static str)> {
    let many: Vec<String> = (0..33).map(|number| format!("/m{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    vec![
        ("/task", Value::Null, "data.task: is missing"),
        ("/task", json!("x"), "data.task: must be an object, not a string"),
        ("/task/id", json!(7), "data.task.id: must be a string"),
        ("/task/id", json!("a\0b"), "data.task.id: must not contain a NUL"),
        ("/task/agent_config_snapshot", json!([]), "agent_config_snapshot: must be an object"),
        ("/task/agent_config_snapshot", json!({"computer_use_enabled": "yes"}), "must be true or false"),
        ("/task/agent_config_snapshot", json!({"mcp_servers": "MARKER"}), "mcp_servers: must be an object"),
        ("/docker_image", json!("two words"), "docker_image: image name \"two words\": it has a space"),
        ("/docker_image", json!("repo/UPPER"), "docker_image: image name"),
        ("/docker_image", json!("a\nb"), "it has a space or a control character"),
        ("/docker_image", json!(["x"]), "data.docker_image: must be a string, not an array"),
        ("/sidecar_image", Value::Null, "data.sidecar_image: must name an image"),
        ("/sidecar_image", json!("  "), "data.sidecar_image: must name an image"),
        ("/sidecar_image", json!("a b"), "sidecar_image: image name"),
        ("/env_vars", json!(["MARKER"]), "data.env_vars: must be an object"),
        ("/env_vars", json!({"A": {"MARKER": 1}}), "data.env_vars.A: must be a string, not an object"),
        ("/env_vars", json!({"": "MARKER"}), "env_vars: \"\" is not a valid variable name"),
        ("/env_vars", json!({"A=B": "MARKER"}), "env_vars: \"A=B\" is not a valid variable name"),
        ("/env_vars", json!({"A\0B": "MARKER"}), "is not a valid variable name"),
        ("/env_vars", json!({"A": "MARKER\0"}), "env_vars.A: must not contain a NUL"),
        ("/additional_sidecars", json!({}), "data.additional_sidecars: must be an array"),
        (
            "/additional_sidecars",
            json!([{"mount_path": "/x"}]),
            "additional_sidecars[0].image: must name an image",
        ),
        ("/additional_sidecars", json!([{"image": "x"}]), "additional_sidecars[0].mount_path: is missing"),
        (
            "/additional_sidecars",
            json!([{"image": "x y", "mount_path": "/x"}]),
            "additional_sidecars[0].image: image name",
        ),
        (
            "/additional_sidecars",
            json!([{"image": "x", "mount_path": "/x", "read_write": "yes"}]),
            "read_write: must be true or false",
        ),
        ("/additional_sidecars", sidecars(&["rel/ative"]), "must be an absolute path"),
        ("/additional_sidecars", sidecars(&["/a", "/"]), "additional_sidecars[1].mount_path: \"/\" must be"),
        ("/additional_sidecars", sidecars(&["/a/../etc"]), "without `.`, `..`"),
        ("/additional_sidecars", sidecars(&["/a\nb"]), "must be an absolute path"),
        (
            "/additional_sidecars",
            sidecars(&["/x", "/y", "/x/"]),
            "additional_sidecars[2].mount_path: \"/x\" is already",
        ),
        ("/additional_sidecars", sidecars(&["/agent/"]), "is already used by another mount"),
        ("/additional_sidecars", sidecars(&["/operator"]), "is already used by another mount"),
        ("/additional_sidecars", sidecars(&many), "33 are too many"),
        ("/additional_oz_args", json!("--x"), "data.additional_oz_args: must be an array"),
        ("/additional_oz_args", json!(["ok", 7]), "data.additional_oz_args[1]: must be a string"),
        ("/additional_oz_args", json!(["a\0b"]), "must not contain a NUL"),
        ("/instance_shape", json!("big"), "data.instance_shape: must be an object"),
        ("/instance_shape", json!({"vcpus": "2"}), "data.instance_shape.vcpus: must be a number"),
    ]
}

#[test]
fn an_invalid_assignment_fails_with_a_message_that_names_the_field() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["-v", "/tmp:/operator:ro"]));
    let bystander = Bystander::start(&stage);
    let base = stage.spec("echo fine").assignment("x");
    let submit = |number: usize, pointer: &str, value: Value| {
        let data = with(&with(&base, pointer, value), "/task_id", json!(format!("wrong-{number}")));
        stage.plane.submit_raw(data).unwrap()
    };
    let cases = wrong_assignments();
    let ids: Vec<String> = (0..)
        .zip(&cases)
        .map(|(number, (pointer, value, _))| submit(number, pointer, value.clone()))
        .collect();
    for (id, (pointer, value, expected)) in ids.iter().zip(&cases) {
        let run = stage.plane.wait_ended(id);
        let message = run.message.unwrap_or_default();
        assert_eq!(run.failure_reason.as_deref(), Some("invalid_assignment"), "{pointer} {value}: {message}");
        assert!(message.contains(expected), "{pointer} {value}: {message}");
        assert_eq!(run.terminal_reports, 1, "{pointer}");
    }
    // An invalid assignment with the id of a running task must not end that task.
    let again = with(&with(&base, "/task", Value::Null), "/task_id", json!(bystander.id));
    stage.plane.send_text(json!({"type": "task_assignment", "data": again}).to_string());
    let fine = with(&base, "/task/created_at", json!("yesterday\n"));
    let fine = with(&with(&fine, "/task/updated_at", json!(7)), "/surplus", json!({"a": [1]}));
    let fine = with(&fine, "/env_vars/odd name-ü.1", json!("value"));
    let id = stage.plane.submit_raw(with(&fine, "/task_id", json!("fine"))).unwrap();
    assert_eq!(stage.plane.wait_ended(&id).output.as_deref(), Some("fine\n"));
    assert_eq!(warnings(&worker, &format!("assignment invalid task={}", bystander.id)).len(), 1);
    bystander.finish();
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("MARKER")), "{log:#?}");
    assert_no_forged_line(&worker);
    stage.stop(worker);
}

#[test]
fn any_task_id_works_end_to_end_and_forges_no_log_line() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--log-level", "debug"]));
    let long = "x".repeat(1000);
    let ids = [
        "line\nbreak\r\n2026-01-01T00:00:00.000Z ERROR [oz_agent_worker] forged task=1",
        "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{2028}\u{202e}",
        "quo\"te' `touch x` $(touch y) \\ %s ;|&<>",
        "../../etc/passwd",
        "..%2f?a=b&c#d",
        "!?*~^{}[]",
        "日本語 ✓",
        " padded ",
        "-rf",
        &long,
    ];
    let spec =
        stage.spec(r#"while [ "$1" != --task-id ]; do shift; done; [ "$2" = "$TASK_ID" ] && printf %s "$2""#);
    for id in ids {
        stage
            .plane
            .submit(crate::support::control_plane::RunSpec { id: Some(id.to_owned()), ..spec.clone() });
    }
    let mut names = std::collections::BTreeSet::new();
    for id in ids {
        let run = stage.plane.wait_ended(id);
        assert_eq!(
            (run.state, run.output.as_deref()),
            (State::Succeeded, Some(id.trim())),
            "{:?}",
            run.message
        );
        assert_eq!((run.claims, run.terminal_reports), (1, 1));
    }
    for line in worker.stderr().all().iter().filter(|line| line.contains("container created")) {
        let name = line.split_once("container=").unwrap().1.split(' ').next().unwrap().to_owned();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        assert!(name.starts_with("oz-task-") && name.chars().all(plain) && name.len() <= 64, "{name}");
        names.insert(name);
    }
    assert_eq!(names.len(), ids.len(), "{names:#?}");
    assert_no_forged_line(&worker);
    stage.stop(worker);
}

#[test]
fn a_message_over_the_limit_is_skipped_and_fails_its_run() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    stage.plane.send_text("x".repeat(16 * MIB + 1));
    // A control plane sends the id first, the stand-in in alphabetical order.
    let start = r#"{"type":"task_assignment","data":{"task_id":"long","task":{"title":""#;
    stage.plane.send_text(format!("{start}{}\"}}}}}}", "x".repeat(16 * MIB)));
    let failed = stage.plane.holds_within(DEADLINE, |model| !model.messages.is_empty());
    assert!(failed, "no answer");
    let message = stage.plane.messages().pop().unwrap();
    assert_eq!((message.kind.as_str(), &message.data["task_id"]), ("task_failed", &json!("long")));
    assert_eq!(message.data["failure_reason"], json!("invalid_assignment"));
    assert_eq!(
        message.data["message"],
        json!(format!("message: must have at most 16777216 bytes, not {}", 16 * MIB + start.len() + 4))
    );
    let warned = warnings(
        &worker,
        "message invalid error=\"message: must have at most 16777216 bytes, not 16777217\"",
    );
    assert_eq!(warned.len(), 1, "{warned:#?}");
    assert_eq!(stage.plane.connections(), 1);
    worker.signal(Signal::TERM);
    let mut worker = worker;
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
}

#[test]
fn a_message_just_below_the_limit_is_accepted() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let mut spec = stage.spec("echo large");
    // The assignment contains the text twice, as the title and as the prompt.
    spec.prompt = "x".repeat(15 * MIB / 2);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("large\n"));
    assert_eq!(stage.plane.connections(), 1);
    worker.signal(Signal::TERM);
    let mut worker = worker;
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
}
