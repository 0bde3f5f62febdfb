//! Engine restarts and lost answers: each task has one correct report, and none runs twice.

use std::time::Duration;

use crate::support::control_plane::{ControlPlane, Options, Run, State};
use crate::support::engine::Engine;
use crate::support::engine_proxy::EngineProxy;
use crate::support::fault_proxy::FaultProxy;
use crate::support::images::RootFs;
use crate::support::private_engine::PrivateEngine;
use crate::support::process::Signal;
use crate::support::registry::Registry;
use crate::support::stage::{DEADLINE, Stage, StageBuilder};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::Worker;

const RUNNING: usize = 10;
const PULLING: usize = 5;

/// Bytes that pass on each connection to the registry: enough for manifests, not for layers.
const MANIFESTS_ONLY: u64 = 64 * 1024;

const NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Waits for `count` log lines with this text.
fn wait_lines(worker: &Worker, text: &str, count: usize) {
    let mut seen = 0;
    worker.wait_log(DEADLINE, |line| {
        seen += usize::from(line.contains(text));
        seen == count
    });
}

fn count(worker: &Worker, text: &str) -> usize {
    worker.stderr().all().iter().filter(|line| line.contains(text)).count()
}

fn rejected(run: &Run) -> bool {
    run.history.iter().any(|received| received.kind == "task_rejected")
}

/// Images in a registry behind a proxy that holds their layers back.
struct SlowRegistry {
    _registry: Registry,
    proxy: FaultProxy,
}

impl SlowRegistry {
    fn new() -> Self {
        let registry = Registry::open();
        for index in 0..PULLING {
            let root = RootFs::busybox().file("text", 0o644, format!("pulled {index}\n"));
            registry.put(&format!("task{index}:v1"), root, NATIVE, &["PATH=/bin"]);
        }
        let proxy = FaultProxy::held_after(&format!("tcp://{}", registry.host()), MANIFESTS_ONLY);
        Self { _registry: registry, proxy }
    }

    fn image(&self, index: usize) -> String {
        format!("{}/task{index}:v1", self.proxy.address())
    }
}

/// A stage with a private engine, which the test stops and starts.
struct Fixture {
    stage: Stage,
    sync: SyncDir,
    private: PrivateEngine,
}

impl Fixture {
    fn new(options: Options) -> Self {
        let private = PrivateEngine::on_unix_socket();
        let builder = StageBuilder::new("test").engine(Engine::at(private.host()));
        let stage = builder.control_plane(ControlPlane::start(options)).build();
        Self { stage, sync: SyncDir::new(), private }
    }

    /// Starts a worker with these arguments and the sync folder.
    fn worker<const N: usize>(&self, args: [&str; N]) -> Worker {
        self.stage.start(self.stage.worker().args(args).args(["-v", &self.sync.mount()]))
    }
}

impl Drop for Fixture {
    /// Dropping the stage needs a running engine.
    fn drop(&mut self) {
        if !self.private.is_running() {
            self.private.launch();
        }
    }
}

/// Ends the engine while ten tasks run and five pull a layer, and starts it again.
fn restart_engine(signal: Signal) {
    let registry = SlowRegistry::new();
    let mut fixture = Fixture::new(Options { claim_timeout: Duration::from_secs(5), ..Options::default() });
    let worker = fixture.worker(["--max-concurrent-tasks", "16"]);
    let Fixture { stage, sync, private } = &mut fixture;
    let stage = &*stage;
    let submit =
        |script: &str| stage.plane.submit(stage.spec(&format!("echo $TASK_ID >> /sync/log; {script}")));
    let running: Vec<String> = (0..RUNNING)
        .map(|index| {
            submit(&format!("trap 'echo bye; exit {}' TERM; echo ready; sleep 1000 & wait", 40 + index))
        })
        .collect();
    sync.wait_lines(stage, RUNNING);
    let pulling: Vec<String> = (0..PULLING)
        .map(|index| {
            let mut spec = stage.spec("echo $TASK_ID >> /sync/log; cat /text");
            spec.docker_image = Some(registry.image(index));
            stage.plane.submit(&spec)
        })
        .collect();
    stage.wait("all layers are being pulled", || registry.proxy.stopped() >= PULLING);
    private.stop(signal);
    wait_lines(&worker, "engine away", RUNNING + PULLING);
    let late = submit("echo late");
    stage.plane.wait_for(DEADLINE, |model| model.run(&late).is_some_and(rejected));
    registry.proxy.open();
    private.launch();
    for (index, id) in running.iter().enumerate() {
        let run = stage.plane.wait_ended(id);
        // An engine that ended before it recorded an exit reports 255 after its restart, and so does the worker.
        let codes = [40 + i64::try_from(index).unwrap(), 255];
        assert!(run.exit_code.is_some_and(|code| codes.contains(&code)), "{run:#?}");
        assert_eq!(run.output.as_deref(), Some("ready\nbye\n"), "{run:#?}");
        assert_eq!(run.message.is_some(), run.exit_code == Some(255), "{run:#?}");
    }
    for (index, id) in pulling.iter().enumerate() {
        let run = stage.plane.wait_ended(id);
        assert_eq!(run.output, Some(format!("pulled {index}\n")), "{run:#?}");
        assert_eq!((run.state, run.exit_code), (State::Succeeded, Some(0)));
    }
    assert_eq!(stage.plane.wait_ended(&late).output.as_deref(), Some("late\n"));
    stage.wait_no_containers();
    assert!(stage.plane.runs().iter().all(|run| run.terminal_reports == 1));
    let mut started = sync.lines();
    started.sort();
    started.dedup();
    assert_eq!((started.len(), sync.lines().len()), (16, 16), "each was started once");
    let backs = count(&worker, "engine back");
    assert_eq!((count(&worker, "engine away"), backs), (RUNNING + PULLING, RUNNING + PULLING));
    stage.stop(worker);
}

#[test]
fn an_engine_restart_does_not_affect_running_and_pulling_tasks() {
    restart_engine(Signal::TERM);
}

#[test]
fn a_killed_engine_does_not_affect_running_and_pulling_tasks() {
    restart_engine(Signal::KILL);
}

/// The exit code is unknown, so the report has none.
#[test]
fn a_task_fails_if_the_engine_does_not_come_back_in_time() {
    let mut fixture = Fixture::new(Options::default());
    let worker = fixture.worker(["--engine-timeout", "1s"]);
    let Fixture { stage, sync, private } = &mut fixture;
    let id = stage.plane.submit(stage.spec("echo up >> /sync/log; read x < /sync/pipe"));
    sync.wait_lines(stage, 1);
    private.stop(Signal::KILL);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.state, run.failure_reason.as_deref()), (State::Failed, Some("docker_unreachable")));
    assert_eq!((run.exit_code, run.terminal_reports), (None, 1));
    wait_lines(&worker, "container left", 1);
}

/// One task is running and one is being cancelled; both are reported before the worker exits.
#[test]
fn an_unreachable_engine_does_not_block_a_stop() {
    let mut fixture = Fixture::new(Options::default());
    let mut worker = fixture.worker([]);
    let Fixture { stage, sync, private } = &mut fixture;
    let submit = || stage.plane.submit(stage.spec("echo up >> /sync/log; read x < /sync/pipe"));
    let (running, cancelled) = (submit(), submit());
    sync.wait_lines(stage, 2);
    private.stop(Signal::KILL);
    wait_lines(&worker, "engine away", 2);
    stage.plane.cancel(&cancelled);
    wait_lines(&worker, "task cancelled", 1);
    worker.signal(Signal::TERM);
    for (id, reason) in [(&running, "graceful_shutdown"), (&cancelled, "task_cancelled")] {
        assert_eq!(stage.plane.wait_message(id, "task_failed").data["failure_reason"], reason);
    }
    assert_eq!(worker.wait_exit(Duration::from_secs(30)).code(), Some(0), "{:#?}", worker.stderr().all());
}

/// A worker that reaches its engine through a proxy, with which the test drops requests and answers.
struct LossyEngine {
    stage: Stage,
    proxy: EngineProxy,
    sync: SyncDir,
    worker: Option<Worker>,
}

impl LossyEngine {
    fn new() -> Self {
        let stage = Stage::new();
        let sync = SyncDir::new();
        let proxy = EngineProxy::start(stage.engine.host());
        let worker = stage.worker().env("DOCKER_HOST", &proxy.host()).args(["-v", &sync.mount()]);
        let worker = Some(stage.start(worker));
        Self { stage, proxy, sync, worker }
    }

    /// Runs a task, and checks that it is started once, succeeds and prints `output`.
    fn run(&self, script: &str, output: &str) {
        let before = self.sync.lines().len();
        let run = self.stage.run(&self.stage.spec(&format!("echo $TASK_ID >> /sync/log; {script}")));
        let log = || self.worker.as_ref().unwrap().stderr().all();
        assert_eq!((run.state, run.terminal_reports), (State::Succeeded, 1), "{run:#?} {:#?}", log());
        assert!(run.output.as_deref() == Some(output), "{run:#?}");
        assert_eq!(self.sync.lines().len(), before + 1, "started once: {:#?}", log());
        self.stage.wait_no_containers();
    }

    fn stop(mut self) {
        let worker = self.worker.take().unwrap();
        assert_eq!(count(&worker, "engine away"), 0, "the engine was reachable all the time");
        self.stage.stop(worker);
    }
}

/// The answer is lost after the engine has created the container, or the request is lost.
#[test]
fn a_create_is_retried_after_a_lost_request_or_answer() {
    let lossy = LossyEngine::new();
    for cut in
        [lossy.proxy.cut_after(0, "create?name=oz-task", 2), lossy.proxy.swallow("create?name=oz-task", 2)]
    {
        lossy.run("echo made", "made\n");
        cut.wait(2);
    }
    assert!(count(lossy.worker.as_ref().unwrap(), "leftover container removed") >= 2);
    lossy.stop();
}

/// The answer is lost and the container has exited, or is still running; or the request is lost.
#[test]
fn a_start_is_retried_only_if_the_container_was_not_started() {
    let lossy = LossyEngine::new();
    let cut = lossy.proxy.cut_after(0, "/start", 1);
    lossy.run("echo short", "short\n");
    cut.wait(1);
    let cut = lossy.proxy.cut_after(0, "/start", 1);
    lossy.sync.release(1);
    lossy.run(&format!("{WAIT}; echo long"), "long\n");
    cut.wait(1);
    assert_eq!(lossy.proxy.count("/start"), 2, "not retried");
    let swallowed = lossy.proxy.swallow("/start", 3);
    lossy.run("echo late", "late\n");
    swallowed.wait(3);
    assert_eq!(lossy.proxy.count("/start"), 2 + 4);
    lossy.stop();
}

/// The output is read again from the beginning, and no part appears twice.
#[test]
fn interrupted_output_is_read_again() {
    let lossy = LossyEngine::new();
    let lines: String = (1..=100_000).map(|line| format!("{line}\n")).collect();
    let cut = lossy.proxy.cut_after(100_000, "/logs", 2);
    lossy.run("seq 100000", &lines);
    cut.wait(2);
    let cut = lossy.proxy.cut_after(100_000, "archive?path=%2Fworkspace", 2);
    lossy.run("mkdir -p .oz; seq 100000 > .oz/agent_output.txt", &lines);
    cut.wait(2);
    lossy.stop();
}

/// As behind nginx with its default settings: the answer to the wait comes with the exit, or never if the proxy gave up.
#[test]
fn a_wait_that_is_not_answered_delays_a_task_and_does_not_stop_it() {
    let lossy = LossyEngine::new();
    let held = lossy.proxy.hold("/wait?", 1);
    lossy.run("echo through", "through\n");
    held.wait(1);
    let held = lossy.proxy.hold("/wait?", 1);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| lossy.run(&format!("{WAIT}; exit 0"), ""));
        held.wait(1);
        lossy.proxy.wait_count("/start", 2);
        held.release();
        lossy.sync.release(1);
        run.join().unwrap();
    });
    lossy.stop();
}

/// Each of the remaining kinds of calls loses one answer.
#[test]
fn the_remaining_calls_are_retried_after_a_lost_answer() {
    let lossy = LossyEngine::new();
    // In the version that the worker and the engine have agreed on.
    let requests = lossy.proxy.requests();
    let version = requests.iter().find_map(|line| line.strip_suffix("/info HTTP/1.1")).unwrap();
    let (images, containers) = (format!("{version}/images"), format!("{version}/containers"));
    let texts = [
        "/export",
        "PUT ",
        "/wait?",
        "volumes/create",
        "create?name=oz-fill",
        "HEAD ",
        "DELETE ",
        &images,
        &containers,
        "archive?path=%2Fworkspace",
    ];
    let cuts = texts.map(|text| lossy.proxy.cut_after(0, text, 1));
    lossy.run("echo through", "through\n");
    cuts.iter().for_each(|cut| cut.wait(1));
    let volumes = lossy.stage.engine.volumes_of(&lossy.stage.worker_id);
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    lossy.stop();
}
