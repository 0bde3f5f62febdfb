//! Executions: a run that is started several times, and containers that only look like one of the worker's.

use serde_json::{Value, json};

use crate::support::control_plane::run::{RunSpec, new_id};
use crate::support::engine_proxy::EngineProxy;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{Worker, WorkerBuilder};

/// Returns a worker with the sync folder, which does not ask for the state of the run that several executions share.
fn builder(stage: &Stage, sync: &SyncDir) -> WorkerBuilder {
    stage.worker().args(["--reconcile-interval", "0", "-v", &sync.mount()])
}

fn kill(mut worker: Worker) {
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
}

/// Sends the assignment of an execution.
fn assign(stage: &Stage, spec: &RunSpec, task_id: &str, execution_id: &str) {
    let mut data = spec.assignment(task_id);
    data["execution_id"] = json!(execution_id);
    stage.plane.send_text(json!({"type": "task_assignment", "data": data}).to_string());
}

fn cancel(stage: &Stage, task_id: &str, execution_id: Option<&str>) {
    let data = json!({"task_id": task_id, "execution_id": execution_id});
    stage.plane.send_text(json!({"type": "task_cancel", "data": data}).to_string());
}

/// Waits for `count` messages of a type about a task, and returns their data.
fn messages(stage: &Stage, task_id: &str, kind: &str, count: usize) -> Vec<Value> {
    let found = |all: &[_]| -> Vec<Value> {
        let about = |one: &&crate::support::control_plane::Received| {
            one.kind == kind && one.data["task_id"] == task_id
        };
        all.iter().filter(about).map(|one| one.data.clone()).collect()
    };
    stage.plane.wait_for(DEADLINE, |model| found(&model.messages).len() >= count);
    found(&stage.plane.messages())
}

/// Returns the outputs of reports, sorted.
fn outputs(reports: &[Value]) -> Vec<&str> {
    let mut outputs: Vec<_> = reports.iter().map(|report| report["output"].as_str().unwrap_or("-")).collect();
    outputs.sort_unstable();
    outputs
}

/// Returns the names of the containers of a task, sorted.
fn names(stage: &Stage, task_id: &str) -> Vec<String> {
    let containers = stage.engine.containers("label", &format!("oz-task-id={task_id}"));
    let name = |one: &Value| one["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned();
    let mut names: Vec<_> = containers.iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn two_executions_of_a_task_run_side_by_side() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let task = new_id();
    let mut spec = stage.spec(&format!("echo x >> /data/own; {WAIT}; cat /data/own"));
    spec.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/data", "read_write": true})];
    assign(&stage, &spec, &task, "1");
    assign(&stage, &spec, &task, "2");
    let running =
        |line: &str| line.contains("container started") && line.contains(&format!("task={task} execution="));
    for execution in ["1", "2"] {
        let key = format!("execution={execution} ");
        worker.wait_log(DEADLINE, |line| running(line) && line.contains(&key));
    }
    let mut expected = [Some("1"), Some("2")].map(|execution| stage.container_name(&task, execution));
    expected.sort();
    assert_eq!(names(&stage, &task), expected);
    // The same execution again is answered, and not started.
    assign(&stage, &spec, &task, "2");
    assert_eq!(messages(&stage, &task, "task_claimed", 3).len(), 3);
    sync.release(2);
    let reports = messages(&stage, &task, "task_completed", 2);
    assert_eq!(outputs(&reports), ["x\n", "x\n"], "each has its own volume");
    stage.wait_clean();
    stage.stop(worker);
    assert_eq!(messages(&stage, &task, "task_completed", 2).len(), 2);
}

#[test]
fn a_cancel_ends_the_execution_that_it_names_or_all() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let task = new_id();
    for execution in ["1", "2", "3"] {
        let spec =
            stage.spec(&format!("trap 'exit 9' TERM; echo {execution}; echo >> /sync/log; sleep 999 & wait"));
        assign(&stage, &spec, &task, execution);
    }
    sync.wait_lines(&stage, 3);
    cancel(&stage, &task, Some("2"));
    assert_eq!(outputs(&messages(&stage, &task, "task_failed", 1)), ["2\n"]);
    worker.wait_log(DEADLINE, |line| line.contains("container removed") && line.contains("execution=2"));
    assert_eq!(names(&stage, &task).len(), 2);
    cancel(&stage, &task, None);
    let reports = messages(&stage, &task, "task_failed", 3);
    assert_eq!(outputs(&reports), ["1\n", "2\n", "3\n"]);
    assert!(reports.iter().all(|report| report["failure_reason"] == "task_cancelled"), "{reports:#?}");
    stage.wait_clean();
    stage.stop(worker);
}

/// Runs a task of execution 1 and commits its running container. Returns the image, which has the labels of the task.
fn commit(stage: &Stage, sync: &SyncDir, spec: &RunSpec, task: &str) -> String {
    assign(stage, spec, task, "1");
    sync.wait_lines(stage, 1);
    let name = stage.container_name(task, Some("1"));
    let image = format!("oz-committed-{task}");
    stage.engine.json("POST", &format!("/commit?container={name}&repo={image}&tag=test"), &json!({}));
    format!("{image}:test")
}

/// An operator makes an image of a task's container and starts a container from it. That has the labels of the task.
#[test]
fn a_container_of_a_committed_image_is_not_the_worker_s() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let task = new_id();
    let spec = stage.spec(&format!("echo >> /sync/log; {WAIT}; echo out"));
    let image = commit(&stage, &sync, &spec, &task);
    let create = json!({"Image": image, "Entrypoint": ["/bin/sh", "-c", "sleep 600"]});
    let path = format!("/containers/create?name=database-{task}");
    let database = stage.engine.json("POST", &path, &create)["Id"].as_str().unwrap().to_owned();
    stage.engine.json("POST", &format!("/containers/{database}/start"), &Value::Null);
    let inspect = || stage.engine.json("GET", &format!("/containers/{database}/json"), &Value::Null);
    assert_eq!(inspect()["Config"]["Labels"]["oz-task-id"], task.as_str(), "it has the labels");
    kill(worker);
    let mut worker = stage.start(builder(&stage, &sync));
    let log = worker.stderr().all();
    assert_eq!(log.iter().filter(|line| line.contains("container adopted")).count(), 1, "{log:#?}");
    sync.release(1);
    assert_eq!(outputs(&messages(&stage, &task, "task_completed", 1)), ["out\n"]);
    let only_that = || stage.engine.containers_of(&stage.worker_id).len() == 1;
    stage.wait("the task's container is removed", only_that);
    // The same execution again clears away what is left of it.
    assign(&stage, &spec, &task, "1");
    sync.wait_lines(&stage, 2);
    cancel(&stage, &task, None);
    messages(&stage, &task, "task_failed", 1);
    stage.wait("the task's container is removed", only_that);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(inspect()["State"]["Running"], true);
    stage.engine.remove_container(&database);
    stage.engine.remove_image(&image);
}

/// A task whose images were committed from another task's container.
#[test]
fn the_labels_of_an_image_do_not_reach_the_worker_s_containers() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let proxy = EngineProxy::start(stage.engine.host());
    // It does not know the first run in any case, whose container would stay for ten minutes.
    stage.plane.fail_rest_with(Some(404));
    let worker = stage.start(builder(&stage, &sync).env("DOCKER_HOST", &proxy.host()));
    let mut spec = stage.spec(&format!("echo >> /sync/log; {WAIT}"));
    let (first, task) = (new_id(), new_id());
    let image = commit(&stage, &sync, &spec, &first);
    sync.release(1);
    messages(&stage, &first, "task_completed", 1);
    spec.docker_image = Some(image.clone());
    spec.additional_sidecars = vec![json!({"image": image, "mount_path": "/tools"})];
    let export = proxy.hold("/export", 1);
    stage.plane.submit_raw(spec.assignment(&task));
    export.wait(1);
    let ids = |one: &Value| [one["oz-task-id"].clone(), one["oz-execution-id"].clone()];
    let helpers: Vec<_> = stage
        .engine
        .containers_of(&stage.worker_id)
        .iter()
        .filter(|one| one["Names"][0].as_str().is_some_and(|name| name.starts_with("/oz-fill-")))
        .map(|one| ids(&one["Labels"]))
        .collect();
    assert_eq!(helpers, vec![[json!(""), json!("")]; 2], "the helpers belong to no task");
    export.release();
    sync.wait_lines(&stage, 2);
    let name = stage.container_name(&task, None);
    let own = stage.engine.json("GET", &format!("/containers/{name}/json"), &Value::Null);
    assert_eq!(ids(&own["Config"]["Labels"]), [json!(task), json!("")]);
    sync.release(1);
    messages(&stage, &task, "task_completed", 1);
    stage.wait_clean();
    stage.stop(worker);
    stage.engine.remove_image(&image);
}

/// Containers as release 0.1 left them: without some labels, and with one name for all executions of a task.
#[test]
fn containers_of_release_0_1_are_adopted_reported_and_removed() {
    let stage = Stage::new();
    let create = |task: &str, suffix: &str, execution: Option<&str>, script: &str| {
        let mut labels =
            json!({"oz-worker-id": stage.worker_id, "oz-process-id": "0123456789abcdef", "oz-task-id": task});
        if let Some(execution) = execution {
            labels["oz-execution-id"] = json!(execution);
        }
        let volume = format!("{}-1", stage.container_name(task, None));
        stage.engine.json("POST", "/volumes/create", &json!({"Name": volume, "Labels": labels}));
        let mount = json!({"Type": "volume", "Source": volume, "Target": "/data"});
        let spec = json!({"Image": stage.task_image, "Entrypoint": ["/bin/sh", "-c", script], "Labels": labels,
            "HostConfig": {"Mounts": [mount]}});
        let name = format!("{}{suffix}", stage.container_name(task, None));
        let id = stage.engine.json("POST", &format!("/containers/create?name={name}"), &spec)["Id"].clone();
        if !script.is_empty() {
            stage.engine.json("POST", &format!("/containers/{}/start", id.as_str().unwrap()), &Value::Null);
        }
    };
    let [plain, named, stopped, unstarted] = [(); 4].map(|()| new_id());
    create(&plain, "", None, "echo plain; exit 3");
    create(&named, "", Some("e"), "echo named");
    create(&stopped, ".task_timeout", Some("e"), "echo stopped; sleep 999");
    create(&unstarted, "", Some("e"), "");
    let worker = stage.start_worker();
    let report = &messages(&stage, &plain, "task_completed", 1)[0];
    assert_eq!((&report["output"], &report["exit_code"]), (&json!("plain\n"), &json!(3)));
    assert_eq!(messages(&stage, &named, "task_completed", 1)[0]["output"], "named\n");
    let report = &messages(&stage, &stopped, "task_failed", 1)[0];
    assert_eq!(report["failure_reason"], "task_timeout");
    worker.wait_log(DEADLINE, |line| {
        line.contains("container adopted") && line.contains(&format!("task={named} execution=e"))
    });
    stage.wait_clean();
    stage.stop(worker);
}
