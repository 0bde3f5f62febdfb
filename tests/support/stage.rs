//! The surroundings of one worker: an engine with images, a control plane, and the worker's process.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::control_plane::run::new_id;
use super::control_plane::{ControlPlane, Options, Run, RunSpec};
use super::engine::Engine;
use super::images::{AGENT, Images, Layout, RootFs};
use super::process::Signal;
use super::worker::{Worker, WorkerBuilder, binary};

/// How long a test waits for anything; far longer than it takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Builds a [`Stage`].
pub struct StageBuilder {
    name: String,
    worker_id: Option<String>,
    engine: Option<Engine>,
    plane: Option<ControlPlane>,
    binary: Option<PathBuf>,
    agent: &'static str,
}

/// An engine with a task image and a sidecar image, a control plane, and the id of one worker. Dropping it removes
/// everything of that worker from the engine.
pub struct Stage {
    pub engine: Engine,
    pub images: Images,
    pub plane: ControlPlane,
    pub worker_id: String,
    pub task_image: String,
    pub sidecar_image: String,
    binary: Option<PathBuf>,
}

/// How a worker exited, and what it left on the engine.
pub struct Leftovers {
    pub status: ExitStatus,
    pub containers: usize,
    /// Names of all its volumes.
    pub volumes: Vec<String>,
    /// How many of the volumes belong to a single task; a worker must remove these.
    pub task_volumes: usize,
    /// The volumes that another worker uses; they are not removed.
    pub in_use: Vec<String>,
}

impl StageBuilder {
    /// Uses `name` as the prefix of image names and of the worker's id.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), worker_id: None, engine: None, plane: None, binary: None, agent: AGENT }
    }

    /// Sets the worker's id; the default is random.
    pub fn worker_id(mut self, id: String) -> Self {
        self.worker_id = Some(id);
        self
    }

    /// Sets the engine; the default is the one of `OZ_TEST_DOCKER_HOST`.
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Sets the control plane; the default is one with default options.
    pub fn control_plane(mut self, plane: ControlPlane) -> Self {
        self.plane = Some(plane);
        self
    }

    /// Sets the worker's binary; the default is [`binary`].
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Sets the script of the sidecar image; the default is [`AGENT`].
    pub fn agent(mut self, script: &'static str) -> Self {
        self.agent = script;
        self
    }

    /// Makes the images and starts the control plane.
    pub fn build(self) -> Stage {
        let engine = self.engine.unwrap_or_else(Engine::get);
        let mut images = Images::new(&engine, &format!("oz-{}", self.name));
        let task_image = images.task();
        let sidecar_image = images.make("sidecar", RootFs::sidecar(Layout::Root, self.agent), &[]);
        let plane = self.plane.unwrap_or_else(|| ControlPlane::start(Options::default()));
        let worker_id = self.worker_id.unwrap_or_else(|| format!("{}-{}", self.name, new_id()));
        Stage { engine, images, plane, worker_id, task_image, sidecar_image, binary: self.binary }
    }
}

impl Stage {
    /// Builds a stage with the defaults of [`StageBuilder`].
    pub fn new() -> Self {
        StageBuilder::new("test").build()
    }

    /// Builds a stage whose control plane has these options.
    pub fn with(options: Options) -> Self {
        StageBuilder::new("test").control_plane(ControlPlane::start(options)).build()
    }

    /// Returns a worker that is not started. Its pull policy is `missing`, because the images exist on this engine only.
    pub fn worker(&self) -> WorkerBuilder {
        self.worker_pulling("missing")
    }

    /// As [`Stage::worker`], with this pull policy.
    pub fn worker_pulling(&self, policy: &str) -> WorkerBuilder {
        let address = self.plane.address().to_string();
        self.build_worker(&self.worker_id, &address).args(["--pull", policy])
    }

    /// As [`Stage::worker`], with another id. The stage does not remove the containers and volumes of such a worker.
    pub fn worker_named(&self, id: &str) -> WorkerBuilder {
        self.worker_via(id, &self.plane.address().to_string())
    }

    /// As [`Stage::worker_named`], with its WebSocket connected to `address` (`host:port`) instead of the control plane.
    pub fn worker_via(&self, id: &str, address: &str) -> WorkerBuilder {
        self.build_worker(id, address).args(["--pull", "missing"])
    }

    fn build_worker(&self, id: &str, address: &str) -> WorkerBuilder {
        let program = self.binary.clone().unwrap_or_else(binary);
        let worker = WorkerBuilder::new(&program).control_plane_via(&self.plane, address, id);
        // Less than the default, because a shell that runs one command ignores SIGTERM.
        worker.env("DOCKER_HOST", self.engine.host()).env("OZ_STOP_GRACE", "3s")
    }

    /// Starts a worker with default settings and waits as [`Stage::start`] does.
    pub fn start_worker(&self) -> Worker {
        self.start(self.worker())
    }

    /// Starts a worker and waits until it is connected and handles messages.
    pub fn start(&self, builder: WorkerBuilder) -> Worker {
        let before = self.plane.connections();
        let worker = builder.start();
        self.plane.wait_connected(before + 1);
        worker.wait_log(DEADLINE, |line| line.contains("worker ready"));
        worker
    }

    /// Returns a run whose agent executes `script` and prints nothing else.
    pub fn spec(&self, script: &str) -> RunSpec {
        RunSpec::quiet(&self.task_image, &self.sidecar_image, script)
    }

    /// Submits a run and waits until it has ended.
    pub fn run(&self, spec: &RunSpec) -> Run {
        let id = self.plane.submit(spec);
        self.plane.wait_ended(&id)
    }

    /// Polls until `holds`; for conditions on the engine that have no event. Panics with `what` and the worker's
    /// containers after [`DEADLINE`].
    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds() {
            let left = self.engine.containers_of(&self.worker_id);
            assert!(Instant::now() < end, "timed out waiting until {what}; containers: {left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the engine has no container of this worker.
    pub fn wait_no_containers(&self) {
        self.wait("no container is left", || self.engine.containers_of(&self.worker_id).is_empty());
    }

    /// Waits until the engine has nothing of this worker but sidecar volumes, which later tasks reuse.
    pub fn wait_clean(&self) {
        self.wait_no_containers();
        self.wait("only sidecar volumes are left", || {
            self.engine.volumes_of(&self.worker_id).iter().all(|name| is_sidecar_volume(name))
        });
    }

    /// Waits until the only container of a task is running, and returns its inspect data.
    pub fn wait_running(&self, task_id: &str) -> Value {
        let label = format!("oz-task-id={task_id}");
        let runs = |list: &Vec<Value>| list.len() == 1 && list[0]["State"] == "running";
        self.wait("the container is running", || runs(&self.engine.containers("label", &label)));
        let id = self.engine.containers("label", &label)[0]["Id"].as_str().expect("an id").to_owned();
        self.engine.json("GET", &format!("/containers/{id}/json"), &Value::Null)
    }

    /// Returns the name of the container of an execution.
    pub fn container_name(&self, task_id: &str, execution_id: Option<&str>) -> String {
        container_name(&self.worker_id, task_id, execution_id)
    }

    /// Stops a worker with SIGTERM. Panics unless it exits with 0, leaves no container, and kept to the protocol.
    pub fn stop(&self, mut worker: Worker) {
        worker.signal(Signal::TERM);
        let status = worker.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{:#?}", worker.stderr().all());
        assert_eq!(self.engine.containers_of(&self.worker_id), Vec::<Value>::new());
        self.plane.assert_no_violations();
    }

    /// Stops a worker with SIGTERM, and removes and returns what it left on the engine.
    pub fn shut_down(&self, worker: &mut Worker, deadline: Duration) -> Leftovers {
        worker.signal(Signal::TERM);
        let status = worker.wait_exit(deadline);
        let containers = self.engine.containers_of(&self.worker_id).len();
        let volumes = self.engine.volumes_of(&self.worker_id);
        let task_volumes = volumes.iter().filter(|name| !is_sidecar_volume(name)).count();
        let in_use = self.engine.remove_unused_of(&self.worker_id);
        Leftovers { status, containers, volumes, task_volumes, in_use }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.engine.remove_unused_of(&self.worker_id);
    }
}

/// Returns the name that the worker gives to the container of an execution.
pub fn container_name(worker_id: &str, task_id: &str, execution_id: Option<&str>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let readable: String = task_id.chars().take(40).map(plain).collect();
    let mut bytes = [worker_id.as_bytes(), b"\0", task_id.as_bytes()].concat();
    if let Some(execution_id) = execution_id {
        bytes.push(0xff);
        bytes.extend_from_slice(execution_id.as_bytes());
    }
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(&bytes));
    format!("oz-task-{readable}-{}", digest.get(..12).expect("64 digits"))
}

fn is_sidecar_volume(name: &str) -> bool {
    name.starts_with("oz-sidecar-")
}
