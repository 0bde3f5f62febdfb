//! The expected and the actual outcome of each run.
//!
//! A task that was started was started once and has a correct report. A task that was claimed but not started has a
//! correct report, or the worker's log says that the claim was lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::setup::Remains;
use crate::support::control_plane::{ControlPlane, Received, Run, State};

/// How long the worker may look up a run that has ended. A run that is removed before would be unknown.
const LOOKED_UP: Duration = Duration::from_secs(60);

/// What the worker tells a run that waits for a claim that was lost.
const LOST_CLAIM: &str = "the worker lost the claim of this run and did not start its task";

/// How many errors are described at most.
const MAX_DESCRIBED: usize = 10;

/// How a task ends unless it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The script exits: after this time, with this number of bytes of output and this exit code.
    Exit { millis: u64, bytes: usize, code: i64 },
    /// It is never started, for this failure reason.
    Failure(&'static str),
}

struct Expected {
    end: End,
    cancelled: bool,
}

#[derive(Default)]
pub struct Ledger {
    /// Runs without a report.
    expected: HashMap<String, Expected>,
    /// Runs whose report was checked.
    settled: HashSet<String>,
    /// Runs that the worker has failed because their claim was lost.
    unstarted: HashSet<String>,
    /// Each begins with the id of a run and a colon.
    errors: Vec<String>,
    count: Count,
}

/// The number of runs for each kind of end.
#[derive(Debug, Default)]
pub struct Count {
    pub completed: usize,
    pub failed: usize,
    pub cancelled: usize,
    /// Reported after the control plane had failed the run with its connection.
    pub late: usize,
    pub output_bytes: usize,
    /// Claimed, but the worker never received the confirmation: failed at the control plane, and never started.
    pub void: usize,
    /// Cancelled before a claim arrived.
    pub unclaimed: usize,
}

fn reports(run: &Run) -> impl Iterator<Item = &Received> {
    run.history.iter().filter(|received| matches!(received.kind.as_str(), "task_completed" | "task_failed"))
}

impl Ledger {
    pub fn expect(&mut self, id: String, end: End) {
        self.expected.insert(id, Expected { end, cancelled: false });
    }

    /// Notes that a run was cancelled; from now on it may end in either way.
    pub fn cancelled(&mut self, id: &str) {
        if let Some(expected) = self.expected.get_mut(id) {
            expected.cancelled = true;
        }
    }

    /// Checks the reported runs and removes them from the control plane, except those that have ended within [`LOOKED_UP`].
    pub fn settle_old(&mut self, plane: &ControlPlane) {
        self.settle_older(plane, LOOKED_UP);
    }

    /// Checks the reported runs and removes them from the control plane. The worker must be idle.
    pub fn settle(&mut self, plane: &ControlPlane) {
        self.settle_older(plane, Duration::ZERO);
    }

    fn settle_older(&mut self, plane: &ControlPlane, age: Duration) {
        for run in plane.forget(|run| run.changed.elapsed() >= age && reports(run).next().is_some()) {
            if let Some(expected) = self.expected.remove(&run.id) {
                self.check(&run, &expected);
            }
            self.settled.insert(run.id);
        }
    }

    fn check(&mut self, run: &Run, expected: &Expected) {
        self.count.late += usize::from(run.message.as_deref() == Some("the worker disconnected"));
        let mut reports = reports(run);
        let Some(first) = reports.next() else { return };
        for other in reports {
            if (&other.kind, &other.data) != (&first.kind, &first.data) {
                self.errors.push(format!("{}: two different reports", run.id));
            }
        }
        if first.data["message"] == LOST_CLAIM {
            self.count.void += 1;
            self.unstarted.insert(run.id.clone());
            return;
        }
        match (expected.end, first.kind.as_str(), first.data["failure_reason"].as_str()) {
            (End::Exit { bytes, code, .. }, "task_completed", None) => {
                let output = first.data["output"].as_str().unwrap_or_default();
                // A cancel while the output is read truncates it.
                let complete = output.len() == bytes || expected.cancelled && output.len() < bytes;
                if first.data["exit_code"] != code || !complete || !is_output(output, &run.id) {
                    let head: String = output.chars().take(80).collect();
                    self.errors.push(format!(
                        "{}: exit code {}, expected {code}; {} bytes of output, expected {bytes}: {head}",
                        run.id,
                        first.data["exit_code"],
                        output.len()
                    ));
                }
                self.count.completed += 1;
                self.count.output_bytes += output.len();
            }
            (End::Failure(reason), "task_failed", Some(actual)) if actual == reason => self.count.failed += 1,
            (_, "task_failed", Some("task_cancelled")) if expected.cancelled => self.count.cancelled += 1,
            (end, kind, reason) => {
                let message = &first.data["message"];
                self.errors.push(format!("{}: {kind} {reason:?} {message}, expected {end:?}", run.id));
            }
        }
    }

    /// Checks the runs without a report, and the starts. Returns the counts, and an error that describes the problems, with
    /// the worker's log lines about them.
    pub fn close(mut self, remains: &Remains) -> (Count, Result<(), String>) {
        let mut starts = HashSet::new();
        for id in &remains.started {
            if !starts.insert(id.as_str()) {
                self.errors.push(format!("{id}: started twice"));
            }
            if self.unstarted.contains(id) {
                self.errors.push(format!("{id}: started, and failed because its claim was lost"));
            }
        }
        let lost =
            remains.log.iter().filter_map(|line| line.split_once("claim lost task=")).map(|(_, id)| id);
        let lost: HashSet<&str> = lost.collect();
        for run in &remains.runs {
            match (starts.contains(run.id.as_str()), run.state) {
                (true, _) => self.errors.push(format!("{}: started but never reported: {run:?}", run.id)),
                (false, State::Failed | State::Cancelled) if lost.contains(run.id.as_str()) => {
                    self.count.void += 1;
                }
                (false, State::Cancelled) if run.claims == 0 => self.count.unclaimed += 1,
                (false, _) => {
                    self.errors.push(format!("{}: neither started, reported nor given up: {run:?}", run.id));
                }
            }
        }
        let known = |id: &str| self.settled.contains(id) || remains.runs.iter().any(|run| run.id == id);
        if let Some(id) = starts.iter().find(|id| !known(id)) {
            self.errors.push(format!("{id}: started but never submitted"));
        }
        let result = match self.errors.as_slice() {
            [] => Ok(()),
            errors => Err(format!("{} errors\n{}", errors.len(), describe(errors, &remains.log))),
        };
        (self.count, result)
    }
}

/// Lists the errors, each followed by the log lines about its run.
fn describe(errors: &[String], log: &[String]) -> String {
    let mut lines = Vec::new();
    for error in errors.iter().take(MAX_DESCRIBED) {
        let (id, _) = error.split_once(':').unwrap_or_default();
        lines.push(error.clone());
        lines.extend(log.iter().filter(|line| line.contains(id)).cloned());
    }
    lines.join("\n")
}

/// Whether this is a prefix of what `yes ID` prints.
fn is_output(output: &str, id: &str) -> bool {
    let line = format!("{id}\n");
    output.as_bytes().chunks(line.len()).all(|part| line.as_bytes().starts_with(part))
}
