//! What the soak runs: an engine with images, a control plane, a fault proxy in front of it, and one worker.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::control_plane::{ControlPlane, Options, Run};
use crate::support::fault_proxy::{FaultProxy, Jitter};
use crate::support::images::Layout;
use crate::support::rng::Rng;
use crate::support::stage::{Stage, StageBuilder};
use crate::support::worker::Worker;

/// How long the worker may take to finish its tasks, or to exit.
const DEADLINE: Duration = Duration::from_secs(120);

/// How many tasks the worker runs at the same time.
pub const SLOTS: usize = 8;

/// The worker runs with the environment that this unit sets.
const UNIT: &str = include_str!("../../packaging/systemd/oz-agent-worker.service.in");

/// The worker is dropped first, so that it is killed before its images are removed.
pub struct Setup {
    pub worker: Worker,
    pub proxy: FaultProxy,
    /// Mounted into tasks; they append their ids to the file `started` in it.
    folder: TempDir,
    /// A sidecar image without a script.
    pub broken_sidecar: String,
    pub stage: Stage,
}

/// What remains after the worker has exited.
pub struct Remains {
    /// The runs without a report.
    pub runs: Vec<Run>,
    /// The id of a task for each of its starts.
    pub started: Vec<String>,
    /// The worker's log.
    pub log: Vec<String>,
}

impl Setup {
    /// Starts everything and waits until the worker is connected.
    pub fn start(worker: &Path, rng: &mut Rng) -> Result<Self, String> {
        if !worker.exists() {
            return Err(format!("no worker at {}; build it first", worker.display()));
        }
        // Short, so that runs that were sent into a dead connection are soon sent again.
        let claim_timeout = Duration::from_secs(30);
        let plane = ControlPlane::start(Options { claim_timeout, ..Options::default() });
        let builder = StageBuilder::new("soak").worker_id(format!("soak-{}", std::process::id()));
        let mut stage = builder.binary(worker).control_plane(plane).build();
        let broken_sidecar = stage.images.sidecar(Layout::None);
        let jitter = Jitter { rng: rng.fork(), max_delay_ms: 0 };
        let proxy = FaultProxy::seeded(&format!("tcp://{}", stage.plane.address()), Vec::new(), jitter);
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mount = format!("{}:/soak", folder.path().display());
        let worker = stage.worker_via(&stage.worker_id, &proxy.address()).args(["-v", &mount]);
        let worker = worker.args(["--max-concurrent-tasks", &SLOTS.to_string(), "--lost-runs", "finish"]);
        let worker = worker.args(["--reconcile-interval", "5s"]);
        let worker = unit_environment().fold(worker, |worker, (name, value)| worker.env(name, value)).start();
        let setup = Self { worker, proxy, folder, broken_sidecar, stage };
        setup.stage.plane.wait_connected(1);
        Ok(setup)
    }

    /// Waits until the worker is connected and all runs have ended.
    pub fn wait_idle(&self) -> Result<(), String> {
        let Self { worker, stage, .. } = self;
        let end = Instant::now() + DEADLINE;
        // A task has no container at first, so only several checks in a row are reliable.
        let mut idle = 0;
        while idle < 10 {
            let ended = stage
                .plane
                .view(|model| model.connected() > 0 && model.runs.iter().all(|run| run.state.ended()));
            let clean = ended && stage.engine.containers_of(&stage.worker_id).is_empty();
            idle = if clean { idle + 1 } else { 0 };
            if Instant::now() > end || !worker.is_running() {
                return Err(format!("the worker did not finish its tasks\n{}", self.log_tail()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let lines = self.worker.stderr().all();
        lines[lines.len().saturating_sub(50)..].join("\n")
    }

    /// Stops the worker with SIGTERM and removes what it left. Returns an error if that is more than sidecar volumes, if
    /// the worker did not exit with 0, or if it broke the protocol.
    pub fn stop(mut self) -> Result<Remains, String> {
        let left = self.stage.shut_down(&mut self.worker, DEADLINE);
        println!(
            "\nleft behind: {} containers, {} task volumes; after SIGTERM the worker ended with {}",
            left.containers, left.task_volumes, left.status
        );
        if left.status.code() != Some(0) || left.containers + left.task_volumes > 0 {
            return Err(format!("the worker did not shut down cleanly\n{}", self.log_tail()));
        }
        let violations = self.stage.plane.violations();
        if !violations.is_empty() {
            return Err(format!("the worker broke the protocol: {violations:#?}"));
        }
        let started = std::fs::read_to_string(self.folder.path().join("started")).unwrap_or_default();
        let started = started.lines().map(str::to_owned).collect();
        Ok(Remains { runs: self.stage.plane.runs(), started, log: self.worker.stderr().all() })
    }
}

fn unit_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    UNIT.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}
