//! Several workers on one engine and one control plane, each connected through a separate fault proxy.
//!
//! A worker backs off longer after each fault, so with a single worker thirty faults would take half an hour.

use super::{LOST_CLAIM, end_of, exited, is_lost_claim, output, reports, starts};
use crate::support::control_plane::{Dialect, Options, Run, State};
use crate::support::fault_proxy::{FaultProxy, Jitter};
use crate::support::process::Signal;
use crate::support::rng::Rng;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::Worker;

/// A worker and its fault proxy.
pub(super) struct Member {
    pub(super) id: String,
    pub(super) proxy: FaultProxy,
    pub(super) worker: Worker,
}

pub(super) struct Fleet {
    dialect: Dialect,
    pub(super) stage: Stage,
    pub(super) sync: SyncDir,
    pub(super) members: Vec<Member>,
}

/// How the runs ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Started once, with correct reports.
    pub(super) reported: usize,
    /// Claimed, but the worker never received the confirmation: failed at the control plane, and never started.
    pub(super) void: usize,
}

impl Fleet {
    /// Starts one worker with `slots` slots for each list of limits (see [`FaultProxy::seeded`]).
    pub(super) fn new(dialect: Dialect, limits: Vec<Vec<u64>>, slots: usize, rng: &mut Rng) -> Self {
        let stage = Stage::with(Options { dialect, ..Options::default() });
        let sync = SyncDir::new();
        let mut fleet = Self { dialect, stage, sync, members: Vec::new() };
        limits.into_iter().for_each(|limits| fleet.add_worker(limits, slots, rng));
        fleet
    }

    fn add_worker(&mut self, limits: Vec<u64>, slots: usize, rng: &mut Rng) {
        let Self { stage, sync, members, .. } = self;
        let id = format!("{}-{}", stage.worker_id, members.len());
        let jitter = Jitter { max_delay_ms: [0, 3, 30][rng.usize(0..=2)], rng: rng.fork() };
        let proxy = FaultProxy::seeded(&format!("tcp://{}", stage.plane.address()), limits, jitter);
        let (slots, mount) = (slots.to_string(), sync.mount());
        let args = ["--max-concurrent-tasks", &slots, "-v", &mount];
        // The control plane fails the runs of a connection that ends; the worker must still finish and report them.
        let args = args.into_iter().chain(["--lost-runs", "finish"]);
        let worker = stage.worker_via(&id, &proxy.address()).args(args).start();
        members.push(Member { id, proxy, worker });
    }

    /// Submits a run that records its start, sleeps, and exits with `exit_code`.
    pub(super) fn submit(&self, millis: u64, exit_code: u64) -> String {
        self.submit_script(&format!("usleep {millis}000"), exit_code)
    }

    /// As [`Fleet::submit`], but the task waits for [`SyncDir::release`] and exits with 0.
    pub(super) fn submit_held(&self) -> String {
        self.submit_script(WAIT, 0)
    }

    fn submit_script(&self, work: &str, exit_code: u64) -> String {
        let script = format!("echo $TASK_ID >> /sync/log; {work}; echo $TASK_ID $IMAGE; exit {exit_code}");
        let mut spec = self.stage.spec(&script);
        spec.prompt = exit_code.to_string();
        self.stage.plane.submit(spec)
    }

    /// Waits until the engine has no container of these workers.
    pub(super) fn wait_clean(&self) {
        for Member { id, .. } in &self.members {
            let engine = &self.stage.engine;
            self.stage.wait("no container is left", || engine.containers_of(id).is_empty());
        }
    }

    /// Returns how the runs ended. Panics if one was lost, run twice or reported incorrectly.
    pub(super) fn tally(&self) -> Tally {
        let (lines, mut tally) = (self.sync.lines(), Tally::default());
        let starts = starts(&lines);
        let runs = self.stage.plane.runs();
        for run in &runs {
            match starts.get(run.id.as_str()).copied().unwrap_or_default() {
                0 => {
                    self.check_void(run);
                    tally.void += 1;
                }
                1 => {
                    self.check_reports(run);
                    tally.reported += 1;
                }
                more => panic!("started {more} times: {run:#?}"),
            }
        }
        assert!(starts.keys().all(|id| runs.iter().any(|run| run.id == *id)));
        tally
    }

    /// Checks that the run has at least one report, and that all are correct.
    fn check_reports(&self, run: &Run) {
        let code = run.assignment["task"]["title"].as_str().unwrap().parse().unwrap();
        let output = output(self.dialect, &format!("{} task\n", run.id));
        // Another worker may have lost the claim of the same run before.
        let reports: Vec<_> = reports(run).into_iter().filter(|report| !is_lost_claim(report)).collect();
        assert!(!reports.is_empty(), "started but never reported: {run:#?}");
        for report in &reports {
            assert_eq!(
                (end_of(report), &report.data),
                (exited(self.dialect, code), &reports[0].data),
                "{run:#?}"
            );
            assert_eq!(report.data["output"], output, "{run:#?}");
        }
    }

    /// Checks that the worker's log says that the claim was lost, and that the control plane failed the run with the
    /// connection, or because the worker told it.
    fn check_void(&self, run: &Run) {
        let lost = format!("claim lost task={}", run.id);
        let dropped = |member: &Member| member.worker.stderr().all().iter().any(|line| line.contains(&lost));
        assert!(self.members.iter().any(dropped), "never started, and no worker lost its claim: {run:#?}");
        assert!(run.state == State::Failed && reports(run).into_iter().all(is_lost_claim), "{run:#?}");
        let message = run.message.as_deref().unwrap_or_default();
        assert!(message == "the worker disconnected" || message.ends_with(LOST_CLAIM), "{run:#?}");
    }

    /// Stops all workers with SIGTERM and checks that they exit with 0.
    pub(super) fn stop(mut self) {
        for Member { worker, .. } in &self.members {
            worker.signal(Signal::TERM);
        }
        for Member { worker, .. } in &mut self.members {
            assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
        }
        self.stage.plane.assert_no_violations();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Kills the workers first.
        let ids: Vec<String> = self.members.drain(..).map(|member| member.id).collect();
        ids.iter().for_each(|id| self.stage.engine.remove_all_of(id));
    }
}
