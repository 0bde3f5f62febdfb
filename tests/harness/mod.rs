//! Tests of tests/support itself, without the worker: images, registry, processes, proxies and the control plane.

pub(crate) mod control_plane;
mod fault_proxy;

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::engine::Engine;
use crate::support::images::{Images, Layout, RootFs};
use crate::support::process::{Process, Signal};
use crate::support::registry::Registry;

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a container to its end, with a TTY so that its output is not framed. Returns the exit code and stdout.
fn run(engine: &Engine, image: &str, command: &[&str]) -> (i64, String) {
    let spec =
        json!({"Image": image, "Cmd": command, "Tty": true, "Env": ["OZ_TEST_SCRIPT=echo $#; exit 3"]});
    let id = engine.json("POST", "/containers/create", &spec)["Id"].as_str().unwrap().to_owned();
    engine.json("POST", &format!("/containers/{id}/start"), &Value::Null);
    let code = engine.json("POST", &format!("/containers/{id}/wait"), &Value::Null)["StatusCode"].as_i64();
    let logs = engine.request("GET", &format!("/containers/{id}/logs?stdout=1"), &[], &[]).body;
    engine.remove_container(&id);
    (code.unwrap(), String::from_utf8(logs).unwrap())
}

#[test]
fn a_task_image_runs_shell_scripts() {
    let engine = Engine::get();
    let mut images = Images::new(&engine, "oz-harness");
    let image = images.task();
    let script = "cat /etc/group | head -n 1; echo $IMAGE; exit 7";
    assert_eq!(run(&engine, &image, &["/bin/sh", "-c", script]), (7, "root:x:0:\r\ntask\r\n".to_owned()));
    drop(images);
    assert_eq!(engine.request("GET", &format!("/images/{image}/json"), &[], &[]).status, 404);
}

#[test]
fn the_agent_prints_its_arguments_and_executes_its_script() {
    let engine = Engine::get();
    let mut images = Images::new(&engine, "oz-harness");
    for layout in [Layout::Root, Layout::Nested] {
        let image = images.sidecar(layout);
        // The container is only inspected: the image has no program to run.
        let id = engine.json("POST", "/containers/create", &json!({"Image": image, "Cmd": ["x"]}));
        let id = id["Id"].as_str().unwrap();
        let path = if layout == Layout::Root { "/entrypoint.sh" } else { "/agent/entrypoint.sh" };
        assert_eq!(
            engine.request("GET", &format!("/containers/{id}/archive?path={path}"), &[], &[]).status,
            200
        );
        engine.remove_container(id);
    }
    let root = RootFs::busybox().file("entrypoint.sh", 0o755, crate::support::images::AGENT);
    let image = images.make("both", root, &["ENV PATH=/bin"]);
    let (code, output) = run(&engine, &image, &["/bin/sh", "/entrypoint.sh", "a b", "c"]);
    assert_eq!((code, output.as_str()), (3, "arg: a b\r\narg: c\r\n2\r\n"));
}

/// Workers share the volumes of sidecars, and one may run tasks while another is cleaned up.
#[test]
fn a_clean_up_leaves_and_returns_what_another_worker_uses() {
    let engine = Engine::get();
    let mut images = Images::new(&engine, "oz-harness");
    let image = images.task();
    let (worker, other) = ("oz-harness-cleaned", "oz-harness-other");
    let volume = format!("oz-harness-shared-{}", std::process::id());
    let labels = json!({"oz-worker-id": worker});
    engine.json("POST", "/volumes/create", &json!({"Name": volume, "Labels": labels}));
    let spec = json!({
        "Image": image,
        "Cmd": ["sleep", "600"],
        "Labels": {"oz-worker-id": other},
        "HostConfig": {"Binds": [format!("{volume}:/v")]},
    });
    let id = engine.json("POST", "/containers/create", &spec)["Id"].as_str().unwrap().to_owned();
    engine.json("POST", &format!("/containers/{id}/start"), &Value::Null);
    assert_eq!(engine.remove_unused_of(worker), [volume.as_str()]);
    assert_eq!(engine.remove_unused_of(other), Vec::<String>::new());
    assert_eq!(engine.remove_unused_of(worker), Vec::<String>::new());
    assert!(!engine.volume_names().contains(&volume));
}

#[test]
fn an_image_can_be_pushed_to_a_registry_and_pulled_with_the_password() {
    let engine = Engine::get();
    let mut images = Images::new(&engine, "oz-harness");
    let image = images.sidecar(Layout::Root);
    for registry in [Registry::open(), Registry::with_password()] {
        let name = registry.push(&engine, &image, "team/agent", "v1");
        let path = format!("/images/create?fromImage={}/team/agent&tag=v1", registry.host());
        let header = registry.auth_header();
        assert_eq!(engine.request("GET", &format!("/images/{name}/json"), &[], &[]).status, 404);
        engine.progress(&path, &[("X-Registry-Auth", &header)], &[]).unwrap();
        engine.remove_image(&name);
        assert_eq!(engine.progress(&path, &[], &[]).is_err(), registry.requires_password());
        engine.remove_image(&name);
    }
}

#[test]
fn a_process_can_be_read_signalled_and_waited_for() {
    let script = "trap 'echo bye; exit 4' TERM; echo out; echo err >&2; while :; do sleep 0.01; done";
    let mut process = Process::spawn(Command::new("sh").args(["-c", script]), None);
    assert_eq!(process.wait_log(DEADLINE, |line| line == "err"), "err");
    assert!(process.is_running());
    process.signal(Signal::TERM);
    assert_eq!(process.wait_exit(DEADLINE).code(), Some(4));
    assert_eq!(process.stdout().all(), ["out", "bye"]);
    process.signal(Signal::TERM);
}
