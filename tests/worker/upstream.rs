//! Whole tasks at the public control plane: a real engine, and the stand-in that records what that control plane's own worker would
//! never send.

use serde_json::{Value, json};

use crate::support::control_plane::model::Ended;
use crate::support::control_plane::{Dialect, Disconnect, Options, Run, State};
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{Worker, WorkerBuilder};

fn stage() -> Stage {
    Stage::with(Options { dialect: Dialect::Upstream, ..Options::default() })
}

fn builder(stage: &Stage, sync: &SyncDir) -> WorkerBuilder {
    stage.worker().args(["-v", &sync.mount(), "--log-level", "debug"])
}

/// Returns the id of the last execution of a task.
fn execution(stage: &Stage, id: &str) -> String {
    stage.plane.run(id).execution.expect("an execution")
}

/// Returns the types of the messages about an execution, in order.
fn kinds(run: &Run) -> Vec<&str> {
    run.history.iter().map(|received| received.kind.as_str()).collect()
}

fn end(mut worker: Worker) {
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
}

#[test]
fn each_kind_of_end_has_the_message_that_this_control_plane_expects() {
    let stage = stage();
    let worker = stage.start_worker();
    let success = stage.run(&stage.spec("echo out"));
    assert_eq!((success.state, success.exit_code), (State::Succeeded, None), "{success:#?}");
    let failure = stage.run(&stage.spec("exit 3"));
    assert_eq!((failure.failure_reason.as_deref(), failure.exit_code), (Some("container_exit"), Some(3)));
    let mut spec = stage.spec("echo never");
    spec.docker_image = Some("oz-none.invalid/none:1".to_owned());
    let failure = stage.run(&spec);
    assert_eq!((failure.failure_reason.as_deref(), failure.exit_code), (Some("image_pull"), None));
    // Not a reason of this control plane.
    let mut data = stage.spec("echo never").upstream_assignment("invalid", "1");
    data["additional_oz_args"] = json!("none");
    let id = stage.plane.submit_raw(&data).unwrap();
    let failure = stage.plane.wait_ended(&id);
    assert_eq!(failure.failure_reason.as_deref(), Some("unknown"), "{failure:#?}");
    assert!(failure.message.unwrap().contains("additional_oz_args"));
    stage.stop(worker);
}

#[test]
fn a_second_execution_of_a_task_runs_beside_the_first() {
    let stage = stage();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}")));
    let first = execution(&stage, &id);
    sync.wait_lines(&stage, 1);
    let second = stage.plane.launch_again(&id);
    sync.wait_lines(&stage, 2);
    assert_eq!(stage.engine.containers("label", &format!("oz-task-id={id}")).len(), 2);
    sync.release(2);
    let runs = [&first, &second].map(|one| stage.plane.wait_execution_ended(&id, one));
    assert!(runs.iter().all(|run| run.state == State::Succeeded && run.claims == 1), "{runs:#?}");
    // And again after the end, as for a follow-up.
    sync.release(1);
    let third = stage.plane.launch_again(&id);
    assert_eq!(stage.plane.wait_execution_ended(&id, &third).state, State::Succeeded);
    stage.wait_clean();
    stage.stop(worker);
}

/// The task stops within its grace time, and `execution_closed` follows the removal of the container.
#[test]
fn a_cancel_ends_the_execution_that_it_names_and_is_confirmed() {
    let stage = stage();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let script = "trap 'echo bye >> /sync/log; exit 9' TERM; echo >> /sync/log; sleep 999 & wait";
    let id = stage.plane.submit(stage.spec(script));
    let first = execution(&stage, &id);
    sync.wait_lines(&stage, 1);
    let second = stage.plane.launch_again(&id);
    sync.wait_lines(&stage, 2);
    stage.plane.cancel_execution(&id, &first);
    let run = stage.plane.wait_execution_ended(&id, &first);
    assert_eq!(run.state, State::Cancelled);
    assert_eq!(sync.lines(), ["", "", "bye"], "it got TERM");
    stage.plane.wait_for(DEADLINE, |model| {
        model.execution(&id, &first).is_some_and(|run| kinds(run).contains(&"execution_closed"))
    });
    let left = stage.engine.containers("label", &format!("oz-task-id={id}"));
    assert_eq!(left.len(), 1, "that of the other execution: {left:#?}");
    assert_eq!(left[0]["Labels"]["oz-execution-id"], second.as_str());
    // A cancel that names no execution ends all that are left, and asks for no confirmation.
    stage.plane.cancel(&id);
    let run = stage.plane.wait_execution_ended(&id, &second);
    assert_eq!(run.state, State::Cancelled);
    stage.wait_clean();
    stage.stop(worker);
    let all = stage.plane.messages();
    assert_eq!(all.iter().filter(|message| message.kind == "execution_closed").count(), 1, "{all:#?}");
}

/// The agent's conversation has ended, and the agent waits for follow-ups.
#[test]
fn a_task_continues_although_the_control_plane_says_succeeded() {
    let stage = stage();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync).args(["--reconcile-interval", "1s"]));
    let script = format!("echo >> /sync/log; {WAIT}; exit 3");
    let id = stage.plane.submit(stage.spec(&script));
    sync.wait_lines(&stage, 1);
    for state in [State::Succeeded, State::Cancelled] {
        stage.plane.set_agent_state(&id, state);
        // The old control plane is asked after a reconnect.
        let before = stage.plane.connections();
        stage.plane.drop_connections(Disconnect::Rst);
        stage.plane.wait_connected(before + 1);
        assert_eq!(stage.run(&stage.spec("echo barrier")).state, State::Succeeded);
        assert_eq!(stage.plane.run(&id).state, State::InProgress);
    }
    sync.release(1);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.failure_reason.as_deref(), run.exit_code), (Some("container_exit"), Some(3)), "{run:#?}");
    let asked = stage.plane.view(|model| model.requests.clone());
    assert!(asked.iter().all(|request| !request.contains("/agent/runs/")), "{asked:?}");
    stage.stop(worker);
}

/// Both have one slot. A run that one rejects is sent to the other, and a run that both reject waits at the control plane.
#[test]
fn two_workers_with_one_id_share_the_runs() {
    let stage = stage();
    let sync = SyncDir::new();
    let builder = || builder(&stage, &sync).args(["--shared-id", "--max-concurrent-tasks", "1"]);
    let (first, second) = (stage.start(builder()), stage.start(builder()));
    let script = format!("echo >> /sync/log; {WAIT}; echo out");
    let running = [(); 2].map(|()| stage.plane.submit(stage.spec(&script)));
    sync.wait_lines(&stage, 2);
    let connection = |id: &String| stage.plane.run(id).connection;
    assert_ne!(connection(&running[0]), connection(&running[1]), "one task each");
    let third = stage.plane.submit(stage.spec(&script));
    let rejections = |run: &Run| kinds(run).iter().filter(|kind| **kind == "task_rejected").count();
    stage.plane.wait_for(DEADLINE, |model| model.run(&third).is_some_and(|run| rejections(run) >= 2));
    let reason = stage.plane.wait_message(&third, "task_rejected").data["reason"].clone();
    assert_eq!(reason, "worker at maximum concurrency");
    assert_eq!(stage.plane.run(&third).claims, 0);
    sync.release(1);
    sync.wait_lines(&stage, 3);
    // The end of one worker ends its own task only.
    let ours =
        |one: &Worker| one.stderr().all().iter().filter(|line| line.contains("container started")).count();
    stage.wait("each task was started once", || ours(&first) + ours(&second) == 3);
    let of_second = stage.plane.view(|model| {
        let open = model.runs.iter().filter(|run| run.state == State::InProgress);
        open.map(|run| (run.id.clone(), run.connection)).collect::<Vec<_>>()
    });
    assert_eq!(of_second.len(), 2);
    end(second);
    let stopped: Vec<_> = of_second.iter().filter(|(_, connection)| *connection == Some(2)).collect();
    for (id, _) in &stopped {
        assert_eq!(stage.plane.wait_ended(id).failure_reason.as_deref(), Some("graceful_shutdown"));
    }
    sync.release(2);
    for (id, _) in of_second.iter().filter(|(_, connection)| *connection == Some(1)) {
        assert_eq!(stage.plane.wait_ended(id).state, State::Succeeded);
    }
    stage.wait_clean();
    stage.stop(first);
}

#[test]
fn a_stop_reports_the_tasks_and_closes_the_connection_with_1000() {
    let stage = stage();
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync));
    let id = stage.plane.submit(stage.spec("echo >> /sync/log; sleep 999"));
    sync.wait_lines(&stage, 1);
    end(worker);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.failure_reason.as_deref(), run.exit_code), (Some("graceful_shutdown"), None));
    stage.plane.wait_for(DEADLINE, |model| model.connected() == 0);
    assert_eq!(stage.plane.view(|model| model.connections[0].ended), Some(Ended::Closed(Some(1000))));
    stage.plane.assert_no_violations();
}

/// A host without access to the registries that the assignments name.
#[test]
fn the_operator_s_images_are_used_in_place_of_those_of_the_assignment() {
    let stage = stage();
    let images = [
        "--default-image",
        &stage.task_image,
        "--sidecar-image",
        &stage.sidecar_image,
        "--backend",
        "docker",
    ];
    let worker = stage.start(stage.worker().args(images));
    let mut spec = stage.spec("[ $IMAGE = task ]");
    spec.docker_image = None;
    spec.sidecar_image = "oz-none.invalid/agent:1".to_owned();
    let run = stage.run(&spec);
    assert_eq!(run.state, State::Succeeded, "{run:#?}");
    assert_eq!(run.assignment["docker_image"], Value::Null);
    stage.stop(worker);
}

#[test]
fn the_agent_gets_the_operator_s_idle_time_and_session_server() {
    let stage = stage();
    let flags = ["--idle-on-complete", "10m", "--session-sharing-server-url", "ws://127.0.0.1:8081"];
    let sync = SyncDir::new();
    let worker = stage.start(builder(&stage, &sync).args(flags));
    let script = "echo \"$*\" >> /sync/log";
    let run = stage.run(&stage.spec(script));
    assert_eq!(run.state, State::Succeeded, "{run:#?}");
    let args = sync.lines();
    assert!(args[0].ends_with(&flags.join(" ")), "{args:?}");
    stage.stop(worker);
}
