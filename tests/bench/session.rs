//! The workers that are measured, and one running worker with its control plane.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::gauge::Gauge;
use crate::support::control_plane::run::new_id;
use crate::support::control_plane::{ControlPlane, Options, RunSpec, State};
use crate::support::engine::Engine;
use crate::support::process::{Process, Signal};

/// When every wait ends.
static LIMIT: OnceLock<Instant> = OnceLock::new();

/// How long the containers of an ended task may stay. A worker that leaves some is measured anyway.
const REMOVED_WITHIN: Duration = Duration::from_secs(15);

/// How long a worker may take to connect.
const CONNECTED_WITHIN: Duration = Duration::from_secs(30);

/// How often a wait for a connection checks whether the worker has exited.
const CHECKED_EVERY: Duration = Duration::from_millis(200);

/// How long a worker may take to exit after SIGTERM, before it is killed.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// The name of the program of `BENCH_VS`.
pub const VERSUS: &str = "vs";

/// A worker program.
#[derive(Clone)]
pub struct Program {
    /// The head of its columns.
    pub name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// A running worker with a control plane of its own. Dropping it stops the worker and removes its containers and volumes.
pub struct Session {
    pub process: Process,
    pub plane: ControlPlane,
    engine: Engine,
    worker_id: String,
}

/// What a worker used for some tasks.
pub struct Usage {
    /// From the first assignment to the last report, in milliseconds.
    pub time: f64,
    /// In milliseconds.
    pub cpu: f64,
    /// The peak of the resident memory, in MiB.
    pub peak: f64,
}

impl Usage {
    /// Returns how much was done in one second of processor time, where the kernel counts in steps of 10 ms.
    pub fn per_cpu_second(&self, done: f64) -> f64 {
        done / self.cpu.max(10.0) * 1000.0
    }
}

impl Program {
    /// Returns the program of a command, which is split at spaces.
    pub fn of(name: String, command: &str) -> Self {
        let mut words = command.split_whitespace().map(str::to_owned);
        let path = PathBuf::from(words.next().unwrap_or_default());
        Self { name, path, args: words.collect() }
    }

    /// Starts a worker. All workers get the same arguments and variables, and `settings` as further variables.
    pub fn start(
        &self,
        engine: &Engine,
        urls: [&str; 2],
        worker_id: &str,
        settings: &[(&str, &str)],
    ) -> Process {
        let [socket, root] = urls;
        let mut command = Command::new(&self.path);
        command.args(&self.args).args(["--worker-id", worker_id]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", "/nonexistent").env("DOCKER_HOST", engine.host());
        command.env("OZ_API_KEY", Options::default().key);
        command.env("OZ_WS_URL", socket).env("OZ_SERVER_ROOT_URL", root).env("OZ_DRAIN_TIMEOUT", "0");
        command.envs(settings.iter().copied());
        Process::spawn(&mut command, None)
    }
}

impl Session {
    /// Starts a worker and waits until it is connected.
    pub fn start(engine: &Engine, program: &Program, settings: &[(&str, &str)]) -> Self {
        let plane = ControlPlane::start(Options::default());
        let worker_id = format!("bench-{}", new_id());
        let process = program.start(engine, [&plane.ws_url(), &plane.root_url()], &worker_id, settings);
        let session = Self { process, plane, engine: engine.clone(), worker_id };
        session.wait_connected(1);
        session
    }

    /// Waits until the control plane has accepted this number of handshakes in total.
    pub fn wait_connected(&self, count: usize) {
        let end = Instant::now() + CONNECTED_WITHIN;
        let connected = || self.plane.holds_within(CHECKED_EVERY, |model| model.connections.len() >= count);
        while !connected() {
            let goes_on = self.process.is_running() && Instant::now() < end;
            assert!(goes_on, "the worker does not connect\n{}", self.log_tail());
        }
    }

    /// Returns the counters of the worker's process.
    pub fn gauge(&self) -> Gauge {
        Gauge::of(self.process.id())
    }

    /// Runs a task. Returns the time from the assignment to the report, in milliseconds. Then waits until its container is
    /// removed, which does not count.
    pub fn run(&self, spec: &RunSpec) -> f64 {
        self.run_all(spec, 1)
    }

    /// Runs a number of tasks at once. Returns the time from the first assignment to the last report, in milliseconds.
    pub fn run_all(&self, spec: &RunSpec, count: usize) -> f64 {
        let before = self.engine.container_names();
        let ids: Vec<String> = (0..count).map(|_| self.plane.submit(spec)).collect();
        let ended =
            self.plane.holds_within(time_left(), |model| model.runs.iter().all(|run| run.state.ended()));
        assert!(ended, "not all of {count} tasks have ended\n{}", self.log_tail());
        // Before the runs are forgotten: a container stays until its run is seen to have ended.
        wait_removed(&self.engine, &before);
        let runs = self.plane.forget(|_| true);
        assert_eq!(runs.len(), ids.len());
        for run in &runs {
            assert_eq!(run.state, State::Succeeded, "{:?}\n{}", run.message, self.log_tail());
        }
        let first = runs.iter().filter_map(|run| run.sent).min().expect("an assignment");
        let last = runs.iter().filter_map(|run| run.history.last()).map(|received| received.at).max();
        millis(last.expect("a report").duration_since(first))
    }

    /// As [`Session::run_all`], and returns what the worker used until the containers were removed.
    pub fn run_measured(&self, spec: &RunSpec, count: usize) -> Usage {
        let gauge = self.gauge();
        gauge.reset_peak();
        let before = gauge.cpu_ms();
        let time = self.run_all(spec, count);
        Usage { time, cpu: gauge.cpu_ms() - before, peak: gauge.peak_mib() }
    }

    /// Kills the worker and starts it again with the same id and control plane. Returns when the start began.
    pub fn restart(&mut self, program: &Program, settings: &[(&str, &str)]) -> Instant {
        self.process.signal(Signal::KILL);
        self.process.wait_exit(STOPPED_WITHIN);
        let start = Instant::now();
        let urls = [self.plane.ws_url(), self.plane.root_url()];
        self.process =
            program.start(&self.engine, urls.each_ref().map(String::as_str), &self.worker_id, settings);
        start
    }

    /// Returns the last lines of the worker's log.
    pub fn log_tail(&self) -> String {
        let lines = self.process.stderr().all();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        end(&self.process, &self.engine, &self.worker_id);
    }
}

/// Waits until the engine has no other containers than `before`.
pub fn wait_removed(engine: &Engine, before: &[String]) {
    let end = Instant::now() + REMOVED_WITHIN;
    while engine.container_names().iter().any(|name| !before.contains(name)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Stops a worker and removes the containers and volumes that have its id in a name or in a label, whatever the label is. A
/// worker that is killed while it unpacks a sidecar would make the next one wait.
pub fn end(process: &Process, engine: &Engine, worker_id: &str) {
    process.signal(Signal::TERM);
    let end = Instant::now() + STOPPED_WITHIN;
    while process.is_running() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
    process.signal(Signal::KILL);
    let is_own = |object: &&Value| object.to_string().contains(worker_id);
    let remove = |path: &str, object: &Value, id: &str| {
        let id = object[id].as_str().unwrap_or_default();
        // Fails for a volume that another worker uses.
        engine.request("DELETE", &format!("{path}/{id}?force=1&v=1"), &[], &[]);
    };
    let containers = engine.json("GET", "/containers/json?all=1", &Value::Null);
    for container in containers.as_array().into_iter().flatten().filter(is_own) {
        remove("/containers", container, "Id");
    }
    let volumes = engine.json("GET", "/volumes", &Value::Null);
    for volume in volumes["Volumes"].as_array().into_iter().flatten().filter(is_own) {
        remove("/volumes", volume, "Name");
    }
}

/// Sets when every wait for a worker ends, and with it the scenario.
pub fn limit_waits(end: Instant) {
    LIMIT.get_or_init(|| end);
}

/// Returns how long to wait for a worker at most.
pub fn time_left() -> Duration {
    LIMIT.get().map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()))
}

/// Returns a name for a program: the folder that it is in.
pub fn name_of(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name);
    folder.map_or_else(|| "worker".to_owned(), |name| name.to_string_lossy().into_owned())
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns how long `act` takes, in milliseconds.
pub fn timed(act: impl FnOnce()) -> f64 {
    let start = Instant::now();
    act();
    millis(start.elapsed())
}
