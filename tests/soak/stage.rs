//! What the soak plays on: an engine with images, a control plane, a cutter before it, and the one worker.
//!
//! Owns how they begin and end. It must not know what is done with them.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::control_plane::{ControlPlane, Options, Run};
use crate::support::cutter::{Cutter, Manner};
use crate::support::dice::Dice;
use crate::support::engine::Engine;
use crate::support::images::{Images, Layout};
use crate::support::process::Signal;
use crate::support::worker::{Builder, Worker};

/// How long the worker may take for what it has been asked to do.
const DEADLINE: Duration = Duration::from_secs(120);

/// How many tasks run at the same time.
pub const SLOTS: usize = 8;

/// Everything that runs. Fields are dropped in order: a worker that still runs is killed before its images go.
pub struct Stage {
    pub worker: Worker,
    pub cutter: Cutter,
    pub plane: ControlPlane,
    pub engine: Engine,
    pub worker_id: String,
    pub task_image: String,
    /// One that works, and one without a script.
    pub sidecar_images: [String; 2],
    /// Where tasks tell that they have been started.
    folder: TempDir,
    _images: Images,
}

/// What is known when the worker has ended.
pub struct Left {
    /// The runs of which no report has come.
    pub runs: Vec<Run>,
    /// The id of a task for each start.
    pub started: Vec<String>,
    pub log: Vec<String>,
}

impl Stage {
    /// Starts everything and waits until the worker is connected.
    pub fn set(worker: &Path, dice: &mut Dice) -> Result<Self, String> {
        if !worker.exists() {
            return Err(format!("there is no worker at {}: build it first", worker.display()));
        }
        let engine = Engine::get();
        let mut images = Images::new(&engine, "oz-soak");
        let (task_image, sidecar_images) =
            (images.task(), [Layout::Root, Layout::None].map(|layout| images.sidecar(layout)));
        // Runs that were sent into a connection that is no more come again before long.
        let claim_timeout = Duration::from_secs(30);
        let plane = ControlPlane::start(Options { claim_timeout, ..Options::default() });
        let manner = Manner { dice: dice.split(), lag: 0 };
        let cutter = Cutter::seeded(&format!("tcp://{}", plane.address()), Vec::new(), manner);
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let (worker_id, mount) =
            (format!("soak-{}", std::process::id()), format!("{}:/soak", folder.path().display()));
        let command = Builder::new(worker).plane_at(&plane, &cutter.address(), &worker_id);
        let command = command.env("DOCKER_HOST", engine.host()).args(["-v", &mount, "--pull", "missing"]);
        let command = command.args(["--max-concurrent-tasks", &SLOTS.to_string(), "--lost-runs", "finish"]);
        let worker = command.args(["--reconcile-interval", "5s"]).start();
        let stage = Self {
            worker,
            cutter,
            plane,
            engine,
            worker_id,
            task_image,
            sidecar_images,
            folder,
            _images: images,
        };
        stage.plane.wait_connected(1);
        Ok(stage)
    }

    /// Waits until the worker is connected and has nothing to do any more.
    pub fn wait_idle(&self) -> Result<(), String> {
        let end = Instant::now() + DEADLINE;
        // A job is without a container at first, so one look is not enough.
        let mut idle = 0;
        while idle < 10 {
            let quiet = self
                .plane
                .view(|world| world.connected() > 0 && world.runs.iter().all(|run| run.state.ended()));
            idle = if quiet && self.engine.containers_of(&self.worker_id).is_empty() { idle + 1 } else { 0 };
            if Instant::now() > end || !self.worker.runs() {
                return Err(format!("the worker has not come to rest\n{}", self.tail()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn tail(&self) -> String {
        let lines = self.worker.stderr().all();
        lines[lines.len().saturating_sub(50)..].join("\n")
    }

    /// Stops the worker as a supervisor does, and makes sure that it leaves nothing but volumes that later tasks share, which
    /// are removed here.
    pub fn strike(mut self) -> Result<Left, String> {
        self.worker.signal(Signal::TERM);
        let status = self.worker.wait_exit(DEADLINE);
        let containers = self.engine.containers_of(&self.worker_id);
        let ids = containers.iter().filter_map(|container| container["Id"].as_str());
        ids.for_each(|id| self.engine.remove_container(id));
        let volumes = self.engine.volumes_of(&self.worker_id);
        volumes.iter().for_each(|name| self.engine.remove_volume(name));
        let shared = volumes.iter().filter(|name| name.starts_with("oz-sidecar-")).count();
        let (containers, own) = (containers.len(), volumes.len() - shared);
        println!("\nleft: {containers} containers, {own} volumes of single tasks; SIGTERM: {status}");
        if status.code() != Some(0) || containers + own > 0 {
            return Err(format!("the worker's end was not clean\n{}", self.tail()));
        }
        let violations = self.plane.violations();
        if !violations.is_empty() {
            return Err(format!("the worker broke the protocol: {violations:#?}"));
        }
        let started = std::fs::read_to_string(self.folder.path().join("started")).unwrap_or_default();
        let started = started.lines().map(str::to_owned).collect();
        Ok(Left { runs: self.plane.runs(), started, log: self.worker.stderr().all() })
    }
}
