//! `docker system prune` beside tasks, one moment at a time: whatever was never started is made again.

use crate::support::control_plane::State;
use crate::support::engine::encode;
use crate::support::engine_proxy::EngineProxy;
use crate::support::images::RootFs;
use crate::support::registry::Registry;
use crate::support::stage::{DEADLINE, Stage};

const NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Runs a task, and lets `prune` remove something before the engine gets the first request for `request`. Checks that the task
/// runs once, and that nothing is left.
fn run_pruned(stage: &Stage, docker_image: Option<String>, request: &str, prune: impl FnOnce()) {
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    let delay = proxy.delay(request, 1);
    let mut spec = stage.spec("echo $TASK_ID");
    spec.docker_image = docker_image.or(spec.docker_image);
    let id = stage.plane.submit(&spec);
    delay.wait(1);
    prune();
    delay.release();
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.state, run.output), (State::Succeeded, Some(format!("{id}\n"))), "{:?}", run.message);
    worker.wait_log(DEADLINE, |line| line.contains("container removed") && line.contains(&id));
    stage.wait_clean();
    stage.stop(worker);
}

/// Removes all containers of the worker, none of which was started.
fn remove_containers(stage: &Stage) {
    let containers = stage.engine.containers_of(&stage.worker_id);
    assert!(!containers.is_empty());
    for container in containers {
        assert_eq!(container["State"], "created");
        stage.engine.remove_container(container["Id"].as_str().unwrap());
    }
}

#[test]
fn the_container_before_its_start() {
    let stage = Stage::new();
    run_pruned(&stage, None, "/start", || remove_containers(&stage));
}

#[test]
fn the_container_while_it_is_checked() {
    let stage = Stage::new();
    run_pruned(&stage, None, "POST */wait", || remove_containers(&stage));
}

#[test]
fn the_volume_before_the_container_is_created() {
    let stage = Stage::new();
    run_pruned(&stage, None, "create?name=oz-task", || {
        let volumes = stage.engine.volumes_of(&stage.worker_id);
        assert_eq!(volumes.len(), 1);
        volumes.iter().for_each(|volume| stage.engine.remove_volume(volume));
    });
}

#[test]
fn the_helpers_while_a_volume_is_filled() {
    let stage = Stage::new();
    run_pruned(&stage, None, "PUT *archive", || remove_containers(&stage));
}

#[test]
fn the_image_before_the_container_is_created() {
    let stage = Stage::new();
    let registry = Registry::open();
    registry.put("pruned:v1", RootFs::busybox().file("mark", 0o644, registry.host()), NATIVE, &["PATH=/bin"]);
    let image = format!("{}/pruned:v1", registry.host());
    run_pruned(&stage, Some(image.clone()), "create?name=oz-task", || {
        let path = format!("/images/{}?force=1", encode(&image));
        assert_eq!(stage.engine.request("DELETE", &path, &[], &[]).status, 200);
    });
    stage.engine.remove_image(&image);
}
