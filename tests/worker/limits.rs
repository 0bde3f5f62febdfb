//! The limits of the worker's process: core dumps and open files.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::support::control_plane::{ControlPlane, Options, RunSpec, State};
use crate::support::engine::Engine;
use crate::support::sleeping_engine::SleepingEngine;
use crate::support::stage::DEADLINE;
use crate::support::worker::{Worker, WorkerBuilder, binary};

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
    let worker = WorkerBuilder::new(Path::new("setpriv")).args(limited).control_plane(plane, "limits");
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
fn without_file_descriptors_runs_are_given_back_and_no_task_fails() {
    let short = Options { claim_timeout: std::time::Duration::from_secs(1), ..Options::default() };
    let (engine, plane) = (SleepingEngine::start(), ControlPlane::start(short));
    let worker = start(&engine, &plane);
    for _ in 0..TASKS {
        plane.submit(RunSpec::quiet("task:1", "sidecar:1", ""));
    }
    worker.wait_log(DEADLINE, |line| {
        line.contains("task rejected")
            && line.contains("no file descriptors for the task: Too many open files")
    });
    // Each task that ends lets another one start.
    let client = Engine::at(&engine.host());
    let ended =
        |count| plane.view(|model| model.runs.iter().filter(|run| run.state.ended()).count() >= count);
    let end = std::time::Instant::now() + DEADLINE;
    while !ended(TASKS) {
        assert!(std::time::Instant::now() < end, "{:#?}", worker.stderr().all());
        for container in client.containers("status", "running") {
            let id = container["Id"].as_str().unwrap();
            client.request("POST", &format!("/containers/{id}/kill"), &[], &[]);
        }
        plane.holds_within(std::time::Duration::from_millis(100), |_| false);
    }
    assert!(plane.view(|model| model.runs.iter().all(|run| run.state == State::Succeeded)));
    plane.assert_no_violations();
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("engine away") || line.contains("panicked")), "{log:#?}");
}
