//! What an operator finds out about failed tasks: the log's lines, and containers that are kept.

use serde_json::{Value, json};

use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::Worker;

fn kill(mut worker: Worker) {
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
}

/// Returns the names of this worker's containers.
fn containers(stage: &Stage) -> Vec<String> {
    let name = |container: &Value| container["Names"][0].as_str().unwrap_or_default().to_owned();
    stage.engine.containers_of(&stage.worker_id).iter().map(name).collect()
}

/// The time of the next process counts for the containers of an earlier one too.
#[test]
fn a_failed_container_stays_until_its_time_is_over_also_across_a_restart() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--keep-failed", "1h"]));
    let mut failing = stage.spec("echo why; echo run > /data/mine; exit 3");
    failing.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/data", "read_write": true})];
    let first = stage.run(&failing);
    assert_eq!(first.exit_code, Some(3));
    let is_kept = |line: &str| line.contains("container kept") && line.contains("keep_s=3600");
    worker.wait_log(DEADLINE, is_kept);
    stage.run(&stage.spec("true"));
    stage.wait(
        "only the failed container is left",
        || matches!(containers(&stage).as_slice(), [name] if name.starts_with("/oz-failed-")),
    );
    let kept = containers(&stage);
    kill(worker);

    let worker = stage.start(stage.worker().args(["--keep-failed", "2s"]));
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("adopted") || line.contains("removed")), "{log:#?}");
    assert_eq!(containers(&stage), kept);
    stage.run(&stage.spec("exit 4"));
    let is_over = |line: &&String| line.contains("container removed") && line.contains("kept long enough");
    stage.wait("both are removed", || worker.stderr().all().iter().filter(is_over).count() == 2);
    stage.wait("the task's own volume is removed", || {
        stage.engine.volumes_of(&stage.worker_id).iter().all(|name| name.starts_with("oz-sidecar-"))
    });
    stage.stop(worker);
}

/// A task that was cancelled has not failed.
#[test]
fn a_cancelled_container_is_not_kept() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--keep-failed", "1h"]));
    let id = stage.plane.submit(stage.spec("echo up; sleep 600"));
    worker.wait_log(DEADLINE, |line| line.contains("container started"));
    stage.plane.cancel(&id);
    stage.plane.wait_ended(&id);
    stage.stop(worker);
}

/// The values of a task's variables are secrets; a short one is not hidden.
#[test]
fn the_log_has_the_reason_and_the_last_lines_without_secrets() {
    const SECRET: &str = "hunter2-of-the-task";
    let stage = Stage::new();
    let args = ["--log-output-lines", "2", "-e", "MINE=of-the-operator", "--task-timeout", "3s"];
    let worker = stage.start(stage.worker().args(args));
    let mut spec = stage.spec("echo first; echo $TOKEN $MINE; echo $FLAG last; exit 3");
    spec.env_vars.insert("TOKEN".into(), SECRET.into());
    spec.env_vars.insert("FLAG".into(), "yes".into());
    let run = stage.run(&spec);
    assert_eq!(run.output.as_deref(), Some(&*format!("first\n{SECRET} of-the-operator\nyes last\n")));
    worker.wait_log(DEADLINE, |line| line.contains("WARN") && line.contains("line=\"yes last\""));
    let log = worker.stderr().all();
    let about = |words: &str| log.iter().filter(|line| line.contains(words)).cloned().collect::<Vec<_>>();
    let ended = about("task ended");
    assert!(
        ended[0].contains("WARN") && ended[0].contains("reason=container_exit exit_code=3 "),
        "{ended:?}"
    );
    let lines = about("task output");
    assert!(lines.len() == 2 && lines[0].contains("line=\"(hidden) (hidden)\""), "{lines:?}");
    assert!(about(SECRET).is_empty() && about("of-the-operator").is_empty(), "{log:#?}");

    stage.run(&stage.spec("echo fine"));
    let timed_out = stage.run(&stage.spec("echo slow; sleep 600"));
    let expected = "the task exceeded its time limit of 3 s (--task-timeout)";
    assert_eq!(timed_out.message.as_deref(), Some(expected));
    worker.wait_log(DEADLINE, |line| line.contains("reason=task_timeout") && line.contains("WARN"));
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("line=fine")), "a success is not logged: {log:#?}");
    stage.stop(worker);
}
