//! Runs that are over at the control plane, or have run for too long, while they go on here: found, and ended.

use serde_json::json;

use super::gate::{Gate, PASS};
use super::{DEADLINE, Stage};
use crate::support::control_plane::{How, State};
use crate::support::worker::Worker;

/// Ends with 7 when it is told to, with 3 when the gate opens.
fn script() -> String {
    format!("trap 'exit 7' TERM; echo >> /gate/log; ({PASS}; kill -USR1 $$) & trap 'exit 3' USR1; wait; wait")
}

fn started(stage: &Stage, gate: &Gate, args: &[&str]) -> Worker {
    let builder = stage.worker().args(["-v", &gate.mount(), "--log-level", "debug"]);
    stage.connected(builder.args(args.iter().copied()))
}

fn running(stage: &Stage, gate: &Gate, count: usize) -> String {
    let id = stage.plane.submit(stage.spec(&script()));
    gate.wait_told(stage, count);
    id
}

/// A cancel whose message was lost is found by asking: from time to time, and right after a reconnect.
#[test]
fn a_cancel_that_was_missed() {
    for (interval, reconnects) in [("1s", false), ("1d", true)] {
        let (stage, gate) = (Stage::new(), Gate::new());
        let worker = started(&stage, &gate, &["--reconcile-interval", interval, "--lost-runs", "finish"]);
        let id = running(&stage, &gate, 1);
        stage.plane.cancel_unheard(&id);
        if reconnects {
            stage.plane.drop_connections(How::Rst);
        }
        let report = stage.plane.wait_message(&id, "task_failed").data;
        assert_eq!((&report["failure_reason"], &report["exit_code"]), (&json!("task_cancelled"), &json!(7)));
        assert_eq!(stage.plane.run(&id).state, State::Cancelled);
        stage.wait_clean();
        stage.stop(worker);
    }
}

/// The control plane fails the runs of a connection that ends. By default that is the end of them here too.
#[test]
fn a_run_that_was_given_up_is_stopped() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, &[]);
    let id = running(&stage, &gate, 1);
    stage.plane.drop_connections(How::Fin);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_cancelled");
    assert_eq!(report["message"], "the run had already ended at the control plane");
    worker.wait_log(DEADLINE, |line| {
        line.contains(&format!("run is over at the control plane task={id} state=FAILED"))
    });
    stage.wait_clean();
    stage.stop(worker);
}

/// With `finish` it goes on, and so does any run when the control plane gives no answer, or is never asked.
#[test]
fn a_run_goes_on_when_the_answer_is_none_or_does_not_count() {
    let cases: [(&[&str], Option<u16>); 3] = [
        (&["--lost-runs", "finish"], None),
        (&["--reconcile-interval", "1s"], Some(500)),
        (&["--reconcile-interval", "0"], None),
    ];
    for (args, failure) in cases {
        let (stage, gate) = (Stage::new(), Gate::new());
        let worker = started(&stage, &gate, args);
        let id = running(&stage, &gate, 1);
        stage.plane.fail_rest_with(failure);
        stage.plane.drop_connections(How::Fin);
        stage.plane.wait_connected(2);
        match args {
            ["--lost-runs", _] => worker
                .wait_log(DEADLINE, |line| line.contains(&format!("run looked up task={id} state=FAILED"))),
            [_, "1s"] => worker.wait_log(DEADLINE, |line| line.contains("run look-up failed")),
            _ => worker.wait_log(DEADLINE, |line| line.contains(" connected ") && line.contains("epoch=2")),
        };
        // A task that runs from its beginning to its end meanwhile gives an error all the time to show.
        let other = stage.run(&stage.spec("true"));
        assert_eq!(other.state, State::Succeeded);
        gate.open(1);
        assert_eq!(stage.plane.wait_message(&id, "task_completed").data["exit_code"], 3);
        stage.wait_clean();
        stage.stop(worker);
    }
}

#[test]
fn a_task_that_runs_too_long_is_stopped() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, &["--task-timeout", "2s"]);
    let id = stage.plane.submit(stage.spec("echo begun; trap 'exit 7' TERM; sleep 1000 & wait"));
    let report = stage.plane.wait_message(&id, "task_failed").data;
    let expected = (&json!("task_timeout"), &json!(7), &json!("begun\n"));
    assert_eq!((&report["failure_reason"], &report["exit_code"], &report["output"]), expected);
    stage.wait_clean();
    stage.stop(worker);
}

/// The time goes on while no worker is there: the next one finds that it has run out.
#[test]
fn a_task_that_has_run_too_long_under_an_earlier_process_is_stopped() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, &["--task-timeout", "1h"]);
    let id = running(&stage, &gate, 1);
    drop(worker);
    let next = started(&stage, &gate, &["--task-timeout", "1s", "--reconcile-interval", "0"]);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_timeout");
    stage.wait_clean();
    stage.stop(next);
}
