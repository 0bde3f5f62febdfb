//! What both demos run: images, a control plane and a worker.

use std::path::Path;
use std::time::Duration;

use crate::support::control_plane::{ControlPlane, Dialect, Options, Pacing, RunSpec};
use crate::support::engine::Engine;
use crate::support::stage::{Stage, StageBuilder};
use crate::support::worker::Worker;

const AGENT: &str = include_str!("agent.sh");
const KEY: &str = "demo-key";
const DEADLINE: Duration = Duration::from_secs(30);

/// The worker is dropped first, so that it is killed before its images are removed.
pub struct Setup {
    /// The worker.
    pub worker: Worker,
    /// The engine, the images and the control plane.
    pub stage: Stage,
}

impl Setup {
    /// Makes the images, starts the control plane on the first free port of `ports`, and starts the worker.
    pub fn start(
        worker: &Path,
        dialect: Dialect,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<Self, String> {
        if !worker.exists() {
            return Err(format!("no worker at {}; build it first", worker.display()));
        }
        let engine = Engine::get();
        println!("engine         {}", engine.host());
        let builder = StageBuilder::new("demo").worker_id(format!("demo-{}", std::process::id()));
        let builder = builder.engine(engine).binary(worker).agent(AGENT);
        let stage = builder.control_plane(start_plane(dialect, ports)?).build();
        println!("task image     {} (busybox)", stage.task_image);
        println!("sidecar image  {} (a stand-in for an agent)", stage.sidecar_image);
        println!("control plane  {} ({dialect:?})", stage.plane.root_url());
        let worker = stage.worker().echo("worker         | ").start();
        let setup = Self { worker, stage };
        setup.wait_connected()?;
        println!("worker         {} connected, pid {}", setup.stage.worker_id, setup.worker.id());
        Ok(setup)
    }

    fn wait_connected(&self) -> Result<(), String> {
        let connected = |plane: &ControlPlane| {
            plane.holds_within(Duration::from_millis(200), |model| model.connected() > 0)
        };
        while !connected(&self.stage.plane) {
            if !self.worker.is_running() {
                return Err("the worker exited before it was connected; see its log above".to_owned());
            }
        }
        Ok(())
    }

    /// Returns a run with the demo's images.
    pub fn spec(&self, prompt: &str) -> RunSpec {
        RunSpec {
            prompt: prompt.to_owned(),
            docker_image: Some(self.stage.task_image.clone()),
            sidecar_image: self.stage.sidecar_image.clone(),
            env_vars: [("DEMO_PROMPT".to_owned(), prompt.to_owned())].into(),
            ..RunSpec::default()
        }
    }

    /// Stops the worker with SIGTERM and removes what it left. Returns an error if that is more than sidecar volumes, or
    /// if the worker did not exit with 0.
    pub fn stop(mut self) -> Result<(), String> {
        let left = self.stage.shut_down(&mut self.worker, DEADLINE);
        println!("worker         sent SIGTERM, ended with {}", left.status);
        println!(
            "left behind    {} containers, {} volumes: {}",
            left.containers,
            left.volumes.len(),
            left.volumes.join(" ")
        );
        for volume in &left.in_use {
            println!("in use         volume {volume}, by a container of another worker; not removed");
        }
        let removed = if left.in_use.is_empty() { "them" } else { "the others" };
        println!("clean-up       removed {removed} and the images");
        match (left.status.success(), left.containers, left.task_volumes) {
            (true, 0, 0) => Ok(()),
            (true, ..) => Err("the worker left containers or task volumes behind".to_owned()),
            (false, ..) => Err(format!("the worker ended with {}", left.status)),
        }
    }
}

fn start_plane(dialect: Dialect, ports: impl IntoIterator<Item = u16>) -> Result<ControlPlane, String> {
    let options = Options {
        dialect,
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
    Err(format!("cannot start the control plane: {reason}"))
}
