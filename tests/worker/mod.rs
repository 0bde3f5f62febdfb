//! The worker as a process, against a control plane and a real engine: whole tasks.

mod adopt;
mod bad;
mod cancel;
mod ends;
pub(crate) mod gate;
mod idle;
mod lost;
mod many;
mod notify;
mod podman;
mod pull;
mod reconcile;
mod registry;
mod settings;
mod stop;
mod threads;
mod versions;
mod whole;

use std::io::Read;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use serde_json::Value;

use crate::support::control_plane::{ControlPlane, Options, Run, RunSpec};
use crate::support::engine::Engine;
use crate::support::images::{Images, Layout};
use crate::support::process::Signal;
use crate::support::worker::{Builder, Worker};

/// How long anything is waited for: far longer than it takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Waits until somebody connects and says something; then he is kept waiting as long as the result lives.
pub(crate) fn kept_waiting<S: Read>(listener: &impl AsFd, accept: impl Fn() -> std::io::Result<S>) -> S {
    let timeout = rustix::event::Timespec::try_from(DEADLINE).unwrap();
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)), Ok(1), "nobody has connected");
    let mut stream = accept().unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// An engine with images, a control plane, and the id of one worker; what they leave on the engine goes at the end.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) images: Images,
    pub(crate) plane: ControlPlane,
    pub(crate) worker_id: String,
    pub(crate) task_image: String,
    pub(crate) sidecar_image: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        Self::on(Engine::get(), options)
    }

    /// On this engine.
    pub(crate) fn on(engine: Engine, options: Options) -> Self {
        let mut images = Images::new(&engine, "oz-worker");
        let (task_image, sidecar_image) = (images.task(), images.sidecar(Layout::Root));
        let worker_id = format!("test-{}", crate::support::control_plane::run::new_id());
        let plane = ControlPlane::start(options);
        Self { engine, images, plane, worker_id, task_image, sidecar_image }
    }

    /// A worker that is not started yet. The images exist on this engine only, so nothing is pulled.
    pub(crate) fn worker(&self) -> Builder {
        let worker = Worker::with(&self.plane, &self.worker_id).env("DOCKER_HOST", self.engine.host());
        worker.args(["--pull", "missing"])
    }

    /// A worker that is connected.
    pub(crate) fn started(&self) -> Worker {
        self.connected(self.worker())
    }

    /// Starts it and waits until it is connected.
    pub(crate) fn connected(&self, builder: Builder) -> Worker {
        let before = self.plane.connections();
        let worker = builder.start();
        self.plane.wait_connected(before + 1);
        worker
    }

    /// A run whose agent does what `script` says and shows nothing else.
    pub(crate) fn spec(&self, script: &str) -> RunSpec {
        let env = [("OZ_TEST_QUIET", "1"), ("OZ_TEST_SCRIPT", script)];
        RunSpec {
            docker_image: Some(self.task_image.clone()),
            sidecar_image: self.sidecar_image.clone(),
            env_vars: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..RunSpec::default()
        }
    }

    /// Runs one task to its end.
    pub(crate) fn run(&self, spec: &RunSpec) -> Run {
        let id = self.plane.submit(spec);
        self.plane.wait_ended(&id)
    }

    /// Waits until the engine has no container of this worker any more.
    pub(crate) fn wait_no_containers(&self) {
        self.wait("no container is left", || self.engine.containers_of(&self.worker_id).is_empty());
    }

    /// Waits until something about the engine holds, which has no event of its own to wait for.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !holds() {
            let left = self.engine.containers_of(&self.worker_id);
            assert!(Instant::now() < end, "waited in vain: {what}\n{left:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The one container of this worker that runs a task, as inspect shows it, once it runs.
    pub(crate) fn running(&self, task_id: &str) -> Value {
        let label = format!("oz-task-id={task_id}");
        let runs = |list: &Vec<Value>| list.len() == 1 && list[0]["State"] == "running";
        self.wait("the container runs", || runs(&self.engine.containers("label", &label)));
        let id = self.engine.containers("label", &label)[0]["Id"].as_str().unwrap().to_owned();
        self.engine.json("GET", &format!("/containers/{id}/json"), &Value::Null)
    }

    /// Waits until nothing is left on the engine but volumes that later tasks share.
    pub(crate) fn wait_clean(&self) {
        self.wait_no_containers();
        let shared = |name: &String| name.starts_with("oz-sidecar-");
        self.wait("only shared volumes are left", || {
            self.engine.volumes_of(&self.worker_id).iter().all(shared)
        });
    }

    /// Asks the worker to stop and checks that it does so in order, with nothing left on the engine.
    pub(crate) fn stop(&self, mut worker: Worker) {
        worker.signal(Signal::TERM);
        let status = worker.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{:#?}", worker.stderr().all());
        assert_eq!(self.engine.containers_of(&self.worker_id), Vec::<Value>::new());
        self.plane.assert_no_violations();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.engine.remove_all_of(&self.worker_id);
    }
}
