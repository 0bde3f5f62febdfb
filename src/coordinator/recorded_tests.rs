//! The frames that were recorded of the worker which the public control plane documents, and what this worker sends in each case.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::tests::*;
use super::*;
use crate::protocol::{Dialect, EncodedReport, Report, RunResult, decode, encode};

const CASES: &str = include_str!("../../tests/data/upstream-frames.json");

/// A worker, and the frames that it has sent.
struct Worker {
    script: Script,
    jobs: BTreeMap<ExecutionKey, JobId>,
    /// Why tasks are to end.
    ends: BTreeMap<JobId, CancelReason>,
    /// Jobs whose containers are about to be removed.
    settled: Vec<JobId>,
    frames: Vec<Value>,
}

impl Worker {
    fn new(slots: usize) -> Self {
        Self {
            script: Script::connected(slots),
            jobs: BTreeMap::new(),
            ends: BTreeMap::new(),
            settled: Vec::new(),
            frames: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) {
        for effect in self.script.on(event) {
            match effect {
                Effect::Start { job, work: Work::Run(assignment) } => {
                    self.jobs.insert(assignment.key.clone(), job);
                }
                Effect::Settle { job, .. } => self.settled.push(job),
                Effect::Cancel { job, reason } => drop(self.ends.insert(job, reason)),
                Effect::Send { seq, message } => {
                    let text = encode(&message, "w1");
                    self.frames.push(summary(&serde_json::from_str(&text).unwrap()));
                    if let Some(seq) = seq {
                        self.on(Event::Confirmed { seq });
                    }
                }
                _ => {}
            }
        }
    }

    /// The task of this execution ends with this result, as a task thread reports it.
    fn end(&mut self, id: &str, result: RunResult) {
        let (key, job) = (key(id), self.jobs[&key(id)]);
        let dialect = Dialect::Upstream;
        let is_cancelled = self.ends.get(&job) == Some(&CancelReason::Requested);
        let result = if is_cancelled && dialect.cancel_wins(&result) {
            failure(FailureReason::TaskCancelled, FailureReason::TaskCancelled)
        } else {
            result
        };
        let report = Report { result, ..Report::failed(&key, dialect, FailureReason::Internal, "m") };
        let report = Arc::new(EncodedReport::new(report, "w1"));
        self.on(Event::Job(job, JobEvent::Finished { report, left: left(id) }));
    }

    /// The containers of the reported tasks are removed.
    fn removed(&mut self) {
        for job in std::mem::take(&mut self.settled) {
            self.on(Event::Job(job, JobEvent::Done(Removal::Gone)));
        }
    }

    fn step(&mut self, step: &str) {
        let words: Vec<&str> = step.split(' ').collect();
        let exit = |code: &str, out_of_memory| RunResult::Completed {
            exit_code: code.parse().unwrap(),
            out_of_memory,
            note: None,
        };
        match words[..] {
            ["slots", slots] => self.script = Script::connected(slots.parse().unwrap()),
            ["assign", id] => self.on(upstream(id)),
            ["cancel", id] => self.on(cancel(id)),
            ["signal"] => self.on(Event::Signal),
            ["down"] => self.on(Event::LinkDown),
            ["up"] => self.on(Event::LinkUp),
            // Its container is still there.
            ["report", id] => return self.end(id, exit("0", false)),
            ["removed", _] => {}
            [kind, id, ref rest @ ..] => {
                let result = match (kind, rest) {
                    ("exit", [code]) => exit(code, false),
                    ("oom", [code]) => exit(code, true),
                    ("fail", ["image_pull"]) => failure(FailureReason::ImagePull, FailureReason::ImagePull),
                    ("unreachable", ["image_pull"]) => {
                        failure(FailureReason::DockerUnreachable, FailureReason::ImagePull)
                    }
                    ("ends", []) => {
                        let reason = match self.ends[&self.jobs[&key(id)]] {
                            CancelReason::Shutdown => FailureReason::GracefulShutdown,
                            _ => FailureReason::TaskCancelled,
                        };
                        failure(reason, reason)
                    }
                    _ => panic!("{step}"),
                };
                self.end(id, result);
            }
            _ => panic!("{step}"),
        }
        self.removed();
    }

    /// A message of the control plane; what it assigns succeeds.
    fn receive(&mut self, text: &str) {
        match decode(text, Dialect::of_host("oz.warp.dev")) {
            Ok(Incoming::Assignment(assignment)) => {
                let key = assignment.key.clone();
                self.on(Event::Message(Incoming::Assignment(assignment)));
                let id = match &key.execution_id {
                    Some(execution) => format!("{}/{execution}", key.task_id),
                    None => key.task_id.clone(),
                };
                self.step(&format!("exit {id} 0"));
            }
            Ok(message) => self.on(Event::Message(message)),
            Err(invalid) => self.on(Event::Invalid(invalid)),
        }
    }
}

fn failure(reason: FailureReason, step: FailureReason) -> RunResult {
    RunResult::Failed { reason, step, message: "m".into(), exit_code: Some(143) }
}

/// A frame as the file with the cases has it. Every terminal one has a message, and every claim the worker.
fn summary(frame: &Value) -> Value {
    let data = &frame["data"];
    let is_terminal = frame["type"] == "task_completed" || frame["type"] == "task_failed";
    assert_eq!(is_terminal, data["message"].as_str().is_some_and(|text| !text.is_empty()), "{frame}");
    assert_eq!(frame["type"] == "task_claimed", data["worker_id"] == "w1", "{frame}");
    let fields = ["failure_reason", "exit_code", "task_state", "reason"];
    let fields = fields.iter().map(|name| data[name].clone()).filter(|value| !value.is_null());
    Value::from_iter([frame["type"].clone(), data["task_id"].clone()].into_iter().chain(fields))
}

#[test]
fn every_recorded_case_sends_the_recorded_frames_or_says_why_not() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let mut differ = 0;
    for case in cases {
        let name = &case["case"];
        let mut worker = Worker::new(6);
        for step in case["steps"].as_array().into_iter().flatten() {
            worker.step(step.as_str().unwrap());
        }
        if let Some(text) = case["sent"].as_str() {
            worker.receive(text);
        }
        let Some(reason) = case["differs"].as_str() else {
            assert_eq!(json!(worker.frames), case["frames"], "{name}");
            continue;
        };
        differ += 1;
        assert!(reason.len() > 20, "{name}");
        match &case["ours"] {
            Value::Null => assert!(case["steps"].is_null() && case["sent"].is_null(), "{name} says nothing"),
            ours => {
                assert_eq!(json!(worker.frames), *ours, "{name}");
                assert_ne!(*ours, case["frames"], "{name} no longer differs");
            }
        }
    }
    assert_eq!((cases.len(), differ), (62, DIFFER));
}

/// How many cases differ.
const DIFFER: usize = 27;
