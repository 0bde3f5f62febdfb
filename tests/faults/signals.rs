//! One, two and three signals with ten tasks running, with and without a drain: the exit code, one correct report for each
//! task, and nothing left behind.

use super::{End, end_of, exited, in_both_dialects, reports, shut_down};
use crate::support::control_plane::{Dialect, Options};
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
    dialect: Dialect,
    stage: Stage,
    sync: SyncDir,
    ids: Vec<String>,
}

impl Tasks {
    /// Starts a worker with this drain time-out, and ten tasks with this script.
    fn start(dialect: Dialect, drain: &str, script: &str) -> (Self, Worker) {
        let stage = Stage::with(Options { dialect, ..Options::default() });
        let mut tasks = Self { dialect, stage, sync: SyncDir::new(), ids: Vec::new() };
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
    fn assert_reports(&self, expected: &End) {
        for id in &self.ids {
            self.stage.plane.wait_message(id, &expected.0);
            let run = self.stage.plane.run(id);
            assert_eq!((reports(&run).len(), &end_of(reports(&run)[0])), (1, expected));
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
            self.stage
                .plane
                .wait_for(DEADLINE, |model| model.run(id).is_some_and(|run| !reports(run).is_empty()));
            let run = self.stage.plane.run(id);
            let end = end_of(reports(&run)[0]);
            let possible =
                [exited(self.dialect, 3), shut_down(self.dialect, 3), shut_down(self.dialect, 137)];
            assert!(possible.contains(&end), "{run:#?}");
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
    in_both_dialects(|dialect| {
        let (tasks, mut worker) = Tasks::start(dialect, "0", EXITS_ON_SIGTERM);
        worker.signal(Signal::TERM);
        wait_exit(&mut worker, 0);
        tasks.assert_reports(&shut_down(dialect, 7));
        let log = worker.stderr().all().join("\n");
        assert!(log.contains("stopping tasks=10 backlog=0 drain_s=0 budget_s=73"), "{log}");
    });
}

#[test]
fn two_signals_without_a_drain_end_the_worker_and_the_next_one_adopts_the_tasks() {
    in_both_dialects(|dialect| {
        let (tasks, mut worker) = Tasks::start(dialect, "0", &ignores_sigterm());
        worker.signal(Signal::TERM);
        worker.wait_log(DEADLINE, |line| line.contains("tasks ending tasks=10"));
        worker.signal_again(Signal::TERM);
        wait_exit(&mut worker, 130);
        tasks.assert_reported_by_next_worker();
    });
}

#[test]
fn one_signal_with_a_drain_lets_all_tasks_finish() {
    in_both_dialects(|dialect| {
        let (tasks, mut worker) = Tasks::start(dialect, "10m", &ignores_sigterm());
        worker.signal(Signal::TERM);
        worker
            .wait_log(DEADLINE, |line| line.contains("stopping tasks=10 backlog=0 drain_s=600 budget_s=673"));
        let late = tasks.stage.plane.submit(tasks.stage.spec("exit 0"));
        assert_eq!(
            tasks.stage.plane.wait_message(&late, "task_rejected").data["reason"],
            "the worker is stopping"
        );
        tasks.sync.release(TASKS);
        wait_exit(&mut worker, 0);
        tasks.assert_reports(&exited(dialect, 3));
    });
}

#[test]
fn a_drain_that_times_out_stops_and_reports_all_tasks() {
    in_both_dialects(|dialect| {
        let (tasks, mut worker) = Tasks::start(dialect, "1s", EXITS_ON_SIGTERM);
        worker.signal(Signal::INT);
        wait_exit(&mut worker, 0);
        tasks.assert_reports(&shut_down(dialect, 7));
    });
}

#[test]
fn two_signals_with_a_drain_stop_and_report_all_tasks() {
    in_both_dialects(|dialect| {
        let (tasks, mut worker) = Tasks::start(dialect, "10m", EXITS_ON_SIGTERM);
        worker.signal(Signal::HUP);
        worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10"));
        worker.signal_again(Signal::TERM);
        wait_exit(&mut worker, 0);
        tasks.assert_reports(&shut_down(dialect, 7));
    });
}

#[test]
fn three_signals_with_a_drain_end_the_worker_and_the_next_one_adopts_the_tasks() {
    in_both_dialects(|dialect| {
        let (tasks, mut worker) = Tasks::start(dialect, "10m", &ignores_sigterm());
        worker.signal(Signal::TERM);
        worker.wait_log(DEADLINE, |line| line.contains("stopping tasks=10"));
        worker.signal_again(Signal::TERM);
        worker.wait_log(DEADLINE, |line| line.contains("tasks ending tasks=10"));
        worker.signal_again(Signal::TERM);
        wait_exit(&mut worker, 130);
        tasks.assert_reported_by_next_worker();
    });
}
