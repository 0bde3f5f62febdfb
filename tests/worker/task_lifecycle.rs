//! One task from the assignment to the report: the container's configuration, and the result.

use serde_json::{Value, json};

use crate::support::control_plane::State;
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::stage::Stage;

#[test]
fn a_task_is_claimed_run_reported_and_removed() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let script = "exec 2>&1; echo out; echo err >&2; echo https://github.com/o/r/pull/7; \
                  echo 'Session: https://oz.example/s/1.'; exit 0";
    let run = stage.run(&stage.spec(script));
    assert_eq!(
        (run.state, run.exit_code, run.claims, run.terminal_reports),
        (State::Succeeded, Some(0), 1, 1)
    );
    assert_eq!(
        run.output.as_deref(),
        Some("out\nerr\nhttps://github.com/o/r/pull/7\nSession: https://oz.example/s/1.\n")
    );
    assert_eq!(run.pull_requests(), ["https://github.com/o/r/pull/7"]);
    assert_eq!(run.session_link.as_deref(), Some("https://oz.example/s/1"));
    assert_eq!(run.states, [State::Pending, State::Claimed, State::InProgress, State::Succeeded]);
    stage.wait_no_containers();
    stage.stop(worker);
}

#[test]
fn the_agent_gets_its_arguments_and_environment() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["-e", "OPERATOR=mine", "-e", "BOTH=operator"]));
    let mut spec =
        stage.spec("pwd; echo $IMAGE $TASK_ID $GIT_TERMINAL_PROMPT $GH_PROMPT_DISABLED $OPERATOR $BOTH");
    spec.env_vars.remove("OZ_TEST_QUIET");
    spec.env_vars.insert("BOTH".into(), "assigned".into());
    spec.additional_oz_args = vec!["--more".into(), "a b".into()];
    spec.agent_config_snapshot =
        Some(json!({"model_id": " m ", "profile_id": "", "computer_use_enabled": true,
        "mcp_servers": {"s": {"k": "v"}}, "environment_id": "e"}));
    let run = stage.run(&spec);
    let root = stage.plane.root_url();
    let args = [
        "agent",
        "run",
        "--share",
        "team:edit",
        "--task-id",
        &run.id,
        "--sandboxed",
        "--server-root-url",
        &root,
        "--model",
        "m",
        "--mcp",
        r#"{"s":{"k":"v"}}"#,
        "--computer-use",
        "--environment",
        "e",
        "--more",
        "a b",
        "--idle-on-complete",
    ];
    let mut expected: String = args.iter().map(|arg| format!("arg: {arg}\n")).collect();
    expected += &format!("/workspace\ntask {} 0 1 mine operator\n", run.id);
    assert_eq!(run.output.as_deref(), Some(expected.as_str()));
    stage.stop(worker);
}

#[test]
fn the_output_file_replaces_the_log_and_any_exit_code_completes_the_task() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let script =
        "mkdir .oz; printf 'caf\\303\\251 \\377 \\000 end' > .oz/agent_output.txt; echo shown; exit 3";
    let run = stage.run(&stage.spec(script));
    assert_eq!((run.state, run.exit_code), (State::Failed, Some(3)));
    assert_eq!(run.output.as_deref(), Some("café \u{fffd} \u{fffd} end"));
    assert_eq!(run.history.last().unwrap().kind, "task_completed");
    let run = stage.run(&stage.spec(
        "exec 2>/dev/null; mkdir .oz; : > .oz/agent_output.txt; echo shown; sh -c 'kill -9 $$'; exit $?",
    ));
    assert_eq!((run.output.as_deref(), run.exit_code), (Some("shown\n"), Some(137)));
    assert_eq!(run.failure_reason, None, "killed, but not by the OOM killer");
    stage.stop(worker);
}

#[test]
fn long_output_keeps_its_beginning_and_its_end() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--max-output", "4096"]));
    let run = stage.run(
        &stage.spec("echo first; seq 100000; echo https://github.com/o/r/pull/1; seq 100000; echo last"),
    );
    let output = run.output.unwrap();
    assert!(output.starts_with("first\n1\n2\n") && output.ends_with("100000\nlast\n"), "{output}");
    assert!(output.contains(" bytes left out ") && output.len() < 4096 + 64, "{}", output.len());
    assert_eq!(run.artifacts.len(), 1, "the omitted part is scanned for artifacts");
    stage.stop(worker);
}

#[test]
fn both_sidecar_layouts_run_with_all_their_files() {
    let mut stage = Stage::new();
    let nested = stage.images.sidecar(Layout::Nested);
    let worker = stage.start_worker();
    let script = "exec 2>&1; cat /agent/lib/link; /agent/lib/tool; ls -ld /agent/empty | cut -c1-10; touch /agent/x || echo read-only";
    for image in [stage.sidecar_image.clone(), nested] {
        let mut spec = stage.spec(script);
        spec.sidecar_image = image;
        let run = stage.run(&spec);
        let output = run.output.unwrap();
        assert!(
            output.starts_with("data\ntool\ndrwx------\n") && output.ends_with("read-only\n"),
            "{output}"
        );
        assert_eq!(run.exit_code, Some(0));
    }
    stage.stop(worker);
}

#[test]
fn a_sidecar_without_an_agent_fails_and_names_the_expected_paths() {
    let mut stage = Stage::new();
    let none = stage.images.sidecar(Layout::None);
    let worker = stage.start_worker();
    let mut spec = stage.spec("");
    spec.sidecar_image = none;
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("sidecar_prep"));
    let message = run.message.unwrap();
    assert!(message.contains("looked for /entrypoint.sh and /agent/entrypoint.sh in the image"), "{message}");
    stage.stop(worker);
}

#[test]
fn additional_sidecars_are_mounted_and_writes_are_private_to_a_task() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let mut spec = stage.spec("exec 2>&1; cat /tools/lib/data.txt; touch /tools/x || echo read-only; ls /rw/new; echo mine > /rw/new; cat /rw/new");
    spec.additional_sidecars = vec![
        json!({"image": stage.sidecar_image, "mount_path": "/tools"}),
        json!({"image": stage.sidecar_image, "mount_path": "/rw/", "read_write": true}),
    ];
    for _ in 0..2 {
        let output = stage.run(&spec).output.unwrap();
        assert!(
            output.starts_with("data\n") && output.contains("read-only\n") && output.ends_with("mine\n"),
            "{output}"
        );
        assert!(output.contains("No such file"), "another task's file is visible: {output}");
    }
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn a_container_has_labels_and_limits_and_its_anonymous_volumes_are_removed() {
    let mut stage = Stage::new();
    let image = stage.images.make(
        "volume",
        RootFs::busybox(),
        &["ENV PATH=/bin", "VOLUME /cache", "ENTRYPOINT [\"/bin/false\"]"],
    );
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("file"), "of the host\n").unwrap();
    let bind = format!("{}:/host:ro", host.path().display());
    let worker = stage.start(stage.worker().args(["-v", &bind]));
    let mut spec = stage.spec("cat /host/file; while [ ! -e /cache/go ]; do sleep 0.1; done");
    spec.docker_image = Some(image);
    spec.instance_shape = Some(json!({"vcpus": 0.5, "memory_gb": 0.25}));
    let id = stage.plane.submit(&spec);
    let container = stage.wait_running(&id);
    let host_config = &container["HostConfig"];
    assert_eq!(host_config["NanoCpus"], 500_000_000);
    assert_eq!((&host_config["Memory"], &host_config["MemorySwap"]), (&json!(1 << 28), &json!(1 << 28)));
    assert_eq!(host_config["AutoRemove"], false);
    let labels = &container["Config"]["Labels"];
    assert_eq!(labels["oz-worker-id"], stage.worker_id.as_str());
    assert_eq!(labels["oz-task-id"], id.as_str());
    assert_eq!((&labels["oz-execution-id"], &labels["oz-sidecar-image"]), (&json!(""), &json!("")));
    assert_eq!(labels["oz-dialect"], "old");
    assert_eq!(labels["oz-process-id"].as_str().map(str::len), Some(16), "{labels}");
    let cache = container["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["Destination"] == "/cache")
        .unwrap();
    let volume = cache["Name"].as_str().unwrap().to_owned();
    let archive = RootFs::default().file("go", 0o644, "").finish();
    let path = format!("/containers/{}/archive?path=/cache", container["Id"].as_str().unwrap());
    assert_eq!(stage.engine.request("PUT", &path, &[], &archive).status, 200);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.output.as_deref(), run.exit_code), (Some("of the host\n"), Some(0)));
    stage.wait("the anonymous volume is removed", || !stage.engine.volume_names().contains(&volume));
    stage.stop(worker);
}

#[test]
fn a_task_that_runs_out_of_memory_reports_container_oom() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let mut spec = stage.spec("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done");
    spec.instance_shape = Some(json!({"memory_gb": 0.03125}));
    let run = stage.run(&spec);
    assert_eq!((run.state, run.failure_reason.as_deref()), (State::Failed, Some("container_oom")));
    assert_eq!((run.exit_code, run.history.last().unwrap().kind.as_str()), (Some(137), "task_completed"));
    stage.stop(worker);
}

#[test]
fn failures_to_pull_create_and_start_have_different_reasons() {
    let mut stage = Stage::new();
    let empty = stage.images.make("empty", RootFs::default().folder("x", 0o755), &[]);
    let worker = stage.start_worker();
    let mut spec = stage.spec("");
    spec.docker_image = Some(empty);
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("container_start"));
    assert!(run.message.unwrap().contains("/bin/sh"));
    let mut spec = stage.spec("");
    let volume = &["ENV PATH=/bin", "VOLUME /agent/data"];
    spec.docker_image = Some(stage.images.make("data", RootFs::busybox(), volume));
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("container_create"));
    let mut spec = stage.spec("");
    spec.instance_shape = Some(json!({"memory_gb": 0.000_001}));
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("invalid_assignment"));
    let mut spec = stage.spec("");
    spec.docker_image = Some("oz-no-such-image:1".into());
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("image_pull"));
    assert!(run.message.unwrap().contains("oz-no-such-image:1"));
    stage.wait_no_containers();
    stage.stop(worker);
}

#[test]
fn a_sidecar_image_with_the_same_name_and_new_content_gets_a_new_volume() {
    let mut stage = Stage::new();
    let name = stage.images.make("changing", RootFs::sidecar(Layout::Root, AGENT), &[]);
    let worker = stage.start_worker();
    let mut spec = stage.spec("echo one");
    spec.sidecar_image = name.clone();
    assert_eq!(stage.run(&spec).output.as_deref(), Some("one\n"));
    assert_eq!(stage.images.make("changing", RootFs::sidecar(Layout::Root, "echo two"), &[]), name);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("two\n"));
    let volumes: Vec<Value> =
        stage.engine.volumes_of(&stage.worker_id).into_iter().map(Value::from).collect();
    assert_eq!(volumes.len(), 2, "{volumes:?}");
    stage.stop(worker);
}
