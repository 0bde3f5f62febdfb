//! Tasks whose images and volumes an earlier task of the same process has used: what the engine is asked, and in which order.

use serde_json::json;

use crate::support::control_plane::State;
use crate::support::control_plane::run::new_id;
use crate::support::engine_proxy::EngineProxy;
use crate::support::stage::Stage;
use crate::support::worker::Worker;

/// Starts a worker behind a proxy, and runs one task.
fn warm_worker(stage: &Stage) -> (EngineProxy, Worker) {
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    assert_eq!(stage.run(&stage.spec("")).state, State::Succeeded);
    stage.wait_clean();
    (proxy, worker)
}

/// Returns the method and the last part of the path; of a removal, only the method.
fn kind(request: &str) -> String {
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let path = target.split('?').next().unwrap();
    if method == "DELETE" {
        return method.to_owned();
    }
    format!("{method} {}", path.rsplit('/').next().unwrap())
}

#[test]
fn no_call_is_made_twice() {
    let stage = Stage::new();
    let (proxy, worker) = warm_worker(&stage);
    let before = proxy.requests().len();
    let run = stage.run(&stage.spec("echo out"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("out\n")));
    stage.wait_clean();
    let mut calls: Vec<String> = proxy.requests()[before..].iter().map(|line| kind(line)).collect();
    calls.sort();
    // The three are a list of containers, and an inspect of each image.
    let inspects = ["GET json"; 3];
    let expected = [&["DELETE", "GET archive"][..], &inspects, &["GET logs", "HEAD archive"]].concat();
    assert_eq!(calls, [&expected[..], &["POST create", "POST start", "POST wait"]].concat());
    stage.stop(worker);
}

#[test]
fn the_container_is_created_but_not_started_while_its_images_are_checked() {
    let stage = Stage::new();
    let (proxy, worker) = warm_worker(&stage);
    let hold = proxy.hold("/images/", 2);
    let id = stage.plane.submit(stage.spec("echo out"));
    hold.wait(2);
    proxy.wait_count("create?name=oz-task", 2);
    proxy.wait_count("/wait", 2);
    assert_eq!(proxy.count("/start"), 1);
    hold.release();
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("out\n")));
    assert_eq!(proxy.count("create?name=oz-task"), 2, "created once");
    stage.stop(worker);
}

/// A worker that was killed can leave a container of the execution under a name with a suffix.
#[test]
fn a_leftover_of_the_task_is_removed_before_the_start() {
    let stage = Stage::new();
    let (proxy, worker) = warm_worker(&stage);
    let id = new_id();
    let labels = json!({"oz-worker-id": stage.worker_id, "oz-task-id": id});
    let body = json!({"Image": stage.task_image, "Cmd": ["/never-started"], "Labels": labels});
    let name = format!("{}.task_cancelled", stage.container_name(&id, None));
    let left = stage.engine.json("POST", &format!("/containers/create?name={name}"), &body);
    let left = left["Id"].as_str().unwrap();
    stage.plane.submit_raw(stage.spec("echo out").assignment(&id));
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("out\n")));
    let requests = proxy.requests();
    let last = |text: &str| requests.iter().rposition(|line| line.contains(text)).unwrap();
    let removal = requests.iter().position(|line| line.starts_with("DELETE") && line.contains(left));
    assert!(removal.unwrap() < last("/start"), "{requests:#?}");
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn the_log_is_requested_beside_the_output_file() {
    let stage = Stage::new();
    let (proxy, worker) = warm_worker(&stage);
    let hold = proxy.hold("GET *archive?path=%2Fworkspace", 1);
    let id = stage.plane.submit(stage.spec("echo out"));
    hold.wait(1);
    proxy.wait_count("/logs", 2);
    hold.release();
    assert_eq!(stage.plane.wait_ended(&id).output.as_deref(), Some("out\n"));
    stage.stop(worker);
}
