//! Lost connections: no run is started twice or lost, and every report arrives.

use std::time::Duration;

use serde_json::json;

use super::gate::{Gate, PASS};
use super::{DEADLINE, Stage};
use crate::support::control_plane::{How, Run, State};
use crate::support::worker::Worker;

/// A worker with so many slots, whose tasks see the gate, and which tells everything. What the control plane has failed
/// goes on.
fn started(stage: &Stage, gate: &Gate, slots: usize) -> Worker {
    let (slots, mount) = (slots.to_string(), gate.mount());
    let args = ["--max-concurrent-tasks", &slots, "--log-level", "debug", "-v", &mount];
    stage.connected(stage.worker().args(args).args(["--lost-runs", "finish"]))
}

/// Waits for so many lines about an event.
fn wait_events(worker: &Worker, event: &str, count: usize) {
    let mut seen = 0;
    worker.wait_log(DEADLINE, |line| {
        seen += usize::from(line.contains(event));
        seen == count
    });
}

/// The numbers of the connections on which messages of this type have come for a run.
fn came_on(run: &Run, kind: &str) -> Vec<usize> {
    run.history.iter().filter(|received| received.kind == kind).map(|received| received.connection).collect()
}

fn repeated(run: &Run) -> String {
    json!({"type": "task_assignment", "data": run.assignment}).to_string()
}

/// The control plane never got the claim and gives the run away again: what was prepared for it is dropped.
#[test]
fn before_the_claim_is_confirmed() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, 2);
    stage.plane.hold_pongs(true);
    let submit = || stage.plane.submit(stage.spec("echo $TASK_ID >> /gate/log"));
    let first = submit();
    wait_events(&worker, "container created", 1);
    // The second gives the first all the time to be started in error.
    let second = submit();
    wait_events(&worker, "container created", 2);
    assert_eq!(gate.told(), Vec::<String>::new());
    stage.plane.drop_connections(How::Rst);
    wait_events(&worker, "claim lost", 2);
    for id in [&first, &second] {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.state, run.deliveries, run.terminal_reports), (State::Succeeded, 2, 1));
        assert_eq!(came_on(&run, "task_claimed"), [2]);
    }
    let told = gate.told();
    assert!(told.len() == 2 && told.contains(&first) && told.contains(&second), "{told:?}");
    stage.wait_clean();
    stage.stop(worker);
}

/// Nor is it lost when it waits while its former execution, which is void, is still on its way out.
#[test]
fn before_the_claim_is_confirmed_with_one_slot_and_a_pull_that_failed_meanwhile() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, 1);
    stage.plane.hold_pongs(true);
    let mut spec = stage.spec("");
    spec.docker_image = Some("oz-no-such-image:1".into());
    let id = stage.plane.submit(&spec);
    wait_events(&worker, "task ended", 1);
    stage.plane.drop_connections(How::Rst);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.failure_reason.as_deref(), run.terminal_reports), (Some("image_pull"), 1));
    assert_eq!((came_on(&run, "task_claimed"), came_on(&run, "task_failed")), (vec![2], vec![2]));
    stage.stop(worker);
}

/// The control plane calls it failed, and gets its report all the same.
#[test]
fn while_a_task_runs() {
    for how in [How::Fin, How::Close1001] {
        let (stage, gate) = (Stage::new(), Gate::new());
        let worker = started(&stage, &gate, 2);
        let script = format!("echo >> /gate/log; {PASS}; echo done; exit 3");
        let id = stage.plane.submit(stage.spec(&script));
        gate.wait_told(&stage, 1);
        stage.plane.drop_connections(how);
        assert_eq!(stage.plane.wait_ended(&id).message.as_deref(), Some("the worker disconnected"));
        stage.plane.wait_connected(2);
        assert_eq!(stage.running(&id)["State"]["Running"], true);
        gate.open(1);
        let report = stage.plane.wait_message(&id, "task_completed");
        assert_eq!((report.connection, &report.data["exit_code"]), (2, &json!(3)));
        assert_eq!((&report.data["output"], gate.told().len()), (&json!("done\n"), 1));
        stage.wait_clean();
        stage.stop(worker);
    }
}

/// All reports go into a connection that nobody reads any more, and come on the next one. Counts: 20 of 20.
#[test]
fn while_twenty_reports_are_on_their_way() {
    const MANY: usize = 20;
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, MANY);
    let script = format!("echo >> /gate/log; {PASS}; echo $TASK_ID");
    let ids: Vec<String> = (0..MANY).map(|_| stage.plane.submit(stage.spec(&script))).collect();
    gate.wait_told(&stage, MANY);
    stage.plane.hold_pongs(true);
    gate.open(MANY);
    wait_events(&worker, "type=task_completed", MANY);
    stage.plane.drop_connections(How::Rst);
    for id in &ids {
        let report = stage.plane.wait_message(id, "task_completed");
        assert_eq!((report.connection, &report.data["output"]), (2, &json!(format!("{id}\n"))));
    }
    stage.wait_clean();
    stage.stop(worker);
    let runs = stage.plane.runs();
    let once = runs.iter().filter(|run| (run.claims, run.terminal_reports) == (1, 1)).count();
    assert_eq!(once, MANY, "of {MANY} reports: {runs:#?}");
}

/// What waits belongs to the control plane: it is forgotten, and served when it comes again.
#[test]
fn while_others_wait_for_a_slot() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, 1);
    let script = format!("echo $TASK_ID >> /gate/log; {PASS}");
    let first = stage.plane.submit(stage.spec(&script));
    gate.wait_told(&stage, 1);
    let mut others: Vec<String> = (0..3).map(|_| stage.plane.submit(stage.spec(&script))).collect();
    wait_events(&worker, "assignment received", 4);
    stage.plane.refuse_with(Some(503));
    stage.plane.drop_connections(How::Fin);
    wait_events(&worker, "assignment dropped", 3);
    // Of this one, the next in turn, the worker never hears again, as when it was given to another.
    let gone = others.remove(0);
    stage.plane.cancel(&gone);
    stage.plane.refuse_with(None);
    stage.plane.wait_connected(2);
    gate.open(4);
    stage.plane.wait_message(&first, "task_completed");
    for id in &others {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.state, run.deliveries, run.claims), (State::Succeeded, 2, 1));
    }
    stage.wait_clean();
    let told = gate.told();
    assert_eq!((told.len(), &told[0]), (3, &first), "{told:?}");
    assert!(!told.contains(&gone));
    stage.stop(worker);
}

/// An assignment that comes again is answered with the task's state, whatever that is.
#[test]
fn a_repeated_assignment_is_answered_and_starts_nothing() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, 2);
    let script = format!("echo >> /gate/log; {PASS}; exit 3");
    let id = stage.plane.submit(stage.spec(&script));
    gate.wait_told(&stage, 1);
    let assignment = repeated(&stage.plane.run(&id));
    stage.plane.send_text(assignment.clone());
    stage.plane.wait_for(DEADLINE, |world| world.run(&id).is_some_and(|run| run.claims == 2));
    stage.plane.hold_pongs(true);
    gate.open(1);
    wait_events(&worker, "type=task_completed", 1);
    stage.plane.send_text(assignment);
    // The report is on its way: to send it twice on one connection would make nothing surer.
    wait_events(&worker, "assignment repeated", 2);
    stage.plane.hold_pongs(false);
    stage.wait_clean();
    stage.stop(worker);
    let run = stage.plane.run(&id);
    assert_eq!((gate.told().len(), run.claims, run.terminal_reports), (1, 2, 1));
}

/// As when a claim takes longer than the control plane waits for it.
#[test]
fn a_repeated_assignment_that_waits_is_not_taken_twice() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = started(&stage, &gate, 1);
    let script = format!("echo $TASK_ID >> /gate/log; {PASS}");
    let ids = [0, 1].map(|_| stage.plane.submit(stage.spec(&script)));
    gate.wait_told(&stage, 1);
    stage.plane.send_text(repeated(&stage.plane.run(&ids[1])));
    wait_events(&worker, "assignment repeated", 1);
    gate.open(3);
    ids.iter().for_each(|id| assert_eq!(stage.plane.wait_ended(id).state, State::Succeeded));
    stage.stop(worker);
    assert_eq!(gate.told(), ids);
}

/// A count, not a timing: at 1, 2 and 4 s and more between them few connections fit into any such time.
#[test]
fn a_control_plane_that_accepts_and_closes_is_not_hammered() {
    let stage = Stage::new();
    stage.plane.accept_and_close(true);
    let worker = stage.worker().start();
    let many = |world: &crate::support::control_plane::World| world.connections.len() > 4;
    assert!(!stage.plane.holds_within(Duration::from_secs(4), many), "a tight loop");
    assert!(stage.plane.connections() > 1, "it has tried again");
    stage.stop(worker);
}

/// The link ends for good while there is work: the task is stopped, and the code is that of the refusal. What it could not
/// report the next process does, as what it was.
#[test]
fn a_refusal_for_good_stops_what_runs_and_gives_its_code() {
    let stage = Stage::new();
    let mut worker = stage.started();
    let id = stage.plane.submit(stage.spec("trap 'exit 0' TERM; while :; do sleep 0.1; done"));
    stage.running(&id);
    stage.plane.refuse_with(Some(401));
    stage.plane.drop_connections(How::Rst);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(3), "{:#?}", worker.stderr().all());
    assert_eq!(stage.engine.containers_of(&stage.worker_id)[0]["State"], "exited");
    stage.plane.refuse_with(None);
    let next = stage.started();
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!((&report["failure_reason"], &report["exit_code"]), (&json!("graceful_shutdown"), &json!(0)));
    stage.wait_clean();
    stage.stop(next);
}
