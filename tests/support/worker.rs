//! The worker as a process, with an environment of its own.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::control_plane::ControlPlane;
use super::process::Process;

/// A worker that is about to start.
pub struct Builder {
    command: Command,
    echo: Option<&'static str>,
}

/// A running worker; dropping it kills it.
pub struct Worker(Process);

/// The binary that `OZ_TEST_WORKER` names, else the one that cargo has built for the tests.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("OZ_TEST_WORKER").filter(|path| !path.is_empty()) {
        let found = Path::new(&named).canonicalize().ok().filter(|path| path.is_file());
        return found.unwrap_or_else(|| panic!("OZ_TEST_WORKER names no file: {}", named.display()));
    }
    let path: Option<&str> = option_env!("CARGO_BIN_EXE_oz-agent-worker");
    path.map(PathBuf::from).expect("only cargo's integration tests know it")
}

impl Builder {
    /// A worker with nothing in its environment but `PATH`, an empty `HOME`, backtraces, and the path of `make coverage`.
    pub fn new(binary: &Path) -> Self {
        let mut command = Command::new(binary);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", "/nonexistent").env("RUST_BACKTRACE", "1");
        command.envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        Self { command, echo: None }
    }

    /// For this control plane, under this id.
    pub fn plane(self, plane: &ControlPlane, id: &str) -> Self {
        self.plane_at(plane, &plane.address().to_string(), id)
    }

    /// The same, with the WebSocket by way of this `host:port`.
    pub fn plane_at(self, plane: &ControlPlane, address: &str, id: &str) -> Self {
        let socket = plane.ws_url().replace(&plane.address().to_string(), address);
        let urls = ["--web-socket-url", &socket, "--server-root-url", &plane.root_url()];
        self.args(["--worker-id", id]).args(urls).env("OZ_API_KEY", plane.key())
    }

    /// Adds arguments.
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes a variable away.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Shows each line of its log as well, with this before it.
    pub fn echo(mut self, before: &'static str) -> Self {
        self.echo = Some(before);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Worker {
        Worker(Process::spawn(&mut self.command, self.echo))
    }
}

impl Worker {
    /// A builder with the tests' binary and engine, for this control plane, under this id.
    pub fn with(plane: &ControlPlane, id: &str) -> Builder {
        Builder::new(&binary()).plane(plane, id).env("DOCKER_HOST", &super::engine::host())
    }

    /// The same, with the WebSocket by way of this `host:port`.
    pub fn through(address: &str, plane: &ControlPlane, id: &str) -> Builder {
        Builder::new(&binary()).plane_at(plane, address, id).env("DOCKER_HOST", &super::engine::host())
    }

    /// Starts one and waits until it is connected.
    pub fn start(plane: &ControlPlane, id: &str) -> Self {
        let before = plane.connections();
        let worker = Self::with(plane, id).start();
        plane.wait_connected(before + 1);
        worker
    }
}

impl Deref for Worker {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}
