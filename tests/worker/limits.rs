//! The limits of the worker's process: core dumps and open files.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::control_plane::{ControlPlane, Model, Options, RunSpec};
use crate::support::engine::Engine;
use crate::support::sleeping_engine::SleepingEngine;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::{Worker, WorkerBuilder, binary, worker_id};

/// The soft and the hard limit on open files at the start.
const OPEN_FILES: &str = "--nofile=16:48";

/// More tasks than the hard limit allows at the same time.
const TASKS: usize = 40;

/// Starts a worker with few open files, as another user, since the kernel shows whether a process may be dumped by the owner of its
/// files in /proc.
fn start(engine: &SleepingEngine, plane: &ControlPlane) -> Worker {
    assert!(rustix::process::geteuid().is_root(), "only root can start a worker as another user");
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    // The user may not be allowed to read the target folder.
    let program = folder.path().join("worker");
    std::fs::copy(binary(), &program).unwrap();
    let limited = ["--reuid", "1000001", "--clear-groups", "prlimit", OPEN_FILES, program.to_str().unwrap()];
    let slots = TASKS.to_string();
    let worker = WorkerBuilder::new(Path::new("setpriv")).args(limited).control_plane(plane, &worker_id());
    let worker = worker.args(["--pull", "missing", "--max-concurrent-tasks", &slots]);
    let worker = worker.env("DOCKER_HOST", &engine.host()).start();
    plane.wait_connected(1);
    worker.wait_log(DEADLINE, |line| line.contains("worker ready"));
    worker
}

#[test]
fn a_worker_cannot_be_dumped_and_uses_the_hard_limit_on_open_files() {
    let (engine, plane) = (SleepingEngine::start(), ControlPlane::start(Options::default()));
    let worker = start(&engine, &plane);
    let process = format!("/proc/{}", worker.id());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    assert!(status.contains("\nUid:\t1000001\t"), "{status}");
    assert_eq!(
        std::fs::metadata(format!("{process}/environ")).unwrap().uid(),
        0,
        "the process may be dumped"
    );
    let limits = std::fs::read_to_string(format!("{process}/limits")).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = open_files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["48", "48"], "{limits}");
}

#[test]
fn without_file_descriptors_runs_are_given_back_unclaimed() {
    let short = Options { claim_timeout: Duration::from_secs(1), ..Options::default() };
    let (engine, plane) = (SleepingEngine::start(), ControlPlane::start(short));
    let worker = start(&engine, &plane);
    let client = Engine::at(&engine.host());
    // The system's own words follow, which differ between glibc and musl.
    let is_rejected =
        |line: &String| line.contains("task rejected") && line.contains("no file descriptors for the task: ");
    let rejected = || worker.stderr().all().iter().any(is_rejected);
    let end = Instant::now() + DEADLINE;
    // One after another, so that each has all the descriptors that it needs before the next comes.
    for count in 1..=TASKS {
        plane.submit(RunSpec::quiet("task:1", "sidecar:1", ""));
        while client.containers("status", "running").len() < count && !rejected() {
            assert!(Instant::now() < end, "{:#?}", worker.stderr().all());
            std::thread::yield_now();
        }
    }
    assert!(rejected(), "{:#?}", worker.stderr().all());
    let claimed = |model: &Model| model.runs.iter().filter(|run| run.claims > 0).count();
    assert!(plane.view(claimed) < TASKS, "a run without descriptors was claimed");
    assert!(plane.view(|model| model.runs.iter().all(|run| !run.state.ended())), "a task failed");
    plane.assert_no_violations();
}

/// All runs come at once, so that their tasks have too few descriptors while they are prepared.
#[test]
fn tasks_that_run_out_of_file_descriptors_are_delayed_and_succeed() {
    let short = Options { claim_timeout: Duration::from_secs(1), ..Options::default() };
    let stage = Stage::with(short);
    let program = binary();
    let limited = ["--nofile=40:40", program.to_str().unwrap()];
    let worker = WorkerBuilder::new(Path::new("prlimit")).args(limited);
    let worker = worker.control_plane(&stage.plane, &stage.worker_id).env("DOCKER_HOST", stage.engine.host());
    let worker = stage.start(worker.args(["--pull", "missing", "--max-concurrent-tasks", "12"]));
    let ids: Vec<_> = (0..12).map(|_| stage.plane.submit(stage.spec("exit 3"))).collect();
    for id in &ids {
        let run = stage.plane.wait_ended(id);
        assert_eq!(run.exit_code, Some(3), "{run:#?}\n{:#?}", worker.stderr().all());
    }
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("engine away") || line.contains("panicked")), "{log:#?}");
    stage.wait_clean();
    stage.stop(worker);
}
