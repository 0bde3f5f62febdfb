//! One, two and three signals with ten tasks running, with and without a drain time: the exit code, one true report a task,
//! and nothing left.

use serde_json::json;

use crate::support::process::Signal;
use crate::support::worker::Worker;
use crate::worker::gate::{Gate, PASS};
use crate::worker::{DEADLINE, Stage};

const TASKS: usize = 10;

/// Ends when it is told to, with a code of its own.
const OBEYS: &str = "trap 'echo stopped; exit 7' TERM; echo $TASK_ID >> /gate/log; sleep 1000 & wait";

/// Ten tasks, and where they tell how far they are.
struct Scene {
    stage: Stage,
    gate: Gate,
    ids: Vec<String>,
}

impl Scene {
    /// A worker with this drain time that runs ten tasks, each with this script.
    fn begin(drain: &str, script: &str) -> (Self, Worker) {
        let mut scene = Self { stage: Stage::new(), gate: Gate::new(), ids: Vec::new() };
        let worker = scene.worker(drain);
        let stage = &scene.stage;
        scene.ids = (0..TASKS).map(|_| stage.plane.submit(stage.spec(script))).collect();
        scene.gate.wait_told(stage, TASKS);
        (scene, worker)
    }

    fn worker(&self, drain: &str) -> Worker {
        let slots = TASKS.to_string();
        let args = ["--max-concurrent-tasks", &slots, "--drain-timeout", drain, "--lost-runs", "finish"];
        self.stage.connected(self.stage.worker().args(args).args(["-v", &self.gate.mount()]))
    }

    /// Every task has one report, this one, and was started once; nothing is left.
    fn ended(&self, kind: &str, reason: Option<&str>, exit_code: i64) {
        for id in &self.ids {
            let report = self.stage.plane.wait_message(id, kind).data;
            let expected = reason.map_or(json!(null), |reason| json!(reason));
            assert_eq!((&report["failure_reason"], &report["exit_code"]), (&expected, &json!(exit_code)));
            assert_eq!(self.stage.plane.run(id).terminal_reports, 1);
        }
        assert_eq!(self.gate.told().len(), TASKS, "each was started once");
        self.stage.wait_clean();
        self.stage.plane.assert_no_violations();
    }

    /// The worker that comes after one that ended at once goes on with all: what that was about to stop, and what it was
    /// not.
    fn ended_by_the_next(&self) {
        let next = self.worker("0");
        self.gate.open(TASKS);
        for id in &self.ids {
            let ended = |kind: &str| matches!(kind, "task_completed" | "task_failed");
            self.stage.plane.wait_for(DEADLINE, |world| {
                world.run(id).is_some_and(|run| run.history.iter().any(|received| ended(&received.kind)))
            });
            let run = self.stage.plane.run(id);
            let report = run.history.iter().rfind(|received| ended(&received.kind)).unwrap();
            let (reason, code) = (&report.data["failure_reason"], report.data["exit_code"].as_i64());
            let completed = report.kind == "task_completed" && code == Some(3);
            let stopped = reason == "graceful_shutdown" && matches!(code, Some(3 | 137));
            assert!(completed || stopped, "{report:?}");
            assert_eq!(run.terminal_reports, 1);
        }
        assert_eq!(self.gate.told().len(), TASKS, "each was started once");
        self.stage.wait_clean();
        self.stage.stop(next);
    }
}

fn exits_with(worker: &mut Worker, code: i32) {
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(code), "{:#?}", worker.stderr().all());
}

fn gated() -> String {
    format!("trap '' TERM; echo $TASK_ID >> /gate/log; {PASS}; exit 3")
}

#[test]
fn one_signal_without_a_drain_stops_and_reports_all() {
    let (scene, mut worker) = Scene::begin("0", OBEYS);
    worker.signal(Signal::TERM);
    exits_with(&mut worker, 0);
    scene.ended("task_failed", Some("graceful_shutdown"), 7);
    let log = worker.stderr().all().join("\n");
    assert!(log.contains("stopping tasks=10 backlog=0 drain_s=0 budget_s=80"), "{log}");
}

#[test]
fn two_signals_without_a_drain_end_at_once_and_the_next_worker_goes_on() {
    let (scene, mut worker) = Scene::begin("0", &gated());
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("tasks ending tasks=10"));
    worker.signal(Signal::TERM);
    exits_with(&mut worker, 130);
    scene.ended_by_the_next();
}

#[test]
fn one_signal_with_a_drain_lets_all_finish() {
    let (scene, mut worker) = Scene::begin("10m", &gated());
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10 backlog=0 drain_s=600 budget_s=680"));
    let late = scene.stage.plane.submit(scene.stage.spec("exit 0"));
    assert_eq!(
        scene.stage.plane.wait_message(&late, "task_rejected").data["reason"],
        "the worker is stopping"
    );
    scene.gate.open(TASKS);
    exits_with(&mut worker, 0);
    scene.ended("task_completed", None, 3);
}

#[test]
fn a_drain_that_runs_out_stops_and_reports_all() {
    let (scene, mut worker) = Scene::begin("1s", OBEYS);
    worker.signal(Signal::INT);
    exits_with(&mut worker, 0);
    scene.ended("task_failed", Some("graceful_shutdown"), 7);
}

#[test]
fn two_signals_with_a_drain_stop_and_report_all() {
    let (scene, mut worker) = Scene::begin("10m", OBEYS);
    worker.signal(Signal::HUP);
    worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10"));
    worker.signal(Signal::TERM);
    exits_with(&mut worker, 0);
    scene.ended("task_failed", Some("graceful_shutdown"), 7);
}

#[test]
fn three_signals_with_a_drain_end_at_once_and_the_next_worker_goes_on() {
    let (scene, mut worker) = Scene::begin("10m", &gated());
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10"));
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("tasks ending tasks=10"));
    worker.signal(Signal::TERM);
    exits_with(&mut worker, 130);
    scene.ended_by_the_next();
}
