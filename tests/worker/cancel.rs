//! `task_cancel` in every phase of a task: the run stays cancelled, nothing is left behind, and the slot becomes free.

use std::net::TcpListener;

use serde_json::json;

use super::accept_and_stall;
use crate::support::control_plane::{Received, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::registry::Registry;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::Worker;

/// Waits for the report of a cancelled run. Checks its reason, and that the run stays cancelled with this one report.
fn wait_cancelled(stage: &Stage, id: &str) -> Received {
    let report = stage.plane.wait_message(id, "task_failed");
    assert_eq!(report.data["failure_reason"], "task_cancelled", "{report:?}");
    let run = stage.plane.run(id);
    assert_eq!((run.state, run.terminal_reports), (State::Cancelled, 1), "{run:?}");
    report
}

/// Waits for the report of a task that ended before its cancel. Checks that the run stays cancelled with this one report.
fn wait_completed(stage: &Stage, id: &str, exit_code: u8) {
    let report = stage.plane.wait_message(id, "task_completed");
    let run = stage.plane.run(id);
    assert_eq!((run.state, run.terminal_reports), (State::Cancelled, 1), "{run:?}");
    assert_eq!(report.data["exit_code"], exit_code);
}

/// Checks that the worker runs another task, and stops it.
fn runs_another_task(stage: &Stage, worker: Worker) {
    stage.wait_clean();
    let run = stage.run(&stage.spec("echo next"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("next\n")));
    stage.stop(worker);
}

fn wait_log(worker: &Worker, event: &str, task_id: &str) {
    worker.wait_log(DEADLINE, |line| line.contains(event) && line.contains(task_id));
}

#[test]
fn a_task_in_the_backlog() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "1", "-v", &sync.mount()]));
    let first = stage.plane.submit(stage.spec(WAIT));
    stage.plane.wait_state(&first, State::InProgress);
    let second = stage.plane.submit(stage.spec("echo >> /sync/log"));
    wait_log(&worker, "assignment received", &second);
    stage.plane.cancel(&second);
    wait_cancelled(&stage, &second);
    assert_eq!(stage.plane.run(&second).claims, 0);
    sync.release(1);
    assert_eq!(stage.plane.wait_ended(&first).state, State::Succeeded);
    runs_another_task(&stage, worker);
    assert_eq!(sync.lines(), Vec::<String>::new(), "it was started");
}

#[test]
fn repeated_cancels_and_cancels_of_unknown_tasks_are_ignored() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "1"]));
    let cancel = |kind: &str, id: &str| json!({"type": kind, "data": {"task_id": id}}).to_string();
    stage.plane.send_text(cancel("task_cancel", "nobody"));
    wait_log(&worker, "cancel ignored", "nobody");
    let id = stage.plane.submit(stage.spec("trap 'exit 1' TERM; sleep 1000 & wait"));
    stage.wait_running(&id);
    stage.plane.send_text(cancel("task_cancellation", &id));
    stage.plane.send_text(cancel("task_cancel", &id));
    stage.plane.cancel(&id);
    wait_cancelled(&stage, &id);
    stage.plane.send_text(cancel("task_cancel", &id));
    stage.wait_no_containers();
    stage.plane.send_text(cancel("task_cancel", &id));
    runs_another_task(&stage, worker);
    assert_eq!(stage.plane.run(&id).terminal_reports, 1);
}

#[test]
fn while_a_pull_waits_for_the_registry() {
    let stage = Stage::new();
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "1"]));
    let mut spec = stage.spec("");
    spec.docker_image = Some(format!("{}/x:1", registry.local_addr().unwrap()));
    let id = stage.plane.submit(&spec);
    let _request = accept_and_stall(&registry, || registry.accept().map(|(stream, _)| stream));
    stage.plane.cancel(&id);
    wait_cancelled(&stage, &id);
    runs_another_task(&stage, worker);
}

/// Several tasks share one pull. Cancelling one does not fail the others, even if it is the one that pulls.
#[test]
fn while_other_tasks_wait_for_the_same_pull() {
    let stage = Stage::new();
    let registry = Registry::open();
    let proxy = EngineProxy::start(stage.engine.host());
    let image = registry.push(&stage.engine, &stage.task_image, "team/task", "v1");
    let sidecar = registry.push(&stage.engine, &stage.sidecar_image, "team/agent", "v1");
    let worker = stage.start(stage.worker_pulling("always").env("DOCKER_HOST", &proxy.host()));
    let pull = "/images/create?fromImage=127.0.0.1%3A";
    let pull = format!("{pull}{}%2Fteam%2Ftask", registry.host().rsplit(':').next().unwrap());
    let hold = proxy.hold(&pull, usize::MAX);
    let mut spec = stage.spec("echo $IMAGE");
    (spec.docker_image, spec.sidecar_image) = (Some(image.clone()), sidecar.clone());
    let leader = stage.plane.submit(&spec);
    hold.wait(1);
    let others: Vec<String> = (0..3).map(|_| stage.plane.submit(&spec)).collect();
    // A task inspects its container just before it joins the pull.
    proxy.wait_count("/containers/oz-task-", 4);
    stage.plane.cancel(&others[0]);
    wait_cancelled(&stage, &others[0]);
    assert_eq!(proxy.count(&pull), 1, "the tasks share a pull");
    stage.plane.cancel(&leader);
    wait_cancelled(&stage, &leader);
    hold.wait(2);
    hold.release();
    for id in &others[1..] {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("task\n")), "{run:?}");
    }
    assert_eq!(proxy.count(&pull), 2, "the remaining tasks share the second pull");
    stage.wait_clean();
    stage.stop(worker);
    [image, sidecar].iter().for_each(|name| stage.engine.remove_image(name));
}

/// A partly filled volume is never used, neither by a task that was waiting for it nor later.
#[test]
fn while_a_sidecar_volume_is_being_filled() {
    let mut stage = Stage::new();
    let root = RootFs::sidecar(Layout::Root, AGENT).file("a-big-one", 0o644, vec![b'x'; 12 << 20]);
    let image = stage.images.make("big", root.file("z-last", 0o644, "whole\n"), &[]);
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    let mut spec = stage.spec("cat /agent/z-last; wc -c < /agent/a-big-one");
    spec.sidecar_image = image;
    let whole = format!("whole\n{}\n", 12 << 20);
    // Held in the middle of the stream, when the volume has some files.
    let hold = proxy.hold_after(4 << 20, "/export", 1);
    let leader = stage.plane.submit(&spec);
    hold.wait(1);
    let follower = stage.plane.submit(&spec);
    stage.plane.wait_state(&follower, State::InProgress);
    stage.plane.cancel(&leader);
    wait_cancelled(&stage, &leader);
    let run = stage.plane.wait_ended(&follower);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some(whole.as_str())), "{run:?}");
    assert_eq!(proxy.count("/export"), 2);
    hold.release();
    stage.wait_clean();
    assert_eq!(stage.run(&spec).output, Some(whole));
    assert_eq!(proxy.count("/export"), 2, "the volume is complete");
    stage.stop(worker);
}

/// A create or start cannot be cancelled once it is sent, so the worker waits for the answer and removes the container.
#[test]
fn while_the_engine_creates_or_starts_the_container() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.start(builder.args(["--max-concurrent-tasks", "1"]));
    assert_eq!(stage.run(&stage.spec("")).state, State::Succeeded, "the sidecar volume exists from here on");
    for call in ["/containers/create", "/start"] {
        let hold = proxy.hold(call, 1);
        let id = stage.plane.submit(stage.spec("trap 'exit 1' TERM; sleep 1000 & wait"));
        hold.wait(1);
        stage.plane.cancel(&id);
        wait_log(&worker, "task cancelled", &id);
        hold.release();
        wait_cancelled(&stage, &id);
        stage.wait_clean();
    }
    runs_another_task(&stage, worker);
}

#[test]
fn before_the_claim_is_confirmed() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "2", "-v", &sync.mount()]));
    stage.plane.hold_pongs(true);
    // While the second runs, a mistake would start the first.
    let ids = [0, 1].map(|_| stage.plane.submit(stage.spec("echo >> /sync/log")));
    ids.iter().for_each(|id| wait_log(&worker, "container created", id));
    for id in &ids {
        stage.plane.cancel(id);
        wait_log(&worker, "task ended", id);
    }
    stage.plane.hold_pongs(false);
    ids.iter().for_each(|id| drop(wait_cancelled(&stage, id)));
    runs_another_task(&stage, worker);
    assert_eq!(sync.lines(), Vec::<String>::new(), "it was started");
}

/// SIGTERM first; a task that ignores it is killed after the grace time. The report has its output so far.
#[test]
fn while_the_task_runs() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(stage.worker().args(["-v", &sync.mount()]));
    let ready = "echo so far; echo >> /sync/log; sleep 1000 & wait; wait; wait";
    let scripts = ["trap 'echo bye; exit 5' TERM", "trap 'echo no' TERM", "trap '' TERM"];
    let ids = scripts.map(|script| stage.plane.submit(stage.spec(&format!("{script}; {ready}"))));
    sync.wait_lines(&stage, 3);
    ids.iter().for_each(|id| stage.plane.cancel(id));
    let expected = [(5, "so far\nbye\n"), (137, "so far\nno\n"), (137, "so far\n")];
    for (id, (exit_code, output)) in ids.iter().zip(expected) {
        let report = wait_cancelled(&stage, id);
        assert_eq!((&report.data["exit_code"], &report.data["output"]), (&json!(exit_code), &json!(output)));
    }
    stage.wait_clean();
    stage.stop(worker);
}

/// The task has ended, so it is reported as completed, without the output that the engine withholds for more than two seconds.
#[test]
fn while_the_output_is_read() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.start(builder.args(["--max-concurrent-tasks", "1"]));
    for (call, script) in [
        ("/logs", "seq 200000; exit 3"),
        ("GET *agent_output.txt", "mkdir .oz; seq 200000 > .oz/agent_output.txt; exit 3"),
    ] {
        let hold = proxy.hold(call, 1);
        let id = stage.plane.submit(stage.spec(script));
        hold.wait(1);
        stage.plane.cancel(&id);
        wait_completed(&stage, &id, 3);
        stage.wait_clean();
        hold.release();
    }
    runs_another_task(&stage, worker);
}

/// The task has ended, so it is reported as completed, however late the report arrives.
#[test]
fn while_the_report_is_not_confirmed() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let args = ["--max-concurrent-tasks", "1", "--log-level", "debug", "-v", &sync.mount()];
    let worker = stage.start(stage.worker().args(args));
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; exit 3")));
    sync.wait_lines(&stage, 1);
    stage.plane.hold_pongs(true);
    sync.release(1);
    wait_log(&worker, "type=task_completed", &id);
    stage.plane.cancel(&id);
    wait_log(&worker, "cancel ignored", &id);
    stage.plane.hold_pongs(false);
    wait_completed(&stage, &id, 3);
    runs_another_task(&stage, worker);
}

/// The cancel is ignored, and the clean-up continues.
#[test]
fn while_the_container_is_removed() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.start(builder.args(["--max-concurrent-tasks", "1"]));
    assert_eq!(stage.run(&stage.spec("")).state, State::Succeeded, "no helper container from here on");
    // The container is gone before the answer to its removal, which the hold must not catch.
    worker.wait_log(DEADLINE, |line| line.contains("container removed"));
    let hold = proxy.hold("force=1", 1);
    let id = stage.plane.submit(stage.spec("exit 3"));
    stage.plane.wait_message(&id, "task_completed");
    hold.wait(1);
    stage.plane.send_text(json!({"type": "task_cancel", "data": {"task_id": id}}).to_string());
    wait_log(&worker, "cancel ignored", &id);
    hold.release();
    runs_another_task(&stage, worker);
    assert_eq!((stage.plane.run(&id).state, stage.plane.run(&id).terminal_reports), (State::Failed, 1));
}

/// 25 tasks are cancelled, and the engine delays 24 of the stops. The slot of the 25th is reused by two more tasks, one of
/// which is cancelled too, before any of the 24 has stopped.
#[test]
fn many_tasks_at_once_do_not_block_others() {
    const MANY: usize = 25;
    let stage = Stage::new();
    let sync = SyncDir::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let slots = MANY.to_string();
    let worker = stage.start(builder.args(["--max-concurrent-tasks", &slots, "-v", &sync.mount()]));
    let script = "trap 'exit 1' TERM; echo >> /sync/log; sleep 1000 & wait";
    let ids: Vec<String> = (0..MANY).map(|_| stage.plane.submit(stage.spec(script))).collect();
    sync.wait_lines(&stage, MANY);
    let next = stage.plane.submit(stage.spec("echo next"));
    wait_log(&worker, "assignment received", &next);
    let hold = proxy.hold("/kill", MANY - 1);
    ids.iter().for_each(|id| stage.plane.cancel(id));
    hold.wait(MANY - 1);
    let run = stage.plane.wait_ended(&next);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("next\n")));
    assert_eq!(reported(&stage, &ids), 1);
    let another = stage.plane.submit(stage.spec(script));
    sync.wait_lines(&stage, MANY + 1);
    stage.plane.cancel(&another);
    wait_cancelled(&stage, &another);
    assert_eq!(reported(&stage, &ids), 1, "the others are still being stopped");
    hold.release();
    ids.iter().for_each(|id| drop(wait_cancelled(&stage, id)));
    stage.wait_clean();
    stage.stop(worker);
}

/// Returns how many of the runs have a report.
fn reported(stage: &Stage, ids: &[String]) -> usize {
    ids.iter().filter(|id| stage.plane.run(id).terminal_reports > 0).count()
}
