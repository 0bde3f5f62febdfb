//! Claims and reports that the control plane has received: its REST part shows whether it has stored them.

use rustix::process::Signal;

use crate::support::control_plane::{Faults, State};
use crate::support::rng::Seed;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{Worker, WorkerBuilder, binary};

/// The URL of a port on which nothing listens.
const NOWHERE: &str = "http://127.0.0.1:1";

/// Starts a worker and runs one task, so that a look-up has succeeded.
fn started(stage: &Stage, args: &[&str]) -> Worker {
    let worker = stage.start(stage.worker().args(args.iter().copied()));
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.wait_clean();
    worker
}

/// Returns how often the control plane was asked for a run.
fn look_ups(stage: &Stage, id: &str) -> usize {
    let ends = |request: &&String| request.ends_with(id);
    stage.plane.view(|model| model.requests.iter().filter(ends).count())
}

/// Waits until the control plane was asked for a run this many times more.
fn wait_look_ups(stage: &Stage, id: &str, more: usize) {
    let before = look_ups(stage, id);
    stage.wait("the run is looked up", || look_ups(stage, id) >= before + more);
}

#[test]
fn a_report_is_sent_until_a_locked_store_takes_it() {
    let (stage, sync) = (Stage::new(), SyncDir::new());
    let worker = started(&stage, &["-v", &sync.mount()]);
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; echo out")));
    sync.wait_lines(&stage, 1);
    stage.plane.lock_store(true);
    sync.release(1);
    worker.wait_log(DEADLINE, |line| line.contains("report confirmed") && line.contains(&id));
    stage.plane.wait_for(DEADLINE, |model| model.run(&id).unwrap().terminal_reports >= 3);
    assert_eq!(stage.plane.run(&id).state, State::InProgress);
    assert_eq!(stage.engine.containers_of(&stage.worker_id).len(), 1, "the container is kept");
    stage.plane.lock_store(false);
    let run = stage.plane.wait_state(&id, State::Succeeded);
    assert_eq!(run.output.as_deref(), Some("out\n"));
    stage.wait_clean();
    stage.stop(worker);
}

/// Starts a worker while look-ups answer 503, runs a task to the confirmation of its report, and does not store that report.
fn with_lost_report(stage: &Stage, sync: &SyncDir, worker: &Worker) -> String {
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}; echo out")));
    sync.wait_lines(stage, 1);
    stage.plane.lock_store(true);
    stage.plane.fail_rest_with(Some(503));
    sync.release(1);
    worker.wait_log(DEADLINE, |line| line.contains("report confirmed") && line.contains(&id));
    id
}

/// Look-ups fail while the control plane starts, for example.
#[test]
fn a_report_is_sent_again_although_the_first_look_ups_have_failed() {
    let (stage, sync) = (Stage::new(), SyncDir::new());
    stage.plane.fail_rest_with(Some(503));
    let worker = stage.start(stage.worker().args(["-v", sync.mount().as_str()]));
    let id = with_lost_report(&stage, &sync, &worker);
    wait_look_ups(&stage, &id, 1);
    stage.plane.lock_store(false);
    stage.plane.fail_rest_with(None);
    assert_eq!(stage.plane.wait_state(&id, State::Succeeded).output.as_deref(), Some("out\n"));
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn a_stop_leaves_a_report_about_which_nothing_is_known_to_the_next_start() {
    let (stage, sync) = (Stage::new(), SyncDir::new());
    let mut worker = started(&stage, &["-v", &sync.mount()]);
    let id = with_lost_report(&stage, &sync, &worker);
    worker.signal(Signal::TERM);
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(1));
    assert!(
        worker.stderr().all().iter().any(|line| line.contains("report not delivered") && line.contains(&id))
    );
    assert_eq!(stage.engine.containers_of(&stage.worker_id).len(), 1, "the container is left");
    stage.plane.lock_store(false);
    stage.plane.fail_rest_with(None);
    let reports = stage.plane.run(&id).terminal_reports;
    let worker = stage.start_worker();
    // This control plane has failed the run when the connection ended, but gets its report.
    stage.plane.wait_for(DEADLINE, |model| model.run(&id).unwrap().terminal_reports > reports);
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn a_task_starts_once_its_claim_is_stored() {
    let stage = Stage::new();
    let worker = started(&stage, &[]);
    let mut rng = Seed::new().rng();
    stage.plane.inject(Faults { lose_claim: 1, ..Faults::default() }, rng.fork());
    let id = stage.plane.submit(stage.spec("echo out"));
    let states = || {
        let containers = stage.engine.containers("label", &format!("oz-task-id={id}"));
        containers.iter().filter_map(|one| one["State"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    stage.wait("the container is created", || !states().is_empty());
    let claims = |count| stage.plane.wait_for(DEADLINE, |model| model.run(&id).unwrap().claims >= count);
    claims(stage.plane.run(&id).claims + 2);
    assert_eq!(states(), ["created"]);
    stage.plane.inject(Faults::default(), rng.fork());
    let run = stage.plane.wait_state(&id, State::Succeeded);
    assert_eq!((run.output.as_deref(), run.deliveries), (Some("out\n"), 1));
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn an_unknown_run_is_started_and_its_container_kept() {
    let stage = Stage::new();
    let worker = started(&stage, &[]);
    stage.plane.fail_rest_with(Some(404));
    let id = stage.plane.submit(stage.spec("echo out"));
    assert_eq!(stage.plane.wait_ended(&id).output.as_deref(), Some("out\n"));
    worker.wait_log(DEADLINE, |line| line.contains("report confirmed") && line.contains(&id));
    // Of the claim, at most one of these.
    wait_look_ups(&stage, &id, 3);
    assert_eq!(stage.engine.containers_of(&stage.worker_id).len(), 1, "the container is kept");
    stage.plane.fail_rest_with(None);
    stage.wait_clean();
    stage.stop(worker);
}

#[test]
fn without_a_rest_part_the_confirmation_counts() {
    let stage = Stage::new();
    stage.plane.fail_rest_with(Some(404));
    let worker = stage.start_worker();
    let id = stage.plane.submit(stage.spec("echo out"));
    assert_eq!(stage.plane.wait_ended(&id).output.as_deref(), Some("out\n"));
    stage.wait_clean();
    assert_eq!(stage.plane.run(&id).terminal_reports, 1);
    let failed = |line: &&String| line.contains("run look-up failed");
    assert_eq!(worker.stderr().all().iter().filter(failed).count(), 1, "one warning");
    stage.stop(worker);
}

/// Tasks get the root URL, and the worker uses the other one.
#[test]
fn the_rest_part_may_have_a_url_of_its_own() {
    let stage = Stage::new();
    let (root, socket) = (stage.plane.root_url(), stage.plane.ws_url());
    let urls = ["--web-socket-url", &socket, "--server-root-url", NOWHERE, "--rest-url", &root];
    let worker = WorkerBuilder::new(&binary()).args(urls).env("OZ_API_KEY", stage.plane.key());
    let worker = worker.args(["--worker-id", &stage.worker_id, "--pull", "missing"]);
    let worker = stage.start(worker.env("DOCKER_HOST", stage.engine.host()));
    let mut spec = stage.spec("");
    spec.env_vars.clear();
    let run = stage.run(&spec);
    assert!(run.output.as_deref().unwrap().contains(NOWHERE), "{run:?}");
    stage.wait_clean();
    assert!(look_ups(&stage, &run.id) >= 2, "its claim and its report");
    assert!(!worker.stderr().all().iter().any(|line| line.contains("run look-up failed")));
    stage.stop(worker);
}
