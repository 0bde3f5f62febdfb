//! What must come of each run, and what has come of it.
//!
//! Owns the rules: a task that was started was started once, and has a true report; one that was claimed and never started
//! has a true report, or the worker has said that its claim was lost. It must not know how faults are made.

use std::collections::{HashMap, HashSet};

use crate::stage::Left;
use crate::support::control_plane::{ControlPlane, Received, Run, State};

/// The most mistakes that are told in words.
const MOST: usize = 10;

/// How a task ends if nobody cancels it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself: after so long, with so many bytes of output and this exit code.
    Exit { millis: u64, bytes: usize, code: i64 },
    /// Never begun, for this reason.
    Failure(&'static str),
}

struct Expected {
    end: End,
    cancelled: bool,
}

#[derive(Default)]
pub struct Ledger {
    /// What is not settled.
    expected: HashMap<String, Expected>,
    settled: HashSet<String>,
    wrong: Vec<String>,
    count: Count,
}

/// How many runs have ended in which way.
#[derive(Debug, Default)]
pub struct Count {
    pub completed: usize,
    pub failed: usize,
    pub cancelled: usize,
    /// Reported although the control plane had given up the run with its connection.
    pub late: usize,
    pub output_bytes: usize,
    /// Claimed, but the worker never learnt that its claim had arrived: given up by both, never started.
    pub void: usize,
    /// Cancelled before any claim came.
    pub unclaimed: usize,
}

fn reports(run: &Run) -> impl Iterator<Item = &Received> {
    run.history.iter().filter(|received| matches!(received.kind.as_str(), "task_completed" | "task_failed"))
}

impl Ledger {
    pub fn expect(&mut self, id: String, end: End) {
        self.expected.insert(id, Expected { end, cancelled: false });
    }

    /// This run may end in another way from now on.
    pub fn cancelled(&mut self, id: &str) {
        if let Some(expected) = self.expected.get_mut(id) {
            expected.cancelled = true;
        }
    }

    /// Checks what has been reported, and has the control plane forget it.
    pub fn settle(&mut self, plane: &ControlPlane) {
        for run in plane.forget(|run| reports(run).next().is_some()) {
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
        for again in reports {
            if (&again.kind, &again.data) != (&first.kind, &first.data) {
                self.wrong(format!("{}: reported in two ways", run.id));
            }
        }
        match (expected.end, first.kind.as_str(), first.data["failure_reason"].as_str()) {
            (End::Exit { bytes, code, .. }, "task_completed", None) => {
                let output = first.data["output"].as_str().unwrap_or_default();
                // A cancel that comes while the output is read cuts it short; nobody is waiting for it any more.
                let whole = output.len() == bytes || expected.cancelled && output.len() < bytes;
                if first.data["exit_code"] != code || !whole || !is_output(output, &run.id) {
                    let (got, head) = (output.len(), output.chars().take(80).collect::<String>());
                    let code_got = &first.data["exit_code"];
                    self.wrong(format!(
                        "{}: exit code {code_got} for {code}, {got} bytes for {bytes}: {head}",
                        run.id
                    ));
                }
                self.count.completed += 1;
                self.count.output_bytes += output.len();
            }
            (End::Failure(reason), "task_failed", Some(told)) if told == reason => self.count.failed += 1,
            (_, "task_failed", Some("task_cancelled")) if expected.cancelled => self.count.cancelled += 1,
            (end, kind, reason) => {
                self.wrong(format!("{}: {kind} {reason:?} {} for {end:?}", run.id, first.data["message"]));
            }
        }
    }

    fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Looks at what was never reported, and at every start; the error says what is not as it must be, with the worker's words
    /// about it.
    pub fn close(mut self, left: &Left) -> (Count, Result<(), String>) {
        let mut starts = HashSet::new();
        for id in &left.started {
            if !starts.insert(id.as_str()) {
                self.wrong(format!("{id}: started twice"));
            }
        }
        let lost = left.log.iter().filter_map(|line| line.split_once("claim lost task=")).map(|(_, id)| id);
        let lost: HashSet<&str> = lost.collect();
        for run in &left.runs {
            match (starts.contains(run.id.as_str()), run.state) {
                (true, _) => self.wrong(format!("{}: started, and never reported: {run:?}", run.id)),
                (false, State::Failed | State::Cancelled) if lost.contains(run.id.as_str()) => {
                    self.count.void += 1;
                }
                (false, State::Cancelled) if run.claims == 0 => self.count.unclaimed += 1,
                (false, _) => self.wrong(format!("{}: never reported, and nobody says why: {run:?}", run.id)),
            }
        }
        let known = |id: &str| self.settled.contains(id) || left.runs.iter().any(|run| run.id == id);
        if let Some(id) = starts.iter().find(|id| !known(id)) {
            self.wrong(format!("{id}: started, and nobody has asked for it"));
        }
        let whole = match self.wrong.as_slice() {
            [] => Ok(()),
            wrong => Err(format!("{} runs are not as they must be\n{}", wrong.len(), tell(wrong, &left.log))),
        };
        (self.count, whole)
    }
}

/// Each begins with the id of a run.
fn tell(wrong: &[String], log: &[String]) -> String {
    let mut lines = Vec::new();
    for what in wrong.iter().take(MOST) {
        let (id, _) = what.split_once(':').unwrap_or_default();
        lines.push(what.clone());
        lines.extend(log.iter().filter(|line| line.contains(id)).cloned());
    }
    lines.join("\n")
}

/// Whether this is what `yes ID | head -c ANY` says.
fn is_output(output: &str, id: &str) -> bool {
    let line = format!("{id}\n");
    output.as_bytes().chunks(line.len()).all(|part| line.as_bytes().starts_with(part))
}
