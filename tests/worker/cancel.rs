//! `task_cancel` in every phase of a task: the run stays cancelled, nothing is left, the slot is free again.

use std::net::TcpListener;

use serde_json::json;

use super::gate::{Gate, PASS};
use super::{DEADLINE, Stage, kept_waiting};
use crate::support::control_plane::{Received, State};
use crate::support::images::{AGENT, Layout, Root};
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::worker::Worker;

/// Waits for the report of a cancelled run, and checks that it says so and changes nothing.
pub(crate) fn reported(stage: &Stage, id: &str) -> Received {
    let report = stage.plane.wait_message(id, "task_failed");
    assert_eq!(report.data["failure_reason"], "task_cancelled", "{report:?}");
    let run = stage.plane.run(id);
    assert_eq!((run.state, run.terminal_reports), (State::Cancelled, 1), "{run:?}");
    report
}

/// Waits for the one report of a run that was cancelled too late, and checks that it changes nothing.
fn ended_by_itself(stage: &Stage, id: &str, exit_code: u8) {
    let report = stage.plane.wait_message(id, "task_completed");
    let run = stage.plane.run(id);
    assert_eq!((run.state, run.terminal_reports), (State::Cancelled, 1), "{run:?}");
    assert_eq!(report.data["exit_code"], exit_code);
}

/// Checks that the worker, which had one slot, is as good as new, and ends it.
fn is_free_again(stage: &Stage, worker: Worker) {
    stage.wait_clean();
    let run = stage.run(&stage.spec("echo next"));
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("next\n")));
    stage.stop(worker);
}

fn wait_log(worker: &Worker, event: &str, task_id: &str) {
    worker.wait_log(DEADLINE, |line| line.contains(event) && line.contains(task_id));
}

#[test]
fn in_the_backlog() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = stage.connected(stage.worker().args(["--max-concurrent-tasks", "1", "-v", &gate.mount()]));
    let first = stage.plane.submit(stage.spec(PASS));
    stage.plane.wait_state(&first, State::InProgress);
    let second = stage.plane.submit(stage.spec("echo >> /gate/log"));
    wait_log(&worker, "assignment received", &second);
    stage.plane.cancel(&second);
    reported(&stage, &second);
    assert_eq!(stage.plane.run(&second).claims, 0);
    gate.open(1);
    assert_eq!(stage.plane.wait_ended(&first).state, State::Succeeded);
    is_free_again(&stage, worker);
    assert_eq!(gate.told(), Vec::<String>::new(), "it has run");
}

#[test]
fn twice_the_same_and_one_for_a_task_that_is_not_here() {
    let stage = Stage::new();
    let worker = stage.connected(stage.worker().args(["--max-concurrent-tasks", "1"]));
    let cancel = |kind: &str, id: &str| json!({"type": kind, "data": {"task_id": id}}).to_string();
    stage.plane.send_text(cancel("task_cancel", "nobody"));
    wait_log(&worker, "cancel ignored", "nobody");
    let id = stage.plane.submit(stage.spec("trap 'exit 1' TERM; sleep 1000 & wait"));
    stage.running(&id);
    stage.plane.send_text(cancel("task_cancellation", &id));
    stage.plane.send_text(cancel("task_cancel", &id));
    stage.plane.cancel(&id);
    reported(&stage, &id);
    stage.plane.send_text(cancel("task_cancel", &id));
    stage.wait_no_containers();
    stage.plane.send_text(cancel("task_cancel", &id));
    is_free_again(&stage, worker);
    assert_eq!(stage.plane.run(&id).terminal_reports, 1);
}

#[test]
fn while_a_registry_keeps_the_pull_waiting() {
    let stage = Stage::new();
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let worker = stage.connected(stage.worker().args(["--max-concurrent-tasks", "1"]));
    let mut spec = stage.spec("");
    spec.docker_image = Some(format!("{}/x:1", registry.local_addr().unwrap()));
    let id = stage.plane.submit(&spec);
    let _asked = kept_waiting(&registry, || registry.accept().map(|(stream, _)| stream));
    stage.plane.cancel(&id);
    reported(&stage, &id);
    is_free_again(&stage, worker);
}

/// Of tasks that wait for one pull, each can be cancelled without harm for the others, the one that pulls included.
#[test]
fn while_other_tasks_wait_for_the_same_pull() {
    let stage = Stage::new();
    let (registry, proxy) = (Registry::open(), Proxy::start(stage.engine.host()));
    let image = registry.push(&stage.engine, &stage.task_image, "team/task", "v1");
    let sidecar = registry.push(&stage.engine, &stage.sidecar_image, "team/agent", "v1");
    let builder = Worker::with(&stage.plane, &stage.worker_id).args(["--pull", "always"]);
    let worker = stage.connected(builder.env("DOCKER_HOST", &proxy.host()));
    let pull = "/images/create?fromImage=127.0.0.1%3A";
    let pull = format!("{pull}{}%2Fteam%2Ftask", registry.host().rsplit(':').next().unwrap());
    let hold = proxy.hold(&pull, usize::MAX);
    let mut spec = stage.spec("echo $IMAGE");
    (spec.docker_image, spec.sidecar_image) = (Some(image.clone()), sidecar.clone());
    let leader = stage.plane.submit(&spec);
    hold.wait(1);
    let others: Vec<String> = (0..3).map(|_| stage.plane.submit(&spec)).collect();
    // Each looks for its container first, and then there is nothing for it but to wait.
    proxy.wait_count("/containers/oz-task-", 4);
    stage.plane.cancel(&others[0]);
    reported(&stage, &others[0]);
    assert_eq!(proxy.count(&pull), 1, "one pull at a time");
    stage.plane.cancel(&leader);
    reported(&stage, &leader);
    hold.wait(2);
    hold.release();
    for id in &others[1..] {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("task\n")), "{run:?}");
    }
    assert_eq!(proxy.count(&pull), 2, "the other one has shared the second pull");
    stage.wait_clean();
    stage.stop(worker);
    [image, sidecar].iter().for_each(|name| stage.engine.remove_image(name));
}

/// What an interrupted filling has left is never taken for the whole, neither by one who waited nor later.
#[test]
fn while_a_sidecar_volume_is_being_filled() {
    let mut stage = Stage::new();
    let root = Root::sidecar(Layout::Root, AGENT).file("a-big-one", 0o644, vec![b'x'; 12 << 20]);
    let image = stage.images.make("big", root.file("z-last", 0o644, "whole\n"), &[]);
    let proxy = Proxy::start(stage.engine.host());
    let worker = stage.connected(stage.worker().env("DOCKER_HOST", &proxy.host()));
    let mut spec = stage.spec("cat /agent/z-last; wc -c < /agent/a-big-one");
    spec.sidecar_image = image;
    let whole = format!("whole\n{}\n", 12 << 20);
    // Held within the stream: some of the volume is there by then.
    let hold = proxy.hold_after(4 << 20, "/export", 1);
    let leader = stage.plane.submit(&spec);
    hold.wait(1);
    let follower = stage.plane.submit(&spec);
    stage.plane.wait_state(&follower, State::InProgress);
    stage.plane.cancel(&leader);
    reported(&stage, &leader);
    let run = stage.plane.wait_ended(&follower);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some(whole.as_str())), "{run:?}");
    assert_eq!(proxy.count("/export"), 2);
    hold.release();
    stage.wait_clean();
    assert_eq!(stage.run(&spec).output, Some(whole));
    assert_eq!(proxy.count("/export"), 2, "it is whole by now");
    stage.stop(worker);
}

/// Neither call can be taken back once it is on its way, so its end is waited for, and then its effect removed.
#[test]
fn while_the_engine_makes_or_starts_the_container() {
    let stage = Stage::new();
    let proxy = Proxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.connected(builder.args(["--max-concurrent-tasks", "1"]));
    assert_eq!(
        stage.run(&stage.spec("")).state,
        State::Succeeded,
        "the sidecar's volume is there from now on"
    );
    for call in ["/containers/create", "/start"] {
        let hold = proxy.hold(call, 1);
        let id = stage.plane.submit(stage.spec("trap 'exit 1' TERM; sleep 1000 & wait"));
        hold.wait(1);
        stage.plane.cancel(&id);
        wait_log(&worker, "task cancelled", &id);
        hold.release();
        reported(&stage, &id);
        stage.wait_clean();
    }
    is_free_again(&stage, worker);
}

#[test]
fn before_the_claim_is_confirmed() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = stage.connected(stage.worker().args(["--max-concurrent-tasks", "2", "-v", &gate.mount()]));
    stage.plane.hold_pongs(true);
    // The second is there to give the first all the time to be started in error.
    let ids = [0, 1].map(|_| stage.plane.submit(stage.spec("echo >> /gate/log")));
    ids.iter().for_each(|id| wait_log(&worker, "container created", id));
    for id in &ids {
        stage.plane.cancel(id);
        wait_log(&worker, "task ended", id);
    }
    stage.plane.hold_pongs(false);
    ids.iter().for_each(|id| drop(reported(&stage, id)));
    is_free_again(&stage, worker);
    assert_eq!(gate.told(), Vec::<String>::new(), "it has run");
}

/// TERM first; a task that does not care is killed after its grace time of 10 s. What it said until then is reported.
#[test]
fn while_it_runs() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let worker = stage.connected(stage.worker().args(["-v", &gate.mount()]));
    let ready = "echo so far; echo >> /gate/log; sleep 1000 & wait; wait; wait";
    let scripts = ["trap 'echo bye; exit 5' TERM", "trap 'echo no' TERM", "trap '' TERM"];
    let ids = scripts.map(|script| stage.plane.submit(stage.spec(&format!("{script}; {ready}"))));
    gate.wait_told(&stage, 3);
    ids.iter().for_each(|id| stage.plane.cancel(id));
    let expected = [(5, "so far\nbye\n"), (137, "so far\nno\n"), (137, "so far\n")];
    for (id, (exit_code, output)) in ids.iter().zip(expected) {
        let report = reported(&stage, id);
        assert_eq!((&report.data["exit_code"], &report.data["output"]), (&json!(exit_code), &json!(output)));
    }
    stage.wait_clean();
    stage.stop(worker);
}

/// The task has ended by itself: that is what is reported, without the output that an engine does not give.
#[test]
fn while_its_output_is_read() {
    let stage = Stage::new();
    let proxy = Proxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.connected(builder.args(["--max-concurrent-tasks", "1"]));
    for (call, script) in [
        ("/logs", "seq 200000; exit 3"),
        ("agent_output.txt", "mkdir .oz; seq 200000 > .oz/agent_output.txt; exit 3"),
    ] {
        let hold = proxy.hold(call, 1);
        let id = stage.plane.submit(stage.spec(script));
        hold.wait(1);
        stage.plane.cancel(&id);
        ended_by_itself(&stage, &id, 3);
        stage.wait_clean();
        hold.release();
    }
    is_free_again(&stage, worker);
}

/// The task has ended and that is what is told, however late the control plane gets it.
#[test]
fn while_its_report_is_on_its_way() {
    let (stage, gate) = (Stage::new(), Gate::new());
    let args = ["--max-concurrent-tasks", "1", "--log-level", "debug", "-v", &gate.mount()];
    let worker = stage.connected(stage.worker().args(args));
    let id = stage.plane.submit(stage.spec(&format!("echo >> /gate/log; {PASS}; exit 3")));
    gate.wait_told(&stage, 1);
    stage.plane.hold_pongs(true);
    gate.open(1);
    wait_log(&worker, "type=task_completed", &id);
    stage.plane.cancel(&id);
    wait_log(&worker, "cancel ignored", &id);
    stage.plane.hold_pongs(false);
    ended_by_itself(&stage, &id, 3);
    is_free_again(&stage, worker);
}

/// Nothing is left to cancel, and the clean-up goes on.
#[test]
fn while_its_container_is_removed() {
    let stage = Stage::new();
    let proxy = Proxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let worker = stage.connected(builder.args(["--max-concurrent-tasks", "1"]));
    assert_eq!(stage.run(&stage.spec("")).state, State::Succeeded, "no other container is made from now on");
    stage.wait_no_containers();
    let hold = proxy.hold("force=1", 1);
    let id = stage.plane.submit(stage.spec("exit 3"));
    stage.plane.wait_message(&id, "task_completed");
    hold.wait(1);
    stage.plane.send_text(json!({"type": "task_cancel", "data": {"task_id": id}}).to_string());
    wait_log(&worker, "cancel ignored", &id);
    hold.release();
    is_free_again(&stage, worker);
    assert_eq!((stage.plane.run(&id).state, stage.plane.run(&id).terminal_reports), (State::Failed, 1));
}

/// The engine takes its time to stop 24 tasks; the 25th has ended, so its slot is for the next, and it can be cancelled too.
/// Counts: 25 cancels, of which 24 are held up all at once; the 26th run is claimed and has ended before any of those.
#[test]
fn of_many_tasks_at_once_blocks_nothing() {
    const MANY: usize = 25;
    let (stage, gate) = (Stage::new(), Gate::new());
    let proxy = Proxy::start(stage.engine.host());
    let builder = stage.worker().env("DOCKER_HOST", &proxy.host());
    let slots = MANY.to_string();
    let worker = stage.connected(builder.args(["--max-concurrent-tasks", &slots, "-v", &gate.mount()]));
    let script = "trap 'exit 1' TERM; echo >> /gate/log; sleep 1000 & wait";
    let ids: Vec<String> = (0..MANY).map(|_| stage.plane.submit(stage.spec(script))).collect();
    gate.wait_told(&stage, MANY);
    let next = stage.plane.submit(stage.spec("echo next"));
    wait_log(&worker, "assignment received", &next);
    let hold = proxy.hold("/stop", MANY - 1);
    ids.iter().for_each(|id| stage.plane.cancel(id));
    hold.wait(MANY - 1);
    let run = stage.plane.wait_ended(&next);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("next\n")));
    assert_eq!(stops_that_have_ended(&stage, &ids), 1);
    let another = stage.plane.submit(stage.spec(script));
    gate.wait_told(&stage, MANY + 1);
    stage.plane.cancel(&another);
    reported(&stage, &another);
    assert_eq!(stops_that_have_ended(&stage, &ids), 1, "the others are still being stopped");
    hold.release();
    ids.iter().for_each(|id| drop(reported(&stage, id)));
    stage.wait_clean();
    stage.stop(worker);
}

fn stops_that_have_ended(stage: &Stage, ids: &[String]) -> usize {
    ids.iter().filter(|id| stage.plane.run(id).terminal_reports > 0).count()
}
