//! kill -9 of the worker at random moments between an assignment and the removal of its container, each followed by a restart.
//!
//! The engine's own events say what was started and how it ended; that is compared with what the control plane was told.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::control_plane::{Options, Run, RunSpec, State};
use crate::support::engine::{Engine, encode};
use crate::support::images::{AGENT, Layout, Root};
use crate::support::process::Signal;
use crate::support::worker::Worker;
use crate::worker::{DEADLINE, Stage};

/// Another sequence of moments: `OZ_TEST_SEED`.
const SEED: u64 = 4;

/// Workers with ids of their own that are killed at the same time, and how often each.
const LANES: u64 = 3;
const KILLS: usize = 10;

/// Files in the sidecar, so that filling its volume takes a while.
const FILES: usize = 300;

/// Events in the worker's log.
const FILLING: &str = "sidecar volume filling";
const STARTED: &str = "container started";

/// What is known of one task's container from the engine.
#[derive(Debug, Clone, Default)]
struct Seen {
    starts: usize,
    exit_codes: Vec<i64>,
}

/// Everything that the engine tells of the containers with one label.
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
        let told = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| note(&told, &line));
        });
        Self { stream, seen, reader: Some(reader) }
    }

    /// Waits until everything that has been is told: until the creation of one more container is.
    fn catch_up(&self, stage: &Stage) {
        let labels = json!({"oz-worker-id": stage.worker_id, "oz-task-id": "last"});
        let spec = json!({"Image": stage.task_image, "Labels": labels});
        let id = stage.engine.json("POST", "/containers/create", &spec)["Id"].as_str().unwrap().to_owned();
        stage.wait("the last event", || self.seen.lock().unwrap().contains_key("last"));
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

fn note(seen: &Mutex<BTreeMap<String, Seen>>, line: &str) {
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

/// xorshift64*: the same seed gives the same moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        limit.mul_f64(word as f64 / f64::from(u32::MAX))
    }
}

/// One worker that is killed again and again, with its control plane.
struct Lane {
    stage: Stage,
    events: Events,
    random: Random,
    /// What a task finds in a sidecar that is whole.
    sum: String,
    ids: Vec<String>,
}

impl Lane {
    fn new(number: u64) -> Self {
        let engine = Engine::get();
        let mut stage = Stage::on(engine.clone(), Options::default());
        let sum = sidecar(&mut stage, number);
        let events = Events::listen(&engine, &stage.worker_id);
        let seed = std::env::var("OZ_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
        let random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1));
        Self { stage, events, random, sum, ids: Vec::new() }
    }

    fn worker(&self) -> Worker {
        self.stage.connected(self.stage.worker().args(["--lost-runs", "finish", "--log-level", "debug"]))
    }

    /// The task looks at every file of its sidecar, takes a moment, and ends with a code of its own.
    fn spec(&self) -> RunSpec {
        let code = self.code(self.ids.len());
        let look = "cat /agent/data/* | sha256sum | cut -d' ' -f1";
        let script =
            format!("[ \"$({look})\" = {} ] || exit 99; sleep 0.2; echo whole; exit {code}", self.sum);
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

    /// Submits a run, for which the sidecar's volume is filled anew, or for which what is left of it is used.
    fn submit(&mut self, fresh: bool) -> String {
        if fresh {
            for volume in self.stage.engine.volumes_of(&self.stage.worker_id) {
                self.stage.engine.remove_volume(&volume);
            }
        }
        let id = self.stage.plane.submit(self.spec());
        self.ids.push(id.clone());
        self.stage.plane.wait_for(DEADLINE, |world| world.run(&id).is_some_and(|run| run.deliveries > 0));
        id
    }

    /// Over when the run has ended at the control plane, its report has come if there is one, and the engine is clean.
    fn wait_over(&self, id: &str) {
        self.stage.plane.wait_for(DEADLINE, |world| world.run(id).is_some_and(|run| run.state.ended()));
        self.stage.wait_no_containers();
    }

    /// How long an undisturbed run takes: the moments to kill a worker at fall into these times.
    fn measure(&mut self) -> Occurs {
        let worker = self.worker();
        let assigned = Instant::now();
        let id = self.submit(true);
        wait_event(&worker, FILLING, &id);
        let filling = Instant::now();
        wait_event(&worker, "sidecar volume ready", &id);
        let filling = filling.elapsed();
        wait_event(&worker, STARTED, &id);
        let started = Instant::now();
        self.wait_over(&id);
        assert_eq!(self.stage.plane.run(&id).exit_code, Some(0));
        kill(worker);
        Occurs { whole: assigned.elapsed(), filling, started: started.elapsed() }
    }

    /// Begins a run, and waits for a moment at which it is at risk. Every other run mounts what the one before has left.
    fn wait_moment(&mut self, round: usize, worker: &Worker, times: &Occurs) -> String {
        let id = self.submit(round.is_multiple_of(2));
        let (event, limit) = match round % 4 {
            0 => (None, times.whole),
            2 => (Some(FILLING), times.filling),
            _ => (Some(STARTED), times.started),
        };
        if let Some(event) = event {
            wait_event(worker, event, &id);
        }
        // The fault comes at a moment, not after an event.
        std::thread::sleep(self.random.below(limit));
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
            self.wait_over(&id);
            counts.kills += 1;
            let log = worker.stderr().all();
            let told = |event: &str| usize::from(log.iter().any(|line| line.contains(event)));
            counts.adopted += told("container adopted");
            counts.half_filled += told("half filled");
        }
        self.stage.wait_clean();
        self.stage.stop(worker);
        self.events.catch_up(&self.stage);
        self.check(&mut counts);
        counts
    }

    fn check(&self, counts: &mut Counts) {
        for (index, id) in self.ids.iter().enumerate() {
            let (run, seen) = (self.stage.plane.run(id), self.events.of(id));
            let reports: Vec<&Value> = reports(&run);
            assert!(seen.starts <= 1, "{id} ran {} times", seen.starts);
            if seen.starts == 0 {
                // The control plane has taken its claim, and calls it failed as it does when a connection ends.
                assert_eq!((run.state, reports.len()), (State::Failed, 0), "{run:#?}");
                counts.unstarted += 1;
                continue;
            }
            assert!(!reports.is_empty(), "{id} has run, and nobody was told: {run:#?}");
            let code = self.code(index);
            assert_eq!(seen.exit_codes, [code], "the engine's word on {id}");
            for report in reports {
                let told = (report["exit_code"].as_i64(), report["output"].as_str());
                assert_eq!(told, (Some(code), Some("whole\n")), "{run:#?}");
            }
            counts.reported += 1;
        }
        self.stage.plane.assert_no_violations();
    }
}

/// From the assignment to the removal; of the volume's filling; from the container's start.
struct Occurs {
    whole: Duration,
    filling: Duration,
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

fn reports(run: &Run) -> Vec<&Value> {
    let ends = run.history.iter().filter(|received| received.kind != "task_claimed");
    ends.map(|received| &received.data).collect()
}

fn kill(mut worker: Worker) {
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);
}

fn wait_event(worker: &Worker, event: &str, id: &str) {
    worker.wait_log(DEADLINE, |line| line.contains(event) && line.contains(id));
}

/// Gives the stage a sidecar with many files of its own; what they add up to.
fn sidecar(stage: &mut Stage, number: u64) -> String {
    let mut root = Root::sidecar(Layout::Root, AGENT).folder("data", 0o755);
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
fn a_worker_that_is_killed_at_any_moment_loses_nothing_and_leaves_nothing() {
    let lanes: Vec<_> =
        (0..LANES).map(|number| std::thread::spawn(move || Lane::new(number).run())).collect();
    let mut all = Counts::default();
    for lane in lanes {
        let Counts { kills, adopted, half_filled, reported, unstarted } = lane.join().expect("a lane");
        all.half_filled += half_filled;
        all.kills += kills;
        all.adopted += adopted;
        all.reported += reported;
        all.unstarted += unstarted;
    }
    eprintln!("{all:?}");
    assert_eq!(all.kills, 30);
    assert!(all.adopted > 0 && all.reported >= 15, "{all:?}");
}
