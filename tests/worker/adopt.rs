//! Adoption: the next process with the same id reports the containers that a killed or disconnected worker left.

use serde_json::{Value, json};

use crate::support::control_plane::{Disconnect, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{Worker, WorkerBuilder};

/// Returns a worker with the sync folder and `--lost-runs finish`.
fn builder(stage: &Stage, sync: &SyncDir) -> WorkerBuilder {
    stage.worker().args(["--lost-runs", "finish", "--log-level", "debug", "-v", &sync.mount()])
}

fn kill(mut worker: Worker) {
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
}

fn adopted(worker: &Worker, id: &str) -> String {
    worker.wait_log(DEADLINE, |line| line.contains("container adopted") && line.contains(id))
}

/// Returns a report's exit code, failure reason and output.
fn result(report: &Value) -> (Option<i64>, Option<&str>, Option<&str>) {
    (report["exit_code"].as_i64(), report["failure_reason"].as_str(), report["output"].as_str())
}

/// One task is still running, one ended while no worker ran, and one had already been reported.
#[test]
fn tasks_of_a_killed_worker_are_adopted_and_reported() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync).args(["--memory", "1g"]));
    let script = |code| format!("echo $TASK_ID >> /sync/log; {WAIT}; echo whole; exit {code}");
    let mut spec = stage.spec(&script(4));
    spec.instance_shape = Some(json!({"memory_gb": 2}));
    let ended = stage.plane.submit(spec);
    sync.wait_lines(&stage, 1);
    let reported = stage.plane.submit(stage.spec("echo $TASK_ID >> /sync/log; echo whole; exit 5"));
    stage.plane.wait_message(&reported, "task_completed");
    stage.wait("its container is removed", || stage.engine.containers_of(&stage.worker_id).len() == 1);
    kill(worker);
    sync.release(1);
    let label = format!("oz-task-id={ended}");
    stage.wait("it has exited", || stage.engine.containers("label", &label)[0]["State"] == "exited");

    let worker = stage.start(builder(&stage, &sync));
    assert!(adopted(&worker, &ended).contains("state=exited"));
    let report = stage.plane.wait_message(&ended, "task_completed");
    assert_eq!(result(&report.data), (Some(4), None, Some("whole\n")));
    let message = report.data["message"].as_str().unwrap();
    assert!(message.contains("memory from 2048 MiB to 1024 MiB (--memory)"), "{message}");
    let running = stage.plane.submit(stage.spec(&script(6)));
    sync.wait_lines(&stage, 3);
    stage.wait_running(&running);
    kill(worker);

    let worker = stage.start(builder(&stage, &sync));
    assert!(adopted(&worker, &running).contains("state=running"));
    sync.release(1);
    let report = stage.plane.wait_message(&running, "task_completed");
    assert_eq!(result(&report.data), (Some(6), None, Some("whole\n")));
    stage.wait_clean();
    stage.stop(worker);
    assert_eq!(sync.lines(), [ended, reported, running], "each ran once");
}

/// As after a power failure: nobody has seen the task end, and the engine gives a code that stands for that.
#[test]
fn a_task_that_was_lost_with_the_engine_is_reported_with_a_note() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let codes = [255, 137, 3];
    let submit = |code| stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; exit {code}")));
    let ids = codes.map(submit);
    sync.wait_lines(&stage, codes.len());
    kill(worker);
    sync.release(codes.len());
    let all_exited =
        |id: &String| stage.engine.containers("label", &format!("oz-task-id={id}"))[0]["State"] == "exited";
    stage.wait("they have exited", || ids.iter().all(all_exited));
    let worker = stage.start(builder(&stage, &sync));
    let notes =
        [Some("did not see the task end"), Some("killed while the engine or the worker was away"), None];
    for ((id, code), note) in ids.iter().zip(codes).zip(notes) {
        let report = stage.plane.wait_message(id, "task_completed").data;
        let message = report["message"].as_str();
        assert_eq!(report["exit_code"], code);
        assert!(message.zip(note).is_none_or(|(message, note)| message.contains(note)), "{report}");
        assert_eq!(message.is_some(), note.is_some(), "{report}");
        if note.is_some() {
            worker.wait_log(DEADLINE, |line| line.contains("task may be lost") && line.contains(id.as_str()));
        }
    }
    // A code of a task that was waited for is its own.
    let run = stage.run(&stage.spec("exit 255"));
    assert_eq!((run.exit_code, run.message), (Some(255), None));
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn a_task_whose_cancel_was_interrupted_is_reported_as_cancelled() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let script = format!("trap '' TERM; echo so far; echo >> /sync/log; {WAIT}; exit 8");
    let id = stage.plane.submit(stage.spec(&script));
    sync.wait_lines(&stage, 1);
    stage.plane.cancel(&id);
    worker.wait_log(DEADLINE, |line| line.contains("container stopping") && line.contains(&id));
    kill(worker);
    // The task must end after the worker that stopped it was killed.
    sync.release(1);

    let worker = stage.start(builder(&stage, &sync));
    adopted(&worker, &id);
    let report = stage.plane.wait_message(&id, "task_failed");
    assert_eq!(result(&report.data), (Some(8), Some("task_cancelled"), Some("so far\n")));
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn an_adopted_task_can_be_cancelled() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let id = stage.plane.submit(stage.spec("trap 'exit 9' TERM; echo >> /sync/log; sleep 1000 & wait"));
    sync.wait_lines(&stage, 1);
    kill(worker);
    let worker = stage.start(builder(&stage, &sync));
    adopted(&worker, &id);
    let cancel = json!({"type": "task_cancel", "data": {"task_id": id}});
    stage.plane.send_text(cancel.to_string());
    let report = stage.plane.wait_message(&id, "task_failed");
    assert_eq!(result(&report.data), (Some(9), Some("task_cancelled"), None));
    stage.wait_clean();
    stage.stop(worker);
}

/// The worker loses the control plane with one task ended, one running, and one not started, and gives up. Its exit code says
/// that reports are missing. A refusal does not end the next process, because it has tasks.
#[test]
fn undelivered_reports_are_sent_by_the_next_process() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let mut worker = stage.start(builder(&stage, &sync).env("OZ_RECONNECT_MAX_ATTEMPTS", "2"));
    let record = "echo $TASK_ID >> /sync/log";
    let ended = stage.plane.submit(stage.spec(&format!("{record}; {WAIT}; echo done; exit 3")));
    let stopped = stage
        .plane
        .submit(stage.spec(&format!("trap 'exit 7' TERM; {record}; echo so far; sleep 1000 & wait")));
    sync.wait_lines(&stage, 2);
    stage.plane.hold_pongs(true);
    let unstarted = stage.plane.submit(stage.spec(record));
    worker.wait_log(DEADLINE, |line| line.contains("container created") && line.contains(&unstarted));
    sync.release(1);
    worker.wait_log(DEADLINE, |line| line.contains("type=task_completed") && line.contains(&ended));
    stage.plane.refuse_with(Some(401));
    stage.plane.drop_connections(Disconnect::Rst);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(1), "{:#?}", worker.stderr().all());
    let log = worker.stderr().all();
    let left = log.iter().filter(|line| line.contains("container left for the next start task="));
    assert_eq!(left.count(), 2, "{log:#?}");
    assert_eq!(stage.engine.containers_of(&stage.worker_id).len(), 2, "the one not started was removed");
    for id in [&ended, &stopped] {
        assert_eq!(stage.plane.run(id).terminal_reports, 0, "no report was delivered");
    }

    let worker = builder(&stage, &sync).start();
    worker.wait_log(DEADLINE, |line| line.contains("WARN") && line.contains("link refused"));
    stage.plane.refuse_with(None);
    let report = stage.plane.wait_message(&ended, "task_completed");
    assert_eq!(result(&report.data), (Some(3), None, Some("done\n")));
    let report = stage.plane.wait_message(&stopped, "task_failed");
    assert_eq!(result(&report.data), (Some(7), Some("graceful_shutdown"), Some("so far\n")));
    assert_eq!(report.data["message"], "the worker was stopped");
    stage.wait_clean();
    stage.stop(worker);
}

/// The engine executes a creation only after its caller was killed and the next process has searched for containers. The
/// late sweep is delayed until the container exists, so its timing does not matter.
#[test]
fn a_container_created_after_the_next_start_is_removed() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let builder = || stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.start(builder());
    let creation = proxy.delay("/containers/create?name=oz-fill-", 1);
    let id = stage.plane.submit(stage.spec("true"));
    creation.wait(1);
    kill(worker);
    stage.plane.wait_ended(&id);

    let worker = stage.start(builder());
    let sweep = proxy.delay("/containers/json", 1);
    sweep.wait(1);
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<Value>::new());
    creation.release();
    stage.wait("the container exists", || stage.engine.containers_of(&stage.worker_id).len() == 1);
    sweep.release();
    stage.wait_clean();
    worker.wait_log(DEADLINE, |line| {
        line.contains("created after its process ended") && line.contains("oz-fill-")
    });
    stage.stop(worker);
}

/// A kept container and its volume do not affect the same task or the next process.
#[test]
fn a_kept_container_is_reported_once_and_its_task_can_run_again() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let builder = || builder(&stage, &sync).args(["--no-cleanup"]);
    let worker = stage.start(builder());
    let mut spec = stage.spec("cat /data/mine 2>/dev/null; echo run >> /data/mine; cat /data/mine; exit 3");
    spec.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/data", "read_write": true})];
    let id = stage.plane.submit(&spec);
    stage.plane.wait_ended(&id);
    for count in 1..3 {
        stage.wait("the containers are kept", || kept(&stage).len() == count);
        stage
            .plane
            .wait_for(DEADLINE, |model| model.run(&id).is_some_and(|run| run.terminal_reports == count));
        if count < 2 {
            // Until then the worker would answer with the report of the first execution.
            worker.wait_log(DEADLINE, |line| line.contains("container kept"));
            stage.plane.restart(&id);
        }
    }
    let reports = stage.plane.run(&id).history;
    let reports: Vec<_> = reports.iter().filter(|received| received.kind == "task_completed").collect();
    assert!(
        reports.iter().all(|report| result(&report.data) == (Some(3), None, Some("run\n"))),
        "{reports:#?}"
    );
    kill(worker);

    let worker = stage.start(builder());
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("adopted") || line.contains("removed")), "{log:#?}");
    assert_eq!((kept(&stage).len(), stage.engine.containers_of(&stage.worker_id).len()), (2, 2));
    assert_eq!(stage.plane.run(&id).terminal_reports, 2);
}

fn kept(stage: &Stage) -> Vec<String> {
    let name = |container: &Value| container["Names"][0].as_str().unwrap_or_default().to_owned();
    let names = stage.engine.containers_of(&stage.worker_id);
    names.iter().map(name).filter(|name| name.starts_with("/oz-kept-")).collect()
}

/// A container that an earlier process left is replaced. A container of another worker with the same name is not touched,
/// and the task fails.
#[test]
fn a_container_with_the_same_name_is_replaced_only_if_it_is_the_workers_own() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    let mut spec = stage.spec("echo again");
    spec.id = Some(format!("named-{}", stage.worker_id));
    let id = stage.plane.submit(&spec);
    assert_eq!(stage.plane.wait_ended(&id).state, State::Succeeded);
    let created = worker.wait_log(DEADLINE, |line| line.contains("container created"));
    let name = created.split_once("container=").unwrap().1.split(' ').next().unwrap().to_owned();
    stage.wait_no_containers();
    let left =
        json!({"Image": stage.task_image, "Labels": {"oz-worker-id": stage.worker_id, "oz-task-id": id}});
    let path = format!("/containers/create?name={name}");
    stage.engine.json("POST", &path, &left);
    stage.plane.restart(&id);
    stage.plane.wait_for(DEADLINE, |model| model.run(&id).is_some_and(|run| run.terminal_reports == 2));
    let report = stage.plane.run(&id).history.last().unwrap().data.clone();
    assert_eq!((&report["output"], &report["exit_code"]), (&json!("again\n"), &json!(0)));
    stage.wait_no_containers();
    let foreign = json!({"Image": stage.task_image, "Labels": {"oz-worker-id": "somebody else"}});
    let foreign = stage.engine.json("POST", &path, &foreign)["Id"].as_str().unwrap().to_owned();
    stage.plane.restart(&id);
    stage.plane.wait_for(DEADLINE, |model| model.run(&id).is_some_and(|run| run.terminal_reports == 3));
    let report = stage.plane.run(&id).history.last().unwrap().data.clone();
    assert_eq!(report["failure_reason"], "container_create");
    assert_eq!(stage.engine.request("GET", &format!("/containers/{foreign}/json"), &[], &[]).status, 200);
    stage.engine.remove_container(&foreign);
    stage.stop(worker);
}
