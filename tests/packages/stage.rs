//! A stage for workers in another root folder. It builds their arguments, and makes the engine available on a TCP port,
//! because the engine's socket does not exist there.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use serde_json::Value;

use crate::support::control_plane::State;
use crate::support::engine::Engine;
use crate::support::fault_proxy::FaultProxy;
use crate::support::process::Signal;
use crate::support::stage::{self, DEADLINE, StageBuilder};
use crate::support::tls_proxy::{ServerTls, TlsProxy};
use crate::support::worker::{Worker, WorkerBuilder};

/// The shared stage, and a proxy from a port of 127.0.0.1 to the engine.
pub struct Stage {
    stage: stage::Stage,
    engine_proxy: FaultProxy,
}

impl Stage {
    pub fn new() -> Self {
        let stage = StageBuilder::new("test").build();
        let engine_proxy = FaultProxy::to(stage.engine.host());
        Self { stage, engine_proxy }
    }

    /// Starts a TLS proxy in front of the control plane, with this certificate and key.
    pub fn secured(&self, certificate: &(impl AsRef<Path>, impl AsRef<Path>)) -> TlsProxy {
        TlsProxy::start(&format!("tcp://{}", self.plane.address()), ServerTls::new(certificate, None))
    }

    /// Returns the arguments for a worker that connects to the control plane without TLS, at `host`.
    pub fn plain_args(&self, host: &str) -> Vec<String> {
        self.args("ws", "http", &format!("{host}:{}", self.plane.address().port()))
    }

    /// Returns the arguments for a worker that connects to the control plane through a TLS proxy, at `host`.
    pub fn secured_args(&self, host: &str, proxy: &TlsProxy) -> Vec<String> {
        self.args("wss", "https", &format!("{host}:{}", proxy.port()))
    }

    fn args(&self, socket: &str, rest: &str, address: &str) -> Vec<String> {
        let path = self.plane.ws_url().split_once(&self.plane.address().to_string()).unwrap().1.to_owned();
        let socket = format!("{socket}://{address}{path}");
        let root = format!("{rest}://{address}");
        let args = ["--worker-id", &self.worker_id, "--web-socket-url", &socket, "--server-root-url", &root];
        args.into_iter().chain(["--pull", "missing"]).map(str::to_owned).collect()
    }

    /// Starts a worker with these arguments, the key, and the engine's TCP port.
    pub fn start(&self, program: WorkerBuilder, args: &[String]) -> Worker {
        let builder = program.args(args.iter().map(String::as_str)).env("OZ_API_KEY", self.plane.key());
        builder.env("DOCKER_HOST", &self.engine_proxy.host()).start()
    }

    /// Runs one task and checks its result.
    pub fn run_a_task(&self) {
        let run = self.run(&self.spec("echo fine; exit 0"));
        assert_eq!((run.state, run.exit_code, run.claims), (State::Succeeded, Some(0), 1), "{run:#?}");
        assert_eq!(run.output.as_deref(), Some("fine\n"));
    }

    /// Asserts that the worker trusts the control plane: waits until it is connected, and stops it.
    pub fn assert_connects(&self, mut worker: Worker) {
        worker.wait_log(DEADLINE, is_connected);
        worker.signal(Signal::TERM);
        let status = worker.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{:#?}", worker.stderr().all());
        self.plane.assert_no_violations();
    }

    /// Asserts that the worker exits because it does not trust the control plane. `reason` is OpenSSL's error text.
    pub fn assert_refuses(&self, mut worker: Worker, reason: &str) {
        let code = worker.wait_exit(DEADLINE).code();
        let log = worker.stderr().all().join("\n");
        assert!(code == Some(3) && log.contains(reason), "exit code {code:?}; expected {reason:?} in\n{log}");
        assert_eq!(self.plane.connections(), 0);
    }
}

impl Deref for Stage {
    type Target = stage::Stage;

    fn deref(&self) -> &stage::Stage {
        &self.stage
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut stage::Stage {
        &mut self.stage
    }
}

/// Whether a log line says that the worker is connected.
pub fn is_connected(line: &str) -> bool {
    line.contains("] connected")
}

/// Runs a container until it exits. Returns its exit code and output. The spec must set `Tty`, so that the output is not
/// framed.
pub fn run_container(engine: &Engine, spec: &Value) -> (i64, String) {
    let id = engine.json("POST", "/containers/create", spec)["Id"].as_str().unwrap().to_owned();
    engine.json("POST", &format!("/containers/{id}/start"), &Value::Null);
    let code = engine.json("POST", &format!("/containers/{id}/wait"), &Value::Null)["StatusCode"].as_i64();
    let logs = engine.request("GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), &[], &[]).body;
    engine.remove_container(&id);
    (code.unwrap(), String::from_utf8(logs).unwrap())
}
