//! Several workers on one engine and one control plane, each with a cutter of its own before the control plane.
//!
//! Several, because one waits longer after each cut: fifty would take it an hour. Owns what is left of them on the engine,
//! and the one question that counts at the end: what has become of each run.

use serde_json::Value;

use super::{reports, starts};
use crate::support::control_plane::{Options, Run, State};
use crate::support::cutter::{Cutter, Manner};
use crate::support::dice::Dice;
use crate::support::process::Signal;
use crate::support::worker::Worker;
use crate::worker::gate::{Gate, PASS};
use crate::worker::{DEADLINE, Stage};

/// A worker and its cutter.
pub(super) struct Member {
    pub(super) id: String,
    pub(super) cutter: Cutter,
    pub(super) worker: Worker,
}

pub(super) struct Fleet {
    pub(super) stage: Stage,
    pub(super) gate: Gate,
    pub(super) members: Vec<Member>,
}

/// How the runs have ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Started once, and reported as what they were.
    pub(super) reported: usize,
    /// Claimed, but the worker never learnt that its claim had arrived: given up by both, and never started.
    pub(super) void: usize,
}

impl Fleet {
    /// One worker for each list of limits (see [`Cutter::seeded`]), with so many slots, connected or about to be.
    pub(super) fn new(limits: Vec<Vec<u64>>, slots: usize, dice: &mut Dice) -> Self {
        let (stage, gate) = (Stage::with(Options::default()), Gate::new());
        let mut fleet = Self { stage, gate, members: Vec::new() };
        limits.into_iter().for_each(|limits| fleet.enlist(limits, slots, dice));
        fleet
    }

    fn enlist(&mut self, limits: Vec<u64>, slots: usize, dice: &mut Dice) {
        let Self { stage, gate, members } = self;
        let id = format!("{}-{}", stage.worker_id, members.len());
        let manner = Manner { lag: [0, 3, 30][dice.size(0..=2)], dice: dice.split() };
        let cutter = Cutter::seeded(&format!("tcp://{}", stage.plane.address()), limits, manner);
        let (slots, mount) = (slots.to_string(), gate.mount());
        let args = ["--pull", "missing", "--max-concurrent-tasks", &slots, "-v", &mount];
        let worker = Worker::through(&cutter.address(), &stage.plane, &id).args(args).start();
        members.push(Member { id, cutter, worker });
    }

    /// A run that tells that it has been started, takes a while, and ends with this code.
    pub(super) fn submit(&self, millis: u64, exit_code: u64) -> String {
        self.submit_script(&format!("usleep {millis}000"), exit_code)
    }

    /// As [`Fleet::submit`], but it ends when the gate lets it.
    pub(super) fn submit_held(&self) -> String {
        self.submit_script(PASS, 0)
    }

    fn submit_script(&self, work: &str, exit_code: u64) -> String {
        let script = format!("echo $TASK_ID >> /gate/log; {work}; echo $TASK_ID $IMAGE; exit {exit_code}");
        let mut spec = self.stage.spec(&script);
        spec.prompt = exit_code.to_string();
        self.stage.plane.submit(spec)
    }

    /// Waits until the engine has nothing of theirs any more, neither tasks nor helpers.
    pub(super) fn wait_clean(&self) {
        for Member { id, .. } in &self.members {
            let engine = &self.stage.engine;
            self.stage.wait("no container is left", || engine.containers_of(id).is_empty());
        }
    }

    /// What has become of the runs; panics at the first that was lost, run twice or told otherwise than it was.
    pub(super) fn tally(&self) -> Tally {
        let (told, mut tally) = (self.gate.told(), Tally::default());
        let starts = starts(&told);
        let runs = self.stage.plane.runs();
        for run in &runs {
            match starts.get(run.id.as_str()).copied().unwrap_or_default() {
                0 => {
                    self.check_void(run);
                    tally.void += 1;
                }
                1 => {
                    check_reports(run);
                    tally.reported += 1;
                }
                more => panic!("started {more} times: {run:#?}"),
            }
        }
        assert!(starts.keys().all(|id| runs.iter().any(|run| run.id == *id)));
        tally
    }

    /// It was claimed, the worker has said that it dropped the claim, and the control plane has given up the run with
    /// the connection.
    fn check_void(&self, run: &Run) {
        let lost = format!("claim lost task={}", run.id);
        let dropped = |member: &Member| member.worker.stderr().all().iter().any(|line| line.contains(&lost));
        assert!(self.members.iter().any(dropped), "never started, and nobody says why: {run:#?}");
        assert_eq!((run.state, reports(run).len()), (State::Failed, 0), "{run:#?}");
        assert_eq!(run.message.as_deref(), Some("the worker disconnected"));
    }

    /// Ends all workers in good order.
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

/// At least one report, and each of them true.
fn check_reports(run: &Run) {
    let (reports, exit_code) = (reports(run), run.assignment["task"]["title"].as_str().unwrap());
    assert!(!reports.is_empty(), "started, and never reported: {run:#?}");
    for report in reports {
        assert_eq!((report.kind.as_str(), &report.data), ("task_completed", &reports_of(run)[0]), "{run:#?}");
        assert_eq!(report.data["output"], Value::from(format!("{} task\n", run.id)), "{run:#?}");
        assert_eq!(report.data["exit_code"].to_string(), exit_code, "{run:#?}");
    }
}

fn reports_of(run: &Run) -> Vec<Value> {
    reports(run).into_iter().map(|report| report.data.clone()).collect()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let ids: Vec<String> = self.members.drain(..).map(|member| member.id).collect();
        let engine = &self.stage.engine;
        for id in ids {
            for container in engine.containers_of(&id) {
                engine.remove_container(container["Id"].as_str().unwrap_or_default());
            }
            engine.volumes_of(&id).iter().for_each(|volume| engine.remove_volume(volume));
        }
    }
}
