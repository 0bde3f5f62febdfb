//! What both demos play on: images, the control plane, the worker, and the cleaning up afterwards.

use std::path::Path;
use std::time::Duration;

use crate::support::control_plane::{ControlPlane, Options, Pacing, RunSpec};
use crate::support::engine::Engine;
use crate::support::images::{Images, Layout, Root};
use crate::support::process::Signal;
use crate::support::worker::{Builder, Worker};

const AGENT: &str = include_str!("agent.sh");
const KEY: &str = "demo-key";
const DEADLINE: Duration = Duration::from_secs(30);

/// Everything that runs. Fields are dropped in order: a worker that still runs is killed before its images go.
pub struct Stage {
    worker: Worker,
    /// The control plane.
    pub plane: ControlPlane,
    /// The engine.
    pub engine: Engine,
    /// The worker's id, new for each demo.
    pub worker_id: String,
    task_image: String,
    sidecar_image: String,
    _images: Images,
}

impl Stage {
    /// Makes the images and starts the control plane on the first free of `ports`, and the worker.
    pub fn set(worker: &Path, ports: impl IntoIterator<Item = u16>) -> Result<Self, String> {
        if !worker.exists() {
            return Err(format!("there is no worker at {}: build it first", worker.display()));
        }
        let engine = Engine::get();
        println!("engine         {}", engine.host());
        let mut images = Images::new(&engine, "oz-demo");
        let task_image = images.task();
        println!("task image     {task_image} (busybox)");
        let sidecar_image = images.make("sidecar", Root::sidecar(Layout::Root, AGENT), &[]);
        println!("sidecar image  {sidecar_image} (a stand-in for an agent)");
        let plane = start_plane(ports)?;
        println!("control plane  {}", plane.root_url());
        let worker_id = format!("demo-{}", std::process::id());
        let command = Builder::new(worker).plane(&plane, &worker_id).env("DOCKER_HOST", engine.host());
        // The images are here and nowhere else: nobody on the Internet need be asked for them.
        let command = command.env("OZ_PULL", "missing");
        let worker = command.echo("worker         | ").start();
        let stage = Self { worker, plane, engine, worker_id, task_image, sidecar_image, _images: images };
        stage.wait_connected()?;
        println!("worker         {} is connected, process {}", stage.worker_id, stage.worker.id());
        Ok(stage)
    }

    fn wait_connected(&self) -> Result<(), String> {
        let connected = |plane: &ControlPlane| {
            plane.holds_within(Duration::from_millis(200), |world| world.connected() > 0)
        };
        while !connected(&self.plane) {
            if !self.worker.runs() {
                return Err("the worker ended before it was connected; its log says why".to_owned());
            }
        }
        Ok(())
    }

    /// A run with the demo's images.
    pub fn spec(&self, prompt: &str) -> RunSpec {
        RunSpec {
            prompt: prompt.to_owned(),
            docker_image: Some(self.task_image.clone()),
            sidecar_image: self.sidecar_image.clone(),
            env_vars: [("DEMO_PROMPT".to_owned(), prompt.to_owned())].into(),
            ..RunSpec::default()
        }
    }

    /// Whether the worker has not ended.
    pub fn worker_runs(&self) -> bool {
        self.worker.runs()
    }

    /// Stops the worker as a supervisor does, and makes sure that it leaves nothing but its sidecar volumes, which are
    /// removed here.
    pub fn strike(mut self) -> Result<(), String> {
        self.worker.signal(Signal::TERM);
        let status = self.worker.wait_exit(DEADLINE);
        println!("worker         SIGTERM, {status}");
        let containers = self.engine.containers_of(&self.worker_id);
        let ids = containers.iter().filter_map(|container| container["Id"].as_str());
        ids.for_each(|id| self.engine.remove_container(id));
        let containers = containers.len();
        let volumes = self.engine.volumes_of(&self.worker_id);
        let sidecars = volumes.iter().filter(|name| name.starts_with("oz-sidecar-")).count();
        println!("left behind    {containers} containers, {} volumes: {}", volumes.len(), volumes.join(" "));
        volumes.iter().for_each(|name| self.engine.remove_volume(name));
        println!("clean-up       all of it and the images removed");
        match (status.success(), containers, volumes.len() - sidecars) {
            (true, 0, 0) => Ok(()),
            (true, ..) => Err("the worker left something behind".to_owned()),
            (false, ..) => Err(format!("the worker ended with {status}")),
        }
    }
}

fn start_plane(ports: impl IntoIterator<Item = u16>) -> Result<ControlPlane, String> {
    let options = Options {
        key: KEY.to_owned(),
        pacing: Pacing::Poll(Duration::from_millis(1500)),
        ..Options::default()
    };
    let mut reason = "no port to try".to_owned();
    for port in ports {
        match ControlPlane::try_start(Options { port, ..options.clone() }) {
            Ok(plane) => return Ok(plane),
            Err(error) => reason = format!("port {port}: {error}"),
        }
    }
    Err(format!("the control plane does not start: {reason}"))
}
