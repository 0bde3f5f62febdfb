//! One, two and three signals with ten tasks running, with and without a drain: the exit code, one correct report for each
//! task, and nothing left behind.

use serde_json::json;

use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::Worker;

const TASKS: usize = 10;

/// A task that exits with 7 on SIGTERM.
const EXITS_ON_SIGTERM: &str =
    "trap 'echo stopped; exit 7' TERM; echo $TASK_ID >> /sync/log; sleep 1000 & wait";

/// Ten running tasks.
struct Tasks {
    stage: Stage,
    sync: SyncDir,
    ids: Vec<String>,
}

impl Tasks {
    /// Starts a worker with this drain time-out, and ten tasks with this script.
    fn start(drain: &str, script: &str) -> (Self, Worker) {
        let mut tasks = Self { stage: Stage::new(), sync: SyncDir::new(), ids: Vec::new() };
        let worker = tasks.worker(drain);
        let stage = &tasks.stage;
        tasks.ids = (0..TASKS).map(|_| stage.plane.submit(stage.spec(script))).collect();
        tasks.sync.wait_lines(stage, TASKS);
        (tasks, worker)
    }

    fn worker(&self, drain: &str) -> Worker {
        let slots = TASKS.to_string();
        let args = ["--max-concurrent-tasks", &slots, "--drain-timeout", drain, "--lost-runs", "finish"];
        self.stage.start(self.stage.worker().args(args).args(["-v", &self.sync.mount()]))
    }

    /// Checks that every task was started once and has only this report, and that nothing is left behind.
    fn assert_reports(&self, kind: &str, reason: Option<&str>, exit_code: i64) {
        for id in &self.ids {
            let report = self.stage.plane.wait_message(id, kind).data;
            let expected = reason.map_or(json!(null), |reason| json!(reason));
            assert_eq!((&report["failure_reason"], &report["exit_code"]), (&expected, &json!(exit_code)));
            assert_eq!(self.stage.plane.run(id).terminal_reports, 1);
        }
        assert_eq!(self.sync.lines().len(), TASKS, "each task was started once");
        self.stage.wait_clean();
        self.stage.plane.assert_no_violations();
    }

    /// Checks that the next worker adopts and reports all tasks, whether the previous one had begun to stop them or not.
    fn assert_reported_by_next_worker(&self) {
        let next = self.worker("0");
        self.sync.release(TASKS);
        for id in &self.ids {
            let ended = |kind: &str| matches!(kind, "task_completed" | "task_failed");
            self.stage.plane.wait_for(DEADLINE, |model| {
                model.run(id).is_some_and(|run| run.history.iter().any(|received| ended(&received.kind)))
            });
            let run = self.stage.plane.run(id);
            let report = run.history.iter().rfind(|received| ended(&received.kind)).unwrap();
            let (reason, code) = (&report.data["failure_reason"], report.data["exit_code"].as_i64());
            let completed = report.kind == "task_completed" && code == Some(3);
            let stopped = reason == "graceful_shutdown" && matches!(code, Some(3 | 137));
            assert!(completed || stopped, "{report:?}");
            assert_eq!(run.terminal_reports, 1);
        }
        assert_eq!(self.sync.lines().len(), TASKS, "each task was started once");
        self.stage.wait_clean();
        self.stage.stop(next);
    }
}

fn wait_exit(worker: &mut Worker, code: i32) {
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(code), "{:#?}", worker.stderr().all());
}

/// Returns a task that ignores SIGTERM and exits with 3 when released.
fn ignores_sigterm() -> String {
    format!("trap '' TERM; echo $TASK_ID >> /sync/log; {WAIT}; exit 3")
}

#[test]
fn one_signal_without_a_drain_stops_and_reports_all_tasks() {
    let (tasks, mut worker) = Tasks::start("0", EXITS_ON_SIGTERM);
    worker.signal(Signal::TERM);
    wait_exit(&mut worker, 0);
    tasks.assert_reports("task_failed", Some("graceful_shutdown"), 7);
    let log = worker.stderr().all().join("\n");
    assert!(log.contains("stopping tasks=10 backlog=0 drain_s=0 budget_s=80"), "{log}");
}

#[test]
fn two_signals_without_a_drain_end_the_worker_and_the_next_one_adopts_the_tasks() {
    let (tasks, mut worker) = Tasks::start("0", &ignores_sigterm());
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("tasks ending tasks=10"));
    worker.signal_again(Signal::TERM);
    wait_exit(&mut worker, 130);
    tasks.assert_reported_by_next_worker();
}

#[test]
fn one_signal_with_a_drain_lets_all_tasks_finish() {
    let (tasks, mut worker) = Tasks::start("10m", &ignores_sigterm());
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10 backlog=0 drain_s=600 budget_s=680"));
    let late = tasks.stage.plane.submit(tasks.stage.spec("exit 0"));
    assert_eq!(
        tasks.stage.plane.wait_message(&late, "task_rejected").data["reason"],
        "the worker is stopping"
    );
    tasks.sync.release(TASKS);
    wait_exit(&mut worker, 0);
    tasks.assert_reports("task_completed", None, 3);
}

#[test]
fn a_drain_that_times_out_stops_and_reports_all_tasks() {
    let (tasks, mut worker) = Tasks::start("1s", EXITS_ON_SIGTERM);
    worker.signal(Signal::INT);
    wait_exit(&mut worker, 0);
    tasks.assert_reports("task_failed", Some("graceful_shutdown"), 7);
}

#[test]
fn two_signals_with_a_drain_stop_and_report_all_tasks() {
    let (tasks, mut worker) = Tasks::start("10m", EXITS_ON_SIGTERM);
    worker.signal(Signal::HUP);
    worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10"));
    worker.signal_again(Signal::TERM);
    wait_exit(&mut worker, 0);
    tasks.assert_reports("task_failed", Some("graceful_shutdown"), 7);
}

#[test]
fn three_signals_with_a_drain_end_the_worker_and_the_next_one_adopts_the_tasks() {
    let (tasks, mut worker) = Tasks::start("10m", &ignores_sigterm());
    worker.signal(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10"));
    worker.signal_again(Signal::TERM);
    worker.wait_log(DEADLINE, |line| line.contains("tasks ending tasks=10"));
    worker.signal_again(Signal::TERM);
    wait_exit(&mut worker, 130);
    tasks.assert_reported_by_next_worker();
}
