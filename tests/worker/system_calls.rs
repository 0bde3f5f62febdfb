//! The system calls of the worker, counted by strace. Unlike times, they are about the same on a busy machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::threads::{kill, on, spec, wait_containers};
use crate::support::control_plane::{ControlPlane, Options, State};
use crate::support::sleeping_engine::SleepingEngine;
use crate::support::stage::DEADLINE;
use crate::support::worker::{Worker, WorkerBuilder, binary};

/// The most calls from the start of the process to the connection; the loader of a dynamic binary makes some of them.
const START: usize = 330;

/// The most calls of a warm task, from its assignment to the next. Some 50 of them look up the run.
const TASK: usize = 145;

/// The most threads that a warm task starts: for its look-ups and its removal. Its job uses the thread of the task before.
const TASK_THREADS: usize = 2;

/// How many tasks are run.
const TASKS: usize = 8;

/// What depends on how threads meet: how often they wait for each other.
const UNCOUNTED: [&str; 2] = ["futex", "sched_yield"];

/// A worker under strace, with an engine on which every container sleeps.
struct Traced {
    engine: SleepingEngine,
    plane: ControlPlane,
    _worker: Worker,
    folder: TempDir,
}

impl Traced {
    /// Returns a connected worker, or `None` if no process can be traced here, and says so.
    fn start() -> Option<Self> {
        let probe = Command::new("strace").args(["-o", "/dev/null", "true"]).output().expect("strace runs");
        let problem = String::from_utf8_lossy(&probe.stderr);
        if problem.contains("Operation not permitted") {
            // Not `eprintln!`, which the test runner keeps to itself.
            let _ = writeln!(std::io::stderr(), "system calls are not counted: ptrace is not permitted here");
            return None;
        }
        assert!(probe.status.success(), "{problem}");
        let (engine, plane) = (SleepingEngine::start(), ControlPlane::start(Options::default()));
        let folder = tempfile::tempdir().unwrap();
        // With -D the worker is the direct child, which is killed with the test; strace ends with it.
        let trace = folder.path().join("trace");
        let options = ["-D", "-f", "-s", "4096", "-o", trace.to_str().unwrap()];
        let builder = WorkerBuilder::new(Path::new("strace")).args(options);
        let worker = on(&engine, &plane, builder.args([binary().to_str().unwrap()])).start();
        plane.wait_connected(1);
        Some(Self { engine, plane, _worker: worker, folder })
    }

    fn run_task(&self) {
        let id = self.plane.submit(spec());
        kill(&self.engine, &wait_containers(&self.engine, 1)[0]);
        assert_eq!(self.plane.wait_ended(&id).state, State::Succeeded);
        wait_containers(&self.engine, 0);
    }

    /// Returns the lines of the trace once `count` of them contain `text`.
    fn lines(&self, text: &str, count: usize) -> Vec<String> {
        let (path, end): (PathBuf, _) = (self.folder.path().join("trace"), Instant::now() + DEADLINE);
        loop {
            let trace = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            if trace.lines().filter(|line| line.contains(text)).count() >= count {
                return trace.lines().map(str::to_owned).collect();
            }
            assert!(Instant::now() < end, "{text:?} is not {count} times in the trace:\n{trace}");
            std::thread::yield_now();
        }
    }
}

/// Returns the names of the system calls that begin in these lines.
fn calls(lines: &[String]) -> Vec<&str> {
    // "12 read(3, ..." and "12 read(3, ... <unfinished ...>", but neither "12 <... read resumed>" nor "12 +++ exited with 0 +++".
    let words = lines.iter().filter_map(|line| line.split_whitespace().nth(1));
    let names = words.filter_map(|word| word.split_once('(')).map(|(name, _)| name);
    names.filter(|name| !UNCOUNTED.contains(name)).collect()
}

#[test]
fn the_way_to_the_connection_takes_few_system_calls() {
    let Some(traced) = Traced::start() else { return };
    let lines = traced.lines("HTTP/1.1 101", 1);
    let end = lines.iter().position(|line| line.contains("HTTP/1.1 101")).unwrap();
    let calls = calls(&lines[..end]);
    assert!(calls.len() <= START, "{} calls: {calls:?}", calls.len());
}

#[test]
fn a_warm_task_takes_few_system_calls_and_threads() {
    let Some(traced) = Traced::start() else { return };
    (0..TASKS).for_each(|_| traced.run_task());
    let lines = traced.lines("task_assignment", TASKS);
    let assigned: Vec<usize> =
        (0..lines.len()).filter(|&place| lines[place].contains("task_assignment")).collect();
    // The least of some tasks: one may be assigned before the thread of the one before is free. The first ones find nothing warm.
    let tasks = assigned.windows(2).skip(1).map(|window| calls(&lines[window[0]..window[1]]));
    let calls = tasks.min_by_key(Vec::len).unwrap();
    let threads = calls.iter().filter(|name| name.starts_with("clone")).count();
    assert!(calls.len() <= TASK, "{} calls: {calls:?}", calls.len());
    assert!(threads <= TASK_THREADS, "{threads} threads: {calls:?}");
}
