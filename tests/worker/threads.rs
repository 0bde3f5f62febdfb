//! The threads of a running worker are those that the crate's documentation lists.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::control_plane::{ControlPlane, Options, RunSpec, State};
use crate::support::engine::Engine;
use crate::support::sleeping_engine::SleepingEngine;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::{Worker, WorkerBuilder, binary, worker_id};
use crate::tidy;

/// Threads that an idle worker does not have.
const WITH_WORK: [&str; 10] = [
    "oz-task-N",
    "oz-clean-N",
    "oz-limit",
    "oz-poller-N",
    "oz-resolve",
    "oz-ping",
    "oz-disk",
    "oz-sweep",
    "oz-trust",
    "oz-step",
];

/// Returns the first column of the table of threads in `src/lib.rs`.
fn documented() -> Vec<String> {
    let text = tidy::read("src/lib.rs");
    let mut lines = text.lines().skip_while(|line| !line.starts_with("//! | thread |"));
    assert!(lines.next().is_some(), "src/lib.rs has no table of threads");
    let rows = lines.skip(1).map_while(|line| line.strip_prefix("//! |"));
    let names = rows.flat_map(|row| row.split('|').next().unwrap().split(','));
    names.map(|name| name.replace('`', "").trim().to_owned()).collect()
}

/// Returns the names of a worker's threads as the table has them, with their number.
fn running(id: u32) -> BTreeMap<String, usize> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    // A thread may end before its name is read.
    let names =
        threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    let as_documented = |name: String| match name.trim().rsplit_once('-') {
        Some(("oz-agent", "worker")) => "main".to_owned(),
        Some((name, number)) if number.parse::<u32>().is_ok() => format!("{name}-N"),
        _ => name.trim().to_owned(),
    };
    let mut count = BTreeMap::new();
    names.map(as_documented).for_each(|name| *count.entry(name).or_default() += 1);
    count
}

/// Polls until the worker has one of each thread of an idle one and of `others`, and `tasks` jobs with one thread each. `notify` is
/// whether it has a service manager and serves metrics.
fn wait_threads(worker: &Worker, notify: bool, tasks: usize, others: &[&str]) {
    let idle = documented().into_iter().filter(|name| !WITH_WORK.contains(&name.as_str()));
    let mut expected: BTreeMap<String, usize> = idle.map(|name| (name, 1)).collect();
    if !notify {
        expected.remove("oz-notify");
        expected.remove("oz-metrics");
    }
    if tasks > 0 {
        expected.insert("oz-task-N".to_owned(), tasks);
    }
    expected.extend(others.iter().map(|name| ((*name).to_owned(), 1)));
    let end = Instant::now() + DEADLINE;
    loop {
        let running = running(worker.id());
        if running == expected {
            return;
        }
        assert!(Instant::now() < end, "threads: {running:?}, expected: {expected:?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_worker_has_the_documented_threads_and_no_others() {
    let (stage, folder) = (Stage::new(), tempfile::tempdir().unwrap());
    let socket = folder.path().join("notify");
    let _manager = UnixDatagram::bind(&socket).unwrap();
    // Port 0 is no valid port, so one that was free just now.
    let port = crate::worker::monitoring::free_port();
    let worker = stage.worker().env("NOTIFY_SOCKET", socket.to_str().unwrap());
    let worker = stage.start(worker.args(["--metrics-listen", &port.to_string()]));
    let id = stage.plane.submit(stage.spec("trap 'exit 0' TERM; sleep 1000 & wait"));
    stage.plane.wait_state(&id, State::InProgress);
    stage.wait_running(&id);
    wait_threads(&worker, true, 1, &["oz-poller-N"]);
}

#[test]
fn only_waiting_jobs_have_threads_whatever_the_number_of_slots() {
    let (engine, plane) = (SleepingEngine::start(), ControlPlane::start(Options::default()));
    let worker = on(&engine, &plane, WorkerBuilder::new(&binary())).args(["--max-concurrent-tasks", "500"]);
    let worker = worker.start();
    plane.wait_connected(1);
    wait_threads(&worker, false, 0, &[]);
    let ids: Vec<String> = (0..20).map(|_| plane.submit(spec())).collect();
    let containers = wait_containers(&engine, 20);
    wait_threads(&worker, false, 20, &["oz-poller-N"]);
    containers.iter().for_each(|container| kill(&engine, container));
    ids.iter().for_each(|id| assert_eq!(plane.wait_ended(id).state, State::Succeeded));
    // One of each stays for the next job.
    wait_threads(&worker, false, 1, &["oz-poller-N", "oz-clean-N"]);
}

/// The limit does not apply to root, and counts all processes of a user: the worker gets a user of its own, which needs root.
#[test]
fn a_run_without_a_thread_is_given_back_and_runs_once_there_is_one() {
    assert!(rustix::process::geteuid().is_root(), "only root can start a worker as another user");
    let short = Options { claim_timeout: Duration::from_secs(1), ..Options::default() };
    let (engine, plane) = (SleepingEngine::start(), ControlPlane::start(short));
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    // The user may not be allowed to read the target folder.
    let program = folder.path().join("worker");
    std::fs::copy(binary(), &program).unwrap();
    let user = (1_000_000 + std::process::id()).to_string();
    // Five threads of an idle worker, and two jobs.
    let limited = ["--reuid", &user, "--clear-groups", "prlimit", "--nproc=7", program.to_str().unwrap()];
    let worker = on(&engine, &plane, WorkerBuilder::new(Path::new("setpriv")).args(limited)).start();
    plane.wait_connected(1);
    (0..3).for_each(|_| drop(plane.submit(spec())));
    let containers = wait_containers(&engine, 2);
    worker.wait_log(DEADLINE, |line| {
        line.contains("task rejected")
            && line.contains("no thread for the task: Resource temporarily unavailable")
    });
    plane.wait_for(DEADLINE, |model| {
        model.runs.iter().filter(|run| run.state == State::InProgress).count() == 2
    });
    kill(&engine, &containers[0]);
    plane.wait_for(DEADLINE, |model| model.runs.iter().filter(|run| run.state.ended()).count() == 1);
    wait_containers(&engine, 2).iter().for_each(|container| kill(&engine, container));
    plane.wait_for(DEADLINE, |model| model.runs.iter().all(|run| run.state == State::Succeeded));
    plane.assert_no_violations();
    let log = worker.stderr().all();
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

pub(super) fn on(engine: &SleepingEngine, plane: &ControlPlane, worker: WorkerBuilder) -> WorkerBuilder {
    let worker = worker.control_plane(plane, &worker_id()).args(["--pull", "missing"]);
    worker.env("DOCKER_HOST", &engine.host())
}

/// A run on an engine that runs nothing.
pub(super) fn spec() -> RunSpec {
    RunSpec::quiet("task:1", "sidecar:1", "")
}

/// Polls until this number of containers run, and returns their ids.
pub(super) fn wait_containers(engine: &SleepingEngine, count: usize) -> Vec<String> {
    let (client, end) = (Engine::at(&engine.host()), Instant::now() + DEADLINE);
    loop {
        let running = client.containers("status", "running");
        if running.len() == count {
            return running.iter().map(|container| container["Id"].as_str().unwrap().to_owned()).collect();
        }
        assert!(Instant::now() < end, "{} of {count} containers run", running.len());
        std::thread::yield_now();
    }
}

pub(super) fn kill(engine: &SleepingEngine, container: &str) {
    Engine::at(&engine.host()).request("POST", &format!("/containers/{container}/kill"), &[], &[]);
}
