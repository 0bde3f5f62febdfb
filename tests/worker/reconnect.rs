//! Lost connections: no task is started twice or lost, and every report arrives.

use std::time::Duration;

use serde_json::json;

use crate::support::control_plane::{Disconnect, Model, Run, State};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::Worker;

/// Starts a worker with `slots` slots, the sync folder and `--lost-runs finish`.
fn started(stage: &Stage, sync: &SyncDir, slots: usize) -> Worker {
    let (slots, mount) = (slots.to_string(), sync.mount());
    let args = ["--max-concurrent-tasks", &slots, "--log-level", "debug", "-v", &mount];
    stage.start(stage.worker().args(args).args(["--lost-runs", "finish"]))
}

/// Waits for `count` log lines about an event.
fn wait_events(worker: &Worker, event: &str, count: usize) {
    let mut seen = 0;
    worker.wait_log(DEADLINE, |line| {
        seen += usize::from(line.contains(event));
        seen == count
    });
}

/// Returns the numbers of the connections on which messages of this type arrived for a run.
fn connections_of(run: &Run, kind: &str) -> Vec<usize> {
    run.history.iter().filter(|received| received.kind == kind).map(|received| received.connection).collect()
}

/// Returns the assignment of a run as a message.
fn assignment(run: &Run) -> String {
    json!({"type": "task_assignment", "data": run.assignment}).to_string()
}

/// The control plane never received the claims and sends the runs again: the prepared containers are dropped.
#[test]
fn a_claim_that_was_not_confirmed_is_dropped_and_made_again() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, 2);
    stage.plane.hold_pongs(true);
    let submit = || stage.plane.submit(stage.spec("echo $TASK_ID >> /sync/log"));
    let first = submit();
    wait_events(&worker, "container created", 1);
    // While the second runs, a mistake would start the first.
    let second = submit();
    wait_events(&worker, "container created", 2);
    assert_eq!(sync.lines(), Vec::<String>::new());
    stage.plane.drop_connections(Disconnect::Rst);
    wait_events(&worker, "claim lost", 2);
    for id in [&first, &second] {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.state, run.deliveries, run.terminal_reports), (State::Succeeded, 2, 1));
        assert_eq!(connections_of(&run, "task_claimed"), [2]);
    }
    let started = sync.lines();
    assert!(started.len() == 2 && started.contains(&first) && started.contains(&second), "{started:?}");
    stage.wait_clean();
    stage.stop(worker);
}

/// The run comes again while its former execution is still ending and holds the only slot.
#[test]
fn a_dropped_claim_whose_pull_failed_meanwhile_is_made_again_on_one_slot() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, 1);
    stage.plane.hold_pongs(true);
    let mut spec = stage.spec("");
    spec.docker_image = Some("oz-no-such-image:1".into());
    let id = stage.plane.submit(&spec);
    wait_events(&worker, "task ended", 1);
    stage.plane.drop_connections(Disconnect::Rst);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.failure_reason.as_deref(), run.terminal_reports), (Some("image_pull"), 1));
    assert_eq!(
        (connections_of(&run, "task_claimed"), connections_of(&run, "task_failed")),
        (vec![2], vec![2])
    );
    stage.stop(worker);
}

/// The control plane has failed the run with the connection, and still receives its report.
#[test]
fn a_running_task_continues_and_reports_on_the_next_connection() {
    for how in [Disconnect::Fin, Disconnect::Close1001] {
        let stage = Stage::new();
        let sync = SyncDir::new();
        let worker = started(&stage, &sync, 2);
        let script = format!("echo >> /sync/log; {WAIT}; echo done; exit 3");
        let id = stage.plane.submit(stage.spec(&script));
        sync.wait_lines(&stage, 1);
        stage.plane.drop_connections(how);
        assert_eq!(stage.plane.wait_ended(&id).message.as_deref(), Some("the worker disconnected"));
        stage.plane.wait_connected(2);
        assert_eq!(stage.wait_running(&id)["State"]["Running"], true);
        sync.release(1);
        let report = stage.plane.wait_message(&id, "task_completed");
        assert_eq!((report.connection, &report.data["exit_code"]), (2, &json!(3)));
        assert_eq!((&report.data["output"], sync.lines().len()), (&json!("done\n"), 1));
        stage.wait_clean();
        stage.stop(worker);
    }
}

/// All reports are sent on a connection that the peer does not read, and arrive on the next connection.
#[test]
fn twenty_unconfirmed_reports_arrive_on_the_next_connection() {
    const MANY: usize = 20;
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, MANY);
    let script = format!("echo >> /sync/log; {WAIT}; echo $TASK_ID");
    let ids: Vec<String> = (0..MANY).map(|_| stage.plane.submit(stage.spec(&script))).collect();
    sync.wait_lines(&stage, MANY);
    stage.plane.hold_pongs(true);
    sync.release(MANY);
    wait_events(&worker, "type=task_completed", MANY);
    stage.plane.drop_connections(Disconnect::Rst);
    for id in &ids {
        let report = stage.plane.wait_message(id, "task_completed");
        assert_eq!((report.connection, &report.data["output"]), (2, &json!(format!("{id}\n"))));
    }
    stage.wait_clean();
    stage.stop(worker);
    let runs = stage.plane.runs();
    let once = runs.iter().filter(|run| (run.claims, run.terminal_reports) == (1, 1)).count();
    assert_eq!(once, MANY, "each has one claim and one report: {runs:#?}");
}

/// Tasks in the backlog are not claimed, so the control plane sends them again.
#[test]
fn the_backlog_is_dropped_and_sent_again() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, 1);
    let script = format!("echo $TASK_ID >> /sync/log; {WAIT}");
    let first = stage.plane.submit(stage.spec(&script));
    sync.wait_lines(&stage, 1);
    let mut others: Vec<String> = (0..3).map(|_| stage.plane.submit(stage.spec(&script))).collect();
    wait_events(&worker, "assignment received", 4);
    stage.plane.refuse_with(Some(503));
    stage.plane.drop_connections(Disconnect::Fin);
    wait_events(&worker, "assignment dropped", 3);
    // The first of them is not sent again, as if another worker had received it.
    let cancelled = others.remove(0);
    stage.plane.cancel(&cancelled);
    stage.plane.refuse_with(None);
    stage.plane.wait_connected(2);
    sync.release(4);
    stage.plane.wait_message(&first, "task_completed");
    for id in &others {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.state, run.deliveries, run.claims), (State::Succeeded, 2, 1));
    }
    stage.wait_clean();
    let started = sync.lines();
    assert_eq!((started.len(), &started[0]), (3, &first), "{started:?}");
    assert!(!started.contains(&cancelled));
    stage.stop(worker);
}

/// The assignment is answered with the task's claim or report.
#[test]
fn a_repeated_assignment_is_answered_and_starts_nothing() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, 2);
    let script = format!("echo >> /sync/log; {WAIT}; exit 3");
    let id = stage.plane.submit(stage.spec(&script));
    sync.wait_lines(&stage, 1);
    let assignment = assignment(&stage.plane.run(&id));
    stage.plane.send_text(assignment.clone());
    stage.plane.wait_for(DEADLINE, |model| model.run(&id).is_some_and(|run| run.claims == 2));
    stage.plane.hold_pongs(true);
    sync.release(1);
    wait_events(&worker, "type=task_completed", 1);
    stage.plane.send_text(assignment);
    // The report was sent on this connection, so it is not sent again.
    wait_events(&worker, "assignment repeated", 2);
    stage.plane.hold_pongs(false);
    stage.wait_clean();
    stage.stop(worker);
    let run = stage.plane.run(&id);
    assert_eq!((sync.lines().len(), run.claims, run.terminal_reports), (1, 2, 1));
}

/// This happens when a claim takes longer than the control plane's time-out.
#[test]
fn a_repeated_assignment_in_the_backlog_is_queued_once() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, 1);
    let script = format!("echo $TASK_ID >> /sync/log; {WAIT}");
    let ids = [0, 1].map(|_| stage.plane.submit(stage.spec(&script)));
    sync.wait_lines(&stage, 1);
    stage.plane.send_text(assignment(&stage.plane.run(&ids[1])));
    wait_events(&worker, "assignment repeated", 1);
    sync.release(3);
    ids.iter().for_each(|id| assert_eq!(stage.plane.wait_ended(id).state, State::Succeeded));
    stage.stop(worker);
    assert_eq!(sync.lines(), ids);
}

/// With pauses of 1, 2 and 4 s few connections fit into any 4 s.
#[test]
fn a_control_plane_that_accepts_and_closes_is_retried_with_back_off() {
    let stage = Stage::new();
    stage.plane.accept_and_close(true);
    let worker = stage.worker().start();
    let many = |model: &Model| model.connections.len() > 4;
    assert!(!stage.plane.holds_within(Duration::from_secs(4), many), "no back-off");
    assert!(stage.plane.connections() > 1, "no retry");
    stage.stop(worker);
}

/// As a proxy does while the control plane is replaced.
#[test]
fn error_pages_during_an_outage_stop_no_task() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = started(&stage, &sync, 1);
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; echo done; exit 3")));
    sync.wait_lines(&stage, 1);
    for (attempts, status) in [(2, 404), (3, 401)] {
        stage.plane.refuse_with(Some(status));
        if attempts == 2 {
            stage.plane.drop_connections(Disconnect::Rst);
        }
        stage.plane.wait_for(DEADLINE, |model| model.attempts == attempts);
        worker.wait_log(DEADLINE, |line| {
            let refused = line.contains("WARN") && line.contains("link refused");
            refused && line.contains(&format!("answered {status}: ")) && line.contains("tasks=1")
        });
    }
    stage.plane.refuse_with(None);
    stage.plane.wait_connected(2);
    assert_eq!(stage.wait_running(&id)["State"]["Running"], true);
    sync.release(1);
    let report = stage.plane.wait_message(&id, "task_completed");
    assert_eq!((report.connection, &report.data["exit_code"]), (2, &json!(3)));
    stage.wait_clean();
    stage.stop(worker);
}

/// REST uses the new key too: it finds a cancel that the worker has missed.
#[test]
fn a_key_that_is_changed_during_an_outage_is_used_without_a_restart() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, stage.plane.key()).unwrap();
    let builder = stage.worker().env_remove("OZ_API_KEY").env("OZ_API_KEY_FILE", file.to_str().unwrap());
    let worker = stage.start(builder.args(["-v", &sync.mount(), "--lost-runs", "finish"]));
    let script = format!("echo >> /sync/log; {WAIT}; echo done");
    let [finished, cancelled] = [0, 1].map(|_| stage.plane.submit(stage.spec(&script)));
    sync.wait_lines(&stage, 2);
    stage.plane.change_key("the-new-key");
    // An operator who replaces the file in place may leave it empty for a moment.
    std::fs::write(&file, "").unwrap();
    stage.plane.cancel_silently(&cancelled);
    stage.plane.drop_connections(Disconnect::Rst);
    worker.wait_log(DEADLINE, |line| line.contains("WARN") && line.contains("key not read again"));
    worker.wait_log(DEADLINE, |line| line.contains("WARN") && line.contains("link refused"));
    std::fs::write(&file, "the-new-key\n").unwrap();
    stage.plane.wait_connected(2);
    let report = stage.plane.wait_message(&cancelled, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_cancelled");
    sync.release(2);
    assert_eq!(stage.plane.wait_message(&finished, "task_completed").data["exit_code"], json!(0));
    stage.wait_clean();
    let log = worker.stderr().all().join("\n");
    assert!(!log.contains("the-new-key") && !log.contains(stage.plane.key()), "{log}");
    stage.stop(worker);
}
