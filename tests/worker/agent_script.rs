//! How the agent's script is started: executed if it can be, else by the shell of the task's image.

use serde_json::{Value, json};

use crate::support::control_plane::{Dialect, Options, Run, State};
use crate::support::images::{AGENT, Layout, RootFs, tool};
use crate::support::stage::Stage;

fn stage() -> Stage {
    Stage::with(Options { dialect: Dialect::Upstream, ..Options::default() })
}

/// An image without a shell, with a static program that interprets scripts, at a place of its own.
fn without_shell(stage: &mut Stage) -> String {
    let program = std::fs::read(tool("busybox")).unwrap();
    let root = RootFs::default().folder("opt", 0o755).file("opt/sh", 0o755, program).folder("tmp", 0o1777);
    stage.images.make("no-shell", root, &["ENTRYPOINT [\"/bin/echo\", \"in the way\"]"])
}

/// A sidecar image with this script and its mode.
fn sidecar(stage: &mut Stage, name: &str, mode: u32, script: &str) -> String {
    stage.images.make(name, RootFs::default().file("entrypoint.sh", mode, script), &[])
}

fn run(stage: &Stage, image: &str, sidecar: Option<&str>, script: &str) -> Run {
    let mut spec = stage.spec(script);
    spec.docker_image = Some(image.to_owned());
    spec.sidecar_image = sidecar.unwrap_or_default().to_owned();
    stage.run(&spec)
}

#[test]
fn an_executable_script_needs_no_shell_in_the_image_of_the_task() {
    let mut stage = stage();
    let image = without_shell(&mut stage);
    let direct = sidecar(&mut stage, "direct", 0o755, &AGENT.replace("/bin/sh", "/opt/sh"));
    let worker = stage.start_worker();
    let done = run(
        &stage,
        &image,
        Some(&direct),
        "[ $# = 9 ] && [ $1 = agent ] && [ \"$PWD\" = /workspace ] && exit 4",
    );
    assert_eq!(
        (done.failure_reason.as_deref(), done.exit_code),
        (Some("container_exit"), Some(4)),
        "{done:?}"
    );
    // Its interpreter is missing: the engine starts it, and it ends.
    let shell = sidecar(&mut stage, "shell", 0o755, AGENT);
    let failed = run(&stage, &image, Some(&shell), "exit 0");
    assert_eq!(failed.state, State::Failed, "{failed:?}");
    let reason = failed.failure_reason.as_deref();
    assert!(matches!(reason, Some("container_exit" | "container_start")), "{failed:?}");
    stage.stop(worker);
}

#[test]
fn a_script_that_cannot_be_executed_is_run_by_the_shell() {
    let mut stage = stage();
    let image = stage.task_image.clone();
    let plain = sidecar(&mut stage, "plain", 0o644, AGENT);
    let headless = AGENT.split_once('\n').unwrap().1;
    let headless = sidecar(&mut stage, "headless", 0o755, headless);
    let nested = stage.images.sidecar(Layout::Nested);
    let worker = stage.start_worker();
    for sidecar in [plain, headless, nested] {
        let done = run(&stage, &image, Some(&sidecar), "[ $1 = agent ] && exit 4");
        assert_eq!(done.exit_code, Some(4), "{done:?}");
    }
    stage.stop(worker);
}

#[test]
fn without_a_sidecar_the_image_of_the_task_has_the_agent() {
    let mut stage = stage();
    let root = RootFs::busybox().folder("agent", 0o755).file("agent/entrypoint.sh", 0o755, AGENT);
    let image = stage.images.make("whole", root, &["ENV PATH=/bin"]);
    let worker = stage.start_worker();
    let mut spec = stage.spec("[ ! -e /agent/lib ] && exit 4");
    spec.docker_image = Some(image);
    let mut data = spec.upstream_assignment("without-sidecar", "1");
    data.as_object_mut().unwrap().remove("sidecar_image");
    let id = stage.plane.submit_raw(&data).unwrap();
    assert_eq!(stage.plane.wait_ended(&id).exit_code, Some(4));
    // An image without an agent.
    data["task_id"] = json!("without-agent");
    data["execution_id"] = json!("2");
    data["docker_image"] = json!(stage.task_image);
    let id = stage.plane.submit_raw(&data).unwrap();
    assert_eq!(stage.plane.wait_ended(&id).failure_reason.as_deref(), Some("container_start"));
    assert_eq!(stage.engine.volumes_of(&stage.worker_id), Vec::<String>::new());
    stage.stop(worker);
}

/// The old control plane's images rely on the shell, whatever their script is.
#[test]
fn at_the_old_control_plane_the_shell_runs_the_script() {
    let mut stage = Stage::new();
    let script = sidecar(&mut stage, "odd", 0o755, &AGENT.replace("/bin/sh", "/none"));
    let worker = stage.start_worker();
    let mut spec = stage.spec("sleep 999 & wait");
    spec.sidecar_image = script;
    let id = stage.plane.submit(&spec);
    let container = stage.wait_running(&id);
    assert_eq!(container["Config"]["Entrypoint"], json!(["/bin/sh"]));
    assert_eq!(container["Config"]["Cmd"][0], Value::from("/agent/entrypoint.sh"));
    stage.plane.cancel(&id);
    stage.plane.wait_ended(&id);
    stage.stop(worker);
}
