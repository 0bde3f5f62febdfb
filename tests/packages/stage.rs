//! An engine with images, and a control plane behind TLS, for workers that are not started in the usual way.

use std::path::Path;

use serde_json::Value;

use crate::DEADLINE;
use crate::support::control_plane::run::new_id;
use crate::support::control_plane::{ControlPlane, Options, RunSpec, State};
use crate::support::door::{Door, Lock};
use crate::support::engine::Engine;
use crate::support::images::{Images, Layout};
use crate::support::process::Signal;
use crate::support::worker::{Builder, Worker};

/// What a test stands on; what it leaves on the engine goes at the end.
pub struct Stage {
    pub engine: Engine,
    pub images: Images,
    pub plane: ControlPlane,
    pub worker_id: String,
    /// The engine on a port of 127.0.0.1: its socket is not to be found in another root folder.
    door: Door,
    task_image: String,
    sidecar_image: String,
}

impl Stage {
    pub fn new() -> Self {
        let engine = Engine::get();
        let mut images = Images::new(&engine, "oz-packages");
        let (task_image, sidecar_image) = (images.task(), images.sidecar(Layout::Root));
        let (plane, door) = (ControlPlane::start(Options::default()), Door::open(engine.host(), None));
        Self {
            engine,
            images,
            plane,
            worker_id: format!("test-{}", new_id()),
            door,
            task_image,
            sidecar_image,
        }
    }

    /// The control plane behind TLS, with this certificate and key.
    pub fn secured(&self, certificate: &(impl AsRef<Path>, impl AsRef<Path>)) -> Door {
        Door::open(&format!("tcp://{}", self.plane.address()), Some(Lock::new(certificate, None)))
    }

    /// What a worker needs to find the control plane in clear, under this name for its host.
    pub fn plain_args(&self, host: &str) -> Vec<String> {
        self.args("ws", "http", &format!("{host}:{}", self.plane.address().port()))
    }

    /// The same behind a door with TLS.
    pub fn secured_args(&self, host: &str, door: &Door) -> Vec<String> {
        self.args("wss", "https", &format!("{host}:{}", door.port()))
    }

    fn args(&self, socket: &str, rest: &str, address: &str) -> Vec<String> {
        let path = self.plane.ws_url().split_once(&self.plane.address().to_string()).unwrap().1.to_owned();
        let socket = format!("{socket}://{address}{path}");
        let root = format!("{rest}://{address}");
        let args = ["--worker-id", &self.worker_id, "--web-socket-url", &socket, "--server-root-url", &root];
        args.into_iter().chain(["--pull", "missing"]).map(str::to_owned).collect()
    }

    /// A worker with these arguments, the key, and the engine by its port.
    pub fn start(&self, program: Builder, args: &[String]) -> Worker {
        let engine = format!("tcp://127.0.0.1:{}", self.door.port());
        let builder = program.args(args.iter().map(String::as_str)).env("OZ_API_KEY", self.plane.key());
        builder.env("DOCKER_HOST", &engine).start()
    }

    /// A run whose agent does what `script` says and shows nothing else.
    pub fn spec(&self, script: &str) -> RunSpec {
        let env = [("OZ_TEST_QUIET", "1"), ("OZ_TEST_SCRIPT", script)];
        RunSpec {
            docker_image: Some(self.task_image.clone()),
            sidecar_image: self.sidecar_image.clone(),
            env_vars: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..RunSpec::default()
        }
    }

    /// Runs one task to its end and checks what came of it.
    pub fn run_a_task(&self) {
        let id = self.plane.submit(self.spec("echo fine; exit 0"));
        let run = self.plane.wait_ended(&id);
        assert_eq!((run.state, run.exit_code, run.claims), (State::Succeeded, Some(0), 1), "{run:#?}");
        assert_eq!(run.output.as_deref(), Some("fine\n"));
    }

    /// Waits until it is connected, which only one that trusts the control plane is, and then ends it.
    pub fn connects(&self, mut worker: Worker) {
        worker.wait_log(DEADLINE, is_connected);
        worker.signal(Signal::TERM);
        let status = worker.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{:#?}", worker.stderr().all());
        self.plane.assert_no_violations();
    }

    /// Waits for its end because of the control plane's certificate; `why` is OpenSSL's word for it.
    pub fn refuses(&self, mut worker: Worker, why: &str) {
        let code = worker.wait_exit(DEADLINE).code();
        let log = worker.stderr().all().join("\n");
        assert!(code == Some(3) && log.contains(why), "{code:?}, {why:?} is wanted in\n{log}");
        assert_eq!(self.plane.connections(), 0);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.engine.remove_all_of(&self.worker_id);
    }
}

/// Whether a line of the log says that the control plane has let the worker in.
pub fn is_connected(line: &str) -> bool {
    line.contains("] connected")
}

/// Runs a container to its end; its exit code and what it wrote (with a TTY, so that it is not framed).
pub fn run_container(engine: &Engine, spec: &Value) -> (i64, String) {
    let id = engine.json("POST", "/containers/create", spec)["Id"].as_str().unwrap().to_owned();
    engine.json("POST", &format!("/containers/{id}/start"), &Value::Null);
    let code = engine.json("POST", &format!("/containers/{id}/wait"), &Value::Null)["StatusCode"].as_i64();
    let logs = engine.request("GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), &[], &[]).body;
    engine.remove_container(&id);
    (code.unwrap(), String::from_utf8(logs).unwrap())
}
