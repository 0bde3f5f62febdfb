//! A worker that was killed, or could not deliver: the next process with its id reports what it finds, as it was.

use serde_json::{Value, json};

use super::gate::{Gate, PASS};
use super::{DEADLINE, Stage};
use crate::support::control_plane::How;
use crate::support::process::Signal;
use crate::support::proxy::Proxy;
use crate::support::worker::{Builder, Worker};

/// A worker whose tasks see the gate, and which goes on with runs that the control plane has given up.
fn builder(stage: &Stage, gate: &Gate) -> Builder {
    stage.worker().args(["--lost-runs", "finish", "--log-level", "debug", "-v", &gate.mount()])
}

fn kill(mut worker: Worker) {
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
}

fn adopted(worker: &Worker, id: &str) -> String {
    worker.wait_log(DEADLINE, |line| line.contains("container adopted") && line.contains(id))
}

/// The fields of a report that say how a task ended.
fn told(report: &Value) -> (Option<i64>, Option<&str>, Option<&str>) {
    (report["exit_code"].as_i64(), report["failure_reason"].as_str(), report["output"].as_str())
}

/// One still runs, one has ended while nobody looked, one has ended with its report on the way.
#[test]
fn tasks_of_a_killed_worker_are_waited_for_and_reported() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = stage.connected(builder(&stage, &gate));
    let script = |code| format!("echo $TASK_ID >> /gate/log; {PASS}; echo whole; exit {code}");
    let ended = stage.plane.submit(stage.spec(&script(4)));
    gate.wait_told(&stage, 1);
    let reported = stage.plane.submit(stage.spec("echo $TASK_ID >> /gate/log; echo whole; exit 5"));
    stage.plane.wait_message(&reported, "task_completed");
    stage.wait("its container is gone", || stage.engine.containers_of(&stage.worker_id).len() == 1);
    kill(worker);
    gate.open(1);
    let of_ended = format!("oz-task-id={ended}");
    stage.wait("it has ended", || stage.engine.containers("label", &of_ended)[0]["State"] == "exited");

    let worker = stage.connected(builder(&stage, &gate));
    assert!(adopted(&worker, &ended).contains("state=exited"));
    let report = stage.plane.wait_message(&ended, "task_completed");
    assert_eq!(told(&report.data), (Some(4), None, Some("whole\n")));
    let running = stage.plane.submit(stage.spec(&script(6)));
    gate.wait_told(&stage, 3);
    kill(worker);

    let worker = stage.connected(builder(&stage, &gate));
    assert!(adopted(&worker, &running).contains("state=running"));
    gate.open(1);
    let report = stage.plane.wait_message(&running, "task_completed");
    assert_eq!(told(&report.data), (Some(6), None, Some("whole\n")));
    stage.wait_clean();
    stage.stop(worker);
    assert_eq!(gate.told(), [ended, reported, running], "each has run once");
}

/// It was ended by the worker, and that is what the report says, whoever sends it.
#[test]
fn a_task_that_was_being_cancelled_is_ended_and_reported_as_that() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = stage.connected(builder(&stage, &gate));
    let script = format!("trap '' TERM; echo so far; echo >> /gate/log; {PASS}; exit 8");
    let id = stage.plane.submit(stage.spec(&script));
    gate.wait_told(&stage, 1);
    stage.plane.cancel(&id);
    worker.wait_log(DEADLINE, |line| line.contains("container stopping") && line.contains(&id));
    kill(worker);
    // It takes its time, so that the one who ended it is not there any more when it ends.
    gate.open(1);

    let worker = stage.connected(builder(&stage, &gate));
    adopted(&worker, &id);
    let report = stage.plane.wait_message(&id, "task_failed");
    assert_eq!(told(&report.data), (Some(8), Some("task_cancelled"), Some("so far\n")));
    stage.wait_clean();
    stage.stop(worker);
}

/// A cancel reaches an adopted task like any other.
#[test]
fn an_adopted_task_is_stopped_like_any_other() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = stage.connected(builder(&stage, &gate));
    let id = stage.plane.submit(stage.spec("trap 'exit 9' TERM; echo >> /gate/log; sleep 1000 & wait"));
    gate.wait_told(&stage, 1);
    kill(worker);
    let worker = stage.connected(builder(&stage, &gate));
    adopted(&worker, &id);
    let cancel = json!({"type": "task_cancel", "data": {"task_id": id}});
    stage.plane.send_text(cancel.to_string());
    let report = stage.plane.wait_message(&id, "task_failed");
    assert_eq!(told(&report.data), (Some(9), Some("task_cancelled"), None));
    stage.wait_clean();
    stage.stop(worker);
}

/// The control plane is gone while the worker stops: one task had ended before, one is ended for the stop, one was never
/// started. The worker's own code says that reports are missing.
#[test]
fn what_could_not_be_delivered_is_reported_by_the_next_process() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let mut worker = stage.connected(builder(&stage, &gate));
    let told_all = "echo $TASK_ID >> /gate/log";
    let ended = stage.plane.submit(stage.spec(&format!("{told_all}; {PASS}; echo done; exit 3")));
    let stopped = stage
        .plane
        .submit(stage.spec(&format!("trap 'exit 7' TERM; {told_all}; echo so far; sleep 1000 & wait")));
    gate.wait_told(&stage, 2);
    stage.plane.hold_pongs(true);
    let unstarted = stage.plane.submit(stage.spec(told_all));
    worker.wait_log(DEADLINE, |line| line.contains("container created") && line.contains(&unstarted));
    gate.open(1);
    worker.wait_log(DEADLINE, |line| line.contains("type=task_completed") && line.contains(&ended));
    stage.plane.refuse_with(Some(401));
    stage.plane.drop_connections(How::Rst);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(3), "{:#?}", worker.stderr().all());
    let log = worker.stderr().all();
    let left = log.iter().filter(|line| line.contains("container left for the next start task="));
    assert_eq!(left.count(), 2, "{log:#?}");
    assert_eq!(stage.engine.containers_of(&stage.worker_id).len(), 2, "what was never started is gone");
    for id in [&ended, &stopped] {
        assert_eq!(stage.plane.run(id).terminal_reports, 0, "nothing came through");
    }

    stage.plane.refuse_with(None);
    let worker = stage.connected(builder(&stage, &gate));
    let report = stage.plane.wait_message(&ended, "task_completed");
    assert_eq!(told(&report.data), (Some(3), None, Some("done\n")));
    let report = stage.plane.wait_message(&stopped, "task_failed");
    assert_eq!(told(&report.data), (Some(7), Some("graceful_shutdown"), Some("so far\n")));
    assert_eq!(report.data["message"], "the worker was stopped");
    stage.wait_clean();
    stage.stop(worker);
}

/// The engine gets round to a creation only after its caller was killed and the next process has looked. The second look is
/// held until the container is there, so that it does not matter how long that takes.
#[test]
fn a_container_that_appears_after_the_next_start_is_removed() {
    let stage = Stage::new();
    let proxy = Proxy::start(stage.engine.host());
    let builder = || stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.connected(builder());
    let creation = proxy.delay("/containers/create?name=oz-fill-", 1);
    let id = stage.plane.submit(stage.spec("true"));
    creation.wait(1);
    kill(worker);
    stage.plane.wait_ended(&id);

    let worker = stage.connected(builder());
    let look = proxy.delay("/containers/json", 1);
    look.wait(1);
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<Value>::new());
    creation.release();
    stage.wait("the container is there", || stage.engine.containers_of(&stage.worker_id).len() == 1);
    look.release();
    stage.wait_clean();
    worker.wait_log(DEADLINE, |line| {
        line.contains("created after its process ended") && line.contains("oz-fill-")
    });
    stage.stop(worker);
}

/// Kept for people, out of the way of the same task and of the next process, with what it has written.
#[test]
fn a_kept_container_is_reported_once_and_its_task_can_run_again() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let builder = || builder(&stage, &gate).args(["--no-cleanup"]);
    let worker = stage.connected(builder());
    let mut spec = stage.spec("cat /data/mine 2>/dev/null; echo run >> /data/mine; cat /data/mine; exit 3");
    spec.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/data", "read_write": true})];
    let id = stage.plane.submit(&spec);
    let assignment = stage.plane.wait_ended(&id).assignment;
    for count in 1..3 {
        stage.wait("they are kept", || kept(&stage).len() == count);
        stage
            .plane
            .wait_for(DEADLINE, |world| world.run(&id).is_some_and(|run| run.terminal_reports == count));
        if count < 2 {
            // It is answered with the report as long as the first execution is not wholly gone.
            worker.wait_log(DEADLINE, |line| line.contains("container kept"));
            stage.plane.send_text(json!({"type": "task_assignment", "data": assignment}).to_string());
        }
    }
    let reports = stage.plane.run(&id).history;
    let reports: Vec<_> = reports.iter().filter(|received| received.kind == "task_completed").collect();
    assert!(
        reports.iter().all(|report| told(&report.data) == (Some(3), None, Some("run\n"))),
        "{reports:#?}"
    );
    kill(worker);

    let worker = stage.connected(builder());
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
