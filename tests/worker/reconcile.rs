//! Tasks whose runs have ended at the control plane, or that exceed the time limit, are found and stopped.

use serde_json::json;

use crate::support::control_plane::{Disconnect, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::Worker;

/// Returns a script that exits with 7 on SIGTERM and with 3 when the test releases it.
fn script() -> String {
    format!("trap 'exit 7' TERM; echo >> /sync/log; ({WAIT}; kill -USR1 $$) & trap 'exit 3' USR1; wait; wait")
}

fn started(stage: &Stage, sync: &SyncDir, args: &[&str]) -> Worker {
    let builder = stage.worker().args(["-v", &sync.mount(), "--log-level", "debug"]);
    stage.start(builder.args(args.iter().copied()))
}

fn running(stage: &Stage, sync: &SyncDir, count: usize) -> String {
    let id = stage.plane.submit(stage.spec(&script()));
    sync.wait_lines(stage, count);
    id
}

/// The periodic look-ups find the cancel, and so does the look-up after a reconnect.
#[test]
fn a_missed_cancel_is_found_by_look_ups() {
    for (interval, reconnects) in [("1s", false), ("1d", true)] {
        let stage = Stage::new();
        let sync = SyncDir::new();
        let worker = started(&stage, &sync, &["--reconcile-interval", interval, "--lost-runs", "finish"]);
        let id = running(&stage, &sync, 1);
        stage.plane.cancel_silently(&id);
        if reconnects {
            stage.plane.drop_connections(Disconnect::Rst);
        }
        let report = stage.plane.wait_message(&id, "task_failed").data;
        assert_eq!((&report["failure_reason"], &report["exit_code"]), (&json!("task_cancelled"), &json!(7)));
        assert_eq!(stage.plane.run(&id).state, State::Cancelled);
        stage.wait_clean();
        stage.stop(worker);
    }
}

/// The control plane fails the runs of a connection that ends. By default the worker then stops their tasks.
#[test]
fn a_run_that_the_control_plane_failed_is_stopped() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    // On a busy machine the look-up of the reconnect may come before the control plane has seen the end of the connection.
    let worker = started(&stage, &sync, &["--reconcile-interval", "5s"]);
    let id = running(&stage, &sync, 1);
    stage.plane.drop_connections(Disconnect::Fin);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_cancelled");
    assert_eq!(report["message"], "the run had already ended at the control plane");
    worker.wait_log(DEADLINE, |line| {
        line.contains(&format!("run is over at the control plane task={id} state=FAILED"))
    });
    stage.wait_clean();
    stage.stop(worker);
}

/// With `--lost-runs finish`, with failing look-ups, and without look-ups.
#[test]
fn a_run_continues_if_look_ups_fail_or_do_not_apply() {
    let cases: [(&[&str], Option<u16>); 3] = [
        (&["--lost-runs", "finish"], None),
        (&["--reconcile-interval", "1s"], Some(500)),
        (&["--reconcile-interval", "0"], None),
    ];
    for (args, failure) in cases {
        let stage = Stage::new();
        let sync = SyncDir::new();
        let worker = started(&stage, &sync, args);
        let id = running(&stage, &sync, 1);
        stage.plane.fail_rest_with(failure);
        stage.plane.drop_connections(Disconnect::Fin);
        stage.plane.wait_connected(2);
        match args {
            ["--lost-runs", _] => worker
                .wait_log(DEADLINE, |line| line.contains(&format!("run looked up task={id} state=FAILED"))),
            [_, "1s"] => worker.wait_log(DEADLINE, |line| line.contains("run look-up failed")),
            _ => worker.wait_log(DEADLINE, |line| line.contains(" connected ") && line.contains("epoch=2")),
        };
        // Another task from start to end gives a mistake time to show.
        let other = stage.run(&stage.spec("true"));
        assert_eq!(other.state, State::Succeeded);
        sync.release(1);
        assert_eq!(stage.plane.wait_message(&id, "task_completed").data["exit_code"], 3);
        // The containers stay until the state of their runs is known.
        stage.plane.fail_rest_with(None);
        stage.wait_clean();
        stage.stop(worker);
    }
}

#[test]
fn a_task_over_its_time_limit_is_stopped() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, &["--task-timeout", "5s"]);
    let id = stage.plane.submit(stage.spec("echo begun; trap 'exit 7' TERM; sleep 1000 & wait"));
    let report = stage.plane.wait_message(&id, "task_failed").data;
    let expected = (&json!("task_timeout"), &json!(7), &json!("begun\n"));
    assert_eq!((&report["failure_reason"], &report["exit_code"], &report["output"]), expected);
    stage.wait_clean();
    stage.stop(worker);
}

/// The time includes the time under an earlier process.
#[test]
fn an_adopted_task_over_its_time_limit_is_stopped() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, &["--task-timeout", "1h"]);
    let id = running(&stage, &sync, 1);
    drop(worker);
    let next = started(&stage, &sync, &["--task-timeout", "1s", "--reconcile-interval", "0"]);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_timeout");
    stage.wait_clean();
    stage.stop(next);
}

/// The registry or the engine does not get on, so that no limit on silence or on one call applies.
#[test]
fn a_preparation_over_the_time_limit_fails_with_its_step() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    for (policy, call, reason) in
        [("always", "/images/create", "image_pull"), ("missing", "/export", "sidecar_prep")]
    {
        let hold = proxy.hold(call, usize::MAX);
        let builder = stage.worker_pulling(policy).env("DOCKER_HOST", &proxy.host());
        let worker = stage.start(builder.args(["--task-timeout", "5s"]));
        let id = stage.plane.submit(stage.spec("true"));
        let report = stage.plane.wait_message(&id, "task_failed").data;
        assert_eq!(report["failure_reason"], reason, "{report}");
        let message = report["message"].as_str().unwrap();
        assert!(message.contains("longer than --task-timeout"), "{message}");
        let line = format!("task preparation timed out task={id} limit_s=5");
        worker.wait_log(DEADLINE, |log| log.contains(&line));
        hold.release();
        stage.wait_clean();
        stage.stop(worker);
    }
}
