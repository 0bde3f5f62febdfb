//! The engine goes away in the middle of everything, and answers are lost on their way: each task is reported once with what is
//! true, and none runs twice.

use std::time::Duration;

use crate::support::control_plane::{Options, Run, State};
use crate::support::cutter::Cutter;
use crate::support::engine::Engine;
use crate::support::images::Root;
use crate::support::private_engine::PrivateEngine;
use crate::support::process::Signal;
use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::worker::Worker;
use crate::worker::gate::{Gate, PASS};
use crate::worker::{DEADLINE, Stage};

const RUNNING: usize = 10;
const PULLING: usize = 5;

/// So much comes over a connection to the registry before the engine goes away: manifests do, layers do not.
const SOME: u64 = 64 * 1024;

const NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Waits for so many lines with this text.
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

/// Images in a registry whose layers do not get through for the time being.
struct Slow {
    _registry: Registry,
    gate: Cutter,
}

impl Slow {
    fn new() -> Self {
        let registry = Registry::open();
        for index in 0..PULLING {
            let root = Root::busybox().file("text", 0o644, format!("pulled {index}\n"));
            registry.put(&format!("task{index}:v1"), root, NATIVE, &["PATH=/bin"]);
        }
        let gate = Cutter::held_after(&format!("tcp://{}", registry.host()), SOME);
        Self { _registry: registry, gate }
    }

    fn image(&self, index: usize) -> String {
        format!("{}/task{index}:v1", self.gate.address())
    }
}

/// A worker on an engine of its own, which has to be there when what is left on it is removed.
struct Scene {
    stage: Stage,
    gate: Gate,
    private: PrivateEngine,
}

impl Scene {
    fn new(options: Options) -> Self {
        let private = PrivateEngine::plain();
        Self { stage: Stage::on(Engine::at(private.host()), options), gate: Gate::new(), private }
    }

    /// With these arguments, and tasks that see the gate.
    fn worker<const N: usize>(&self, args: [&str; N]) -> Worker {
        self.stage.connected(self.stage.worker().args(args).args(["-v", &self.gate.mount()]))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !self.private.runs() {
            self.private.begin();
        }
    }
}

/// Ten tasks run, which end in their own way when they are told to, and five are in the middle of a layer.
fn the_engine_ends_and_comes_back(signal: Signal) {
    let slow = Slow::new();
    let mut scene = Scene::new(Options { claim_timeout: Duration::from_secs(5), ..Options::default() });
    let worker = scene.worker(["--max-concurrent-tasks", "16"]);
    let Scene { stage, gate, private } = &mut scene;
    let stage = &*stage;
    let submit =
        |script: &str| stage.plane.submit(stage.spec(&format!("echo $TASK_ID >> /gate/log; {script}")));
    let running: Vec<String> = (0..RUNNING)
        .map(|index| {
            submit(&format!("trap 'echo bye; exit {}' TERM; echo ready; sleep 1000 & wait", 40 + index))
        })
        .collect();
    gate.wait_told(stage, RUNNING);
    let pulling: Vec<String> = (0..PULLING)
        .map(|index| {
            let mut spec = stage.spec("echo $TASK_ID >> /gate/log; cat /text");
            spec.docker_image = Some(slow.image(index));
            stage.plane.submit(&spec)
        })
        .collect();
    stage.wait("all layers are under way", || slow.gate.stopped() >= PULLING);
    private.end(signal);
    wait_lines(&worker, "engine away", RUNNING + PULLING);
    let late = submit("echo late");
    stage.plane.wait_for(DEADLINE, |world| world.run(&late).is_some_and(rejected));
    slow.gate.open();
    private.begin();
    for (index, id) in running.iter().enumerate() {
        let run = stage.plane.wait_ended(id);
        // An engine that ends before it has noted an exit says 255 of it when it is back: what it says is what is reported.
        let codes = [40 + i64::try_from(index).unwrap(), 255];
        assert!(run.exit_code.is_some_and(|code| codes.contains(&code)), "{run:#?}");
        assert_eq!(run.output.as_deref(), Some("ready\nbye\n"), "{run:#?}");
    }
    for (index, id) in pulling.iter().enumerate() {
        let run = stage.plane.wait_ended(id);
        assert_eq!(run.output, Some(format!("pulled {index}\n")), "{run:#?}");
        assert_eq!((run.state, run.exit_code), (State::Succeeded, Some(0)));
    }
    assert_eq!(stage.plane.wait_ended(&late).output.as_deref(), Some("late\n"));
    stage.wait_no_containers();
    assert!(stage.plane.runs().iter().all(|run| run.terminal_reports == 1));
    let mut told = gate.told();
    told.sort();
    told.dedup();
    assert_eq!((told.len(), gate.told().len()), (16, 16), "each was started once");
    let backs = count(&worker, "engine back");
    assert_eq!((count(&worker, "engine away"), backs), (RUNNING + PULLING, RUNNING + PULLING));
    stage.stop(worker);
}

#[test]
fn an_engine_is_restarted_while_ten_tasks_run_and_five_pull() {
    the_engine_ends_and_comes_back(Signal::TERM);
}

#[test]
fn an_engine_is_killed_while_ten_tasks_run_and_five_pull() {
    the_engine_ends_and_comes_back(Signal::KILL);
}

/// Patience has an end, and what the container was by then is not made up.
#[test]
fn an_engine_that_stays_away_is_reported() {
    let mut scene = Scene::new(Options::default());
    let worker = scene.worker(["--engine-timeout", "1s"]);
    let Scene { stage, gate, private } = &mut scene;
    let id = stage.plane.submit(stage.spec("echo up >> /gate/log; read x < /gate/pipe"));
    gate.wait_told(stage, 1);
    private.end(Signal::KILL);
    let run = stage.plane.wait_ended(&id);
    assert_eq!((run.state, run.failure_reason.as_deref()), (State::Failed, Some("docker_unreachable")));
    assert_eq!((run.exit_code, run.terminal_reports), (None, 1));
    wait_lines(&worker, "container left", 1);
}

/// A stop is not held up by an engine that is away, whatever has ended the tasks, and the worker says so in time.
#[test]
fn a_stop_while_the_engine_is_away() {
    let mut scene = Scene::new(Options::default());
    let mut worker = scene.worker([]);
    let Scene { stage, gate, private } = &mut scene;
    let submit = || stage.plane.submit(stage.spec("echo up >> /gate/log; read x < /gate/pipe"));
    let (running, cancelled) = (submit(), submit());
    gate.wait_told(stage, 2);
    private.end(Signal::KILL);
    wait_lines(&worker, "engine away", 2);
    stage.plane.cancel(&cancelled);
    wait_lines(&worker, "task cancelled", 1);
    worker.signal(Signal::TERM);
    for (id, reason) in [(&running, "graceful_shutdown"), (&cancelled, "task_cancelled")] {
        assert_eq!(stage.plane.wait_message(id, "task_failed").data["failure_reason"], reason);
    }
    assert_eq!(worker.wait_exit(Duration::from_secs(30)).code(), Some(0), "{:#?}", worker.stderr().all());
}

/// A worker behind a proxy that loses what it is told to, and what its tasks tell.
struct Lossy {
    stage: Stage,
    proxy: Proxy,
    gate: Gate,
    worker: Option<Worker>,
}

impl Lossy {
    fn new() -> Self {
        let (stage, gate) = (Stage::new(), Gate::new());
        let proxy = Proxy::start(stage.engine.host());
        let worker = stage.worker().env("DOCKER_HOST", &proxy.host()).args(["-v", &gate.mount()]);
        let worker = Some(stage.connected(worker));
        Self { stage, proxy, gate, worker }
    }

    /// Runs a task that must succeed, be started once, and say this.
    fn run(&self, script: &str, output: &str) {
        let before = self.gate.told().len();
        let run = self.stage.run(&self.stage.spec(&format!("echo $TASK_ID >> /gate/log; {script}")));
        let log = || self.worker.as_ref().unwrap().stderr().all();
        assert_eq!((run.state, run.terminal_reports), (State::Succeeded, 1), "{run:#?} {:#?}", log());
        assert!(run.output.as_deref() == Some(output), "{run:#?}");
        assert_eq!(self.gate.told().len(), before + 1, "it was started once: {:#?}", log());
        self.stage.wait_no_containers();
    }

    fn stop(mut self) {
        let worker = self.worker.take().unwrap();
        assert_eq!(count(&worker, "engine away"), 0, "it was there all the time");
        self.stage.stop(worker);
    }
}

/// The engine has made the container and nobody knows it, or it never heard of it.
#[test]
fn a_lost_create() {
    let lossy = Lossy::new();
    for cut in
        [lossy.proxy.cut_after(0, "create?name=oz-task", 2), lossy.proxy.swallow("create?name=oz-task", 2)]
    {
        lossy.run("echo made", "made\n");
        cut.wait(2);
    }
    assert!(count(lossy.worker.as_ref().unwrap(), "leftover container removed") >= 2);
    lossy.stop();
}

/// The engine has started the container, which runs, or has ended already, and nobody knows it; or it never heard of it.
#[test]
fn a_lost_start() {
    let lossy = Lossy::new();
    let cut = lossy.proxy.cut_after(0, "/start", 1);
    lossy.run("echo short", "short\n");
    cut.wait(1);
    let cut = lossy.proxy.cut_after(0, "/start", 1);
    lossy.gate.open(1);
    lossy.run(&format!("{PASS}; echo long"), "long\n");
    cut.wait(1);
    assert_eq!(lossy.proxy.count("/start"), 2, "it was not even asked for again");
    let swallowed = lossy.proxy.swallow("/start", 3);
    lossy.run("echo late", "late\n");
    swallowed.wait(3);
    assert_eq!(lossy.proxy.count("/start"), 2 + 4);
    lossy.stop();
}

/// Half of the output has been read when the connection is cut: it is read anew, and nothing of it is doubled.
#[test]
fn a_cut_log_and_a_cut_file() {
    let lossy = Lossy::new();
    let lines: String = (1..=100_000).map(|line| format!("{line}\n")).collect();
    let cut = lossy.proxy.cut_after(100_000, "/logs", 2);
    lossy.run("seq 100000", &lines);
    cut.wait(2);
    let cut = lossy.proxy.cut_after(100_000, "archive?path=%2Fworkspace", 2);
    lossy.run("mkdir -p .oz; seq 100000 > .oz/agent_output.txt", &lines);
    cut.wait(2);
    lossy.stop();
}

/// Everything else that is asked while a task is prepared, waited for and removed, each lost once.
#[test]
fn every_other_answer_is_lost_once() {
    let lossy = Lossy::new();
    let texts = [
        "/export",
        "PUT ",
        "/wait?",
        "volumes/create",
        "create?name=oz-fill",
        "HEAD ",
        "DELETE ",
        "GET /v1.41/images",
        "GET /v1.41/containers",
        "archive?path=%2Fworkspace",
    ];
    let cuts = texts.map(|text| lossy.proxy.cut_after(0, text, 1));
    lossy.run("echo through", "through\n");
    cuts.iter().for_each(|cut| cut.wait(1));
    let volumes = lossy.stage.engine.volumes_of(&lossy.stage.worker_id);
    assert_eq!(volumes.len(), 1, "{volumes:?}");
    lossy.stop();
}
