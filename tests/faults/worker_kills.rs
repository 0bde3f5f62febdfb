//! SIGKILL of the worker at random moments between an assignment and the removal of its container, each followed by a
//! restart.
//!
//! The engine's events say which containers were started and how they exited. That is compared with the reports.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{DIALECTS, end_of, exited, is_lost_claim, output, reports};
use crate::support::control_plane::{Dialect, Options, Run, RunSpec, State};
use crate::support::engine::{Engine, encode};
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::process::Signal;
use crate::support::rng::{Rng, Seed};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::Worker;

/// The default seed of the random moments.
const SEED: u64 = 4;

/// Workers that run at the same time, each with its own id; every other one at the public control plane.
const WORKERS: u64 = 4;
/// How often each worker is killed.
const KILLS: usize = 8;

/// Files in the sidecar image; many, so that filling its volume takes a while.
const FILES: usize = 300;

/// Log lines of the worker.
const FILLING: &str = "sidecar volume filling";
const STARTED: &str = "container started";

/// What the engine's events say about one task's container.
#[derive(Debug, Clone, Default)]
struct Seen {
    starts: usize,
    exit_codes: Vec<i64>,
}

/// The engine's events about the containers of one worker.
struct Events {
    stream: UnixStream,
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Events {
    fn listen(engine: &Engine, worker: &str) -> Self {
        let path = engine.host().strip_prefix("unix://").expect("the engine of the tests has a Unix socket");
        let mut stream = UnixStream::connect(path).unwrap();
        let filters = json!({"type": ["container"], "label": [format!("oz-worker-id={worker}")]}).to_string();
        write!(stream, "GET /events?filters={} HTTP/1.0\r\nHost: engine\r\n\r\n", encode(&filters)).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.contains(" 200 "), "{head}");
        let seen = Arc::<Mutex<BTreeMap<String, Seen>>>::default();
        let clone = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| record(&clone, &line));
        });
        Self { stream, seen, reader: Some(reader) }
    }

    /// Waits until all events so far were received. Creates one more container and waits for its event.
    fn catch_up(&self, stage: &Stage) {
        let labels = json!({"oz-worker-id": stage.worker_id, "oz-task-id": "last"});
        let spec = json!({"Image": stage.task_image, "Labels": labels});
        let id = stage.engine.json("POST", "/containers/create", &spec)["Id"].as_str().unwrap().to_owned();
        stage.wait("the last event arrives", || self.seen.lock().unwrap().contains_key("last"));
        stage.engine.remove_container(&id);
    }

    fn of(&self, task: &str) -> Seen {
        self.seen.lock().unwrap().get(task).cloned().unwrap_or_default()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn record(seen: &Mutex<BTreeMap<String, Seen>>, line: &str) {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let attributes = &event["Actor"]["Attributes"];
    let Some(task) = attributes["oz-task-id"].as_str() else { return };
    let mut all = seen.lock().unwrap();
    let seen = all.entry(task.to_owned()).or_default();
    match event["Action"].as_str() {
        Some("start") => seen.starts += 1,
        Some("die") => {
            seen.exit_codes.extend(attributes["exitCode"].as_str().and_then(|code| code.parse::<i64>().ok()));
        }
        _ => {}
    }
}

/// One worker that is killed repeatedly, with its control plane.
struct KilledWorker {
    dialect: Dialect,
    stage: Stage,
    events: Events,
    rng: Rng,
    /// The SHA-256 of the files in a complete sidecar.
    sum: String,
    ids: Vec<String>,
}

impl KilledWorker {
    fn new(number: u64, rng: Rng) -> Self {
        let dialect = DIALECTS[usize::try_from(number).unwrap() % DIALECTS.len()];
        let mut stage = Stage::with(Options { dialect, ..Options::default() });
        let sum = make_sidecar(&mut stage, number);
        let events = Events::listen(&stage.engine, &stage.worker_id);
        Self { dialect, stage, events, rng, sum, ids: Vec::new() }
    }

    fn worker(&self) -> Worker {
        self.stage.start(self.stage.worker().args(["--lost-runs", "finish", "--log-level", "debug"]))
    }

    /// Returns a run that checks every file of its sidecar, sleeps, and exits with [`KilledWorker::code`].
    fn spec(&self) -> RunSpec {
        let code = self.code(self.ids.len());
        let check = "cat /agent/data/* | sha256sum | cut -d' ' -f1";
        let script =
            format!("[ \"$({check})\" = {} ] || exit 99; sleep 0.2; echo whole; exit {code}", self.sum);
        let mut spec = self.stage.spec(&script);
        if self.ids.len().is_multiple_of(5) {
            let image = &self.stage.sidecar_image;
            spec.additional_sidecars =
                vec![json!({"image": image, "mount_path": "/own", "read_write": true})];
        }
        spec
    }

    fn code(&self, index: usize) -> i64 {
        i64::try_from(index % 7).unwrap()
    }

    /// Submits a run. If `fresh`, removes the sidecar volume first, so that it is filled again.
    fn submit(&mut self, fresh: bool) -> String {
        if fresh {
            for volume in self.stage.engine.volumes_of(&self.stage.worker_id) {
                self.stage.engine.remove_volume(&volume);
            }
        }
        let id = self.stage.plane.submit(self.spec());
        self.ids.push(id.clone());
        self.stage.plane.wait_for(DEADLINE, |model| model.run(&id).is_some_and(|run| run.deliveries > 0));
        id
    }

    /// Waits until the run has ended at the control plane and the engine has no container. By then its report has arrived, if
    /// there is one. The public control plane does not end a run whose worker was killed between the claim and the container.
    fn wait_done(&self, id: &str, worker: &Worker) {
        self.stage.plane.wait_for(DEADLINE, |model| {
            let Some(run) = model.run(id) else { return false };
            let last = run.history.last().filter(|last| last.kind == "task_claimed");
            let killed = last.is_some_and(|last| model.connections[last.connection - 1].ended.is_some());
            run.state.ended() || self.dialect == Dialect::Upstream && killed && !has_found(worker, id)
        });
        self.stage.wait_no_containers();
    }

    /// Measures an undisturbed run; the worker is killed within these times.
    fn measure(&mut self) -> Timings {
        let worker = self.worker();
        let assigned = Instant::now();
        let id = self.submit(true);
        wait_event(&worker, FILLING, &id);
        let filling = Instant::now();
        wait_event(&worker, "sidecar volume ready", &id);
        let filling = filling.elapsed();
        wait_event(&worker, STARTED, &id);
        let started = Instant::now();
        self.wait_done(&id, &worker);
        assert_eq!(self.stage.plane.run(&id).state, State::Succeeded);
        kill(worker);
        Timings { whole: assigned.elapsed(), filling, started: started.elapsed() }
    }

    /// Submits a run and waits for a random moment in one of its phases. Every other run reuses the volume of the previous one.
    fn wait_moment(&mut self, round: usize, worker: &Worker, times: &Timings) -> String {
        let id = self.submit(round.is_multiple_of(2));
        let (event, limit) = match round % 4 {
            0 => (None, times.whole),
            2 => (Some(FILLING), times.filling),
            _ => (Some(STARTED), times.started),
        };
        if let Some(event) = event {
            wait_event(worker, event, &id);
        }
        // A random moment, not an event.
        let micros = u64::try_from(limit.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.rng.u64(0..=micros)));
        id
    }

    fn run(mut self) -> Counts {
        let mut counts = Counts::default();
        let times = self.measure();
        let mut worker = self.worker();
        for round in 0..KILLS {
            let id = self.wait_moment(round, &worker, &times);
            kill(worker);
            worker = self.worker();
            self.wait_done(&id, &worker);
            counts.kills += 1;
            let log = worker.stderr().all();
            let logged = |event: &str| usize::from(log.iter().any(|line| line.contains(event)));
            counts.adopted += logged("container adopted");
            counts.half_filled += logged("half filled");
        }
        self.stage.wait_clean();
        self.stage.stop(worker);
        self.events.catch_up(&self.stage);
        self.check(&mut counts);
        counts
    }

    /// The control plane received the claim. The old one failed the run with the connection. The public one learns that the task was
    /// not started if its container was found.
    fn check_unstarted(&self, run: &Run) {
        let reports = reports(run);
        match self.dialect {
            Dialect::Old => assert_eq!((run.state, reports.len()), (State::Failed, 0), "{run:#?}"),
            Dialect::Upstream => {
                let state = if reports.is_empty() { State::InProgress } else { State::Failed };
                assert!(run.state == state && reports.into_iter().all(is_lost_claim), "{run:#?}");
            }
        }
    }

    fn check(&self, counts: &mut Counts) {
        for (index, id) in self.ids.iter().enumerate() {
            let (run, seen) = (self.stage.plane.run(id), self.events.of(id));
            let reports = reports(&run);
            assert!(seen.starts <= 1, "{id} ran {} times", seen.starts);
            if seen.starts == 0 {
                self.check_unstarted(&run);
                counts.unstarted += 1;
                continue;
            }
            let reports: Vec<_> = reports.into_iter().filter(|report| !is_lost_claim(report)).collect();
            assert!(!reports.is_empty(), "{id} was started but never reported: {run:#?}");
            let code = self.code(index);
            assert_eq!(seen.exit_codes, [code], "exit codes of {id} at the engine");
            for report in reports {
                let result = (end_of(report), report.data["output"].clone());
                assert_eq!(result, (exited(self.dialect, code), output(self.dialect, "whole\n")), "{run:#?}");
            }
            counts.reported += 1;
        }
        self.stage.plane.assert_no_violations();
    }
}

/// How long an undisturbed run takes.
struct Timings {
    /// From the assignment to the removal of the container.
    whole: Duration,
    /// Filling the sidecar volume.
    filling: Duration,
    /// From the start of the container to its removal.
    started: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    kills: usize,
    adopted: usize,
    half_filled: usize,
    reported: usize,
    unstarted: usize,
}

/// Whether the worker has found a container of the task at its start, which it reports.
fn has_found(worker: &Worker, id: &str) -> bool {
    let found =
        |line: &String| line.contains("container adopted") || line.contains("unstarted container removed");
    worker.stderr().all().iter().any(|line| found(line) && line.contains(id))
}

fn kill(mut worker: Worker) {
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
}

fn wait_event(worker: &Worker, event: &str, id: &str) {
    worker.wait_log(DEADLINE, |line| line.contains(event) && line.contains(id));
}

/// Gives the stage a sidecar image with many files, and returns their SHA-256.
fn make_sidecar(stage: &mut Stage, number: u64) -> String {
    let mut root = RootFs::sidecar(Layout::Root, AGENT).folder("data", 0o755);
    let mut all = Sha256::new();
    for file in 0..FILES {
        let text = format!("{number} {file}\n").repeat(1000);
        all.update(&text);
        root = root.file(&format!("data/{file:04}"), 0o644, &text);
    }
    stage.sidecar_image = stage.images.make("many", root, &[]);
    all.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_worker_killed_at_any_moment_loses_no_task_and_leaves_nothing() {
    let seed = Seed::or(SEED);
    let mut rng = seed.rng();
    let spawn = |number| {
        let rng = rng.fork();
        std::thread::spawn(move || KilledWorker::new(number, rng).run())
    };
    let workers: Vec<_> = (0..WORKERS).map(spawn).collect();
    let mut all = Counts::default();
    for worker in workers {
        let Counts { kills, adopted, half_filled, reported, unstarted } = worker.join().expect("a worker");
        all.half_filled += half_filled;
        all.kills += kills;
        all.adopted += adopted;
        all.reported += reported;
        all.unstarted += unstarted;
    }
    eprintln!("{all:?}");
    assert!(all.kills >= 30, "{all:?}");
    assert!(all.adopted > 0 && all.reported >= 15, "{all:?}");
}
