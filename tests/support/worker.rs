//! The worker as a process with a clean environment.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::control_plane::ControlPlane;
use super::control_plane::run::new_id;
use super::logfmt;
use super::process::{Process, Signal};

/// A pause after which the worker takes a signal for another one: it counts those that come within 100 ms as one.
pub const ONE_SIGNAL: Duration = Duration::from_millis(110);

/// A worker that is not started.
pub struct WorkerBuilder {
    command: Command,
    echo: Option<&'static str>,
}

/// A running worker; dropping it kills it.
pub struct Worker(Process);

/// Returns a worker id that no other test has: only one process of a host can have an id.
pub fn worker_id() -> String {
    format!("test-{}", new_id())
}

/// Returns the binary named by `OZ_TEST_WORKER`, or else the one that cargo built for the tests.
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("OZ_TEST_WORKER").filter(|path| !path.is_empty()) {
        let found = Path::new(&named).canonicalize().ok().filter(|path| path.is_file());
        return found.unwrap_or_else(|| panic!("OZ_TEST_WORKER names no file: {}", named.display()));
    }
    let path: Option<&str> = option_env!("CARGO_BIN_EXE_oz-agent-worker");
    path.map(PathBuf::from).expect("cargo sets CARGO_BIN_EXE_oz-agent-worker for integration tests only")
}

impl WorkerBuilder {
    /// A worker whose environment is `PATH`, a `HOME` that does not exist, `RUST_BACKTRACE`, `OZ_RECONNECT_SPREAD=0`, so that no
    /// test waits for a random time, `OZ_DRAIN_TIMEOUT=0`, so that a stop ends the tasks, and what `make coverage` sets.
    pub fn new(binary: &Path) -> Self {
        let mut command = Command::new(binary);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", "/nonexistent").env("RUST_BACKTRACE", "1");
        command.env("OZ_RECONNECT_SPREAD", "0").env("OZ_DRAIN_TIMEOUT", "0");
        command.envs(std::env::vars_os().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        Self { command, echo: None }
    }

    /// Sets the control plane and the worker's id.
    pub fn control_plane(self, plane: &ControlPlane, id: &str) -> Self {
        self.control_plane_via(plane, &plane.address().to_string(), id)
    }

    /// As [`WorkerBuilder::control_plane`], with the WebSocket connected to `address` (`host:port`).
    pub fn control_plane_via(self, plane: &ControlPlane, address: &str, id: &str) -> Self {
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

    /// Unsets a variable.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Copies each line of its log to stderr, after `prefix`.
    pub fn echo(mut self, prefix: &'static str) -> Self {
        self.echo = Some(prefix);
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Worker {
        Worker(Process::spawn(&mut self.command, self.echo))
    }
}

impl Worker {
    /// Sends a signal that the worker does not count as part of the one before. Call it once that one is handled.
    pub fn signal_again(&self, signal: Signal) {
        std::thread::sleep(ONE_SIGNAL);
        self.signal(signal);
    }
}

impl Drop for Worker {
    /// Checks the log of every worker of every test.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            logfmt::assert_well_formed(&self.stderr().all());
        }
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
