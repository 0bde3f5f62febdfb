//! Machines with a Docker engine, connected by cables to the bridge of the test: `node.sh` in namespaces of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::engine::Engine;
use crate::support::images::{RootFs, tool};
use crate::support::process::{Process, Signal};

/// The time limit of every wait.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Where an engine has its socket by default.
pub const SOCKET: &str = "unix:///var/run/docker.sock";

/// A machine; dropping it cuts its power.
pub struct Node {
    /// The name of its host.
    pub name: String,
    /// Its address.
    pub address: String,
    folder: PathBuf,
    number: u8,
    process: Option<Process>,
}

/// Polls until `holds`. Panics with what `describe` returns after [`DEADLINE`].
pub fn wait_or(describe: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "timed out: {}", describe());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs busybox's `ip` and returns its output.
fn ip(args: &[&str]) -> String {
    let output = Command::new(tool("busybox")).arg("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Node {
    /// Starts a machine. Call [`Node::wait_ready`] before anything else.
    pub fn start(base: &Path, number: u8) -> Self {
        let name = format!("node{number}");
        // The folder's name is also that of the control groups.
        let folder = base.join(format!("{}-{number}", base.file_name().unwrap().display()));
        let address = format!("10.77.0.1{number}");
        let mut node = Self { name, address, folder, number, process: None };
        std::fs::create_dir(&node.folder).unwrap();
        node.boot(SOCKET);
        node
    }

    /// Starts it again after [`Node::crash`], with the socket for containers at this address.
    pub fn boot(&mut self, socket: &str) {
        let _ = std::fs::remove_file(self.folder.join("up"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fleet/node.sh");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--pid", "--fork"]);
        command.args(["--kill-child", "--mount-proc", "bash"]).arg(script).arg(&self.folder);
        command.args([&self.name, &self.address, socket]);
        let process = Process::spawn(&mut command, None);
        let up = self.folder.join("up");
        wait_or(
            || "the machine is up".to_owned(),
            || {
                assert!(process.is_running(), "{:#?}", process.stderr().all());
                up.exists()
            },
        );
        let cable = format!("ozcable{}", self.number);
        // After a crash the kernel removes it some time after the machine.
        let _ = Command::new(tool("busybox")).args(["ip", "link", "del", &cable]).output();
        ip(&["link", "add", &cable, "type", "veth"]);
        // As in `7: ozcable1@veth0: <BROADCAST,...`.
        let shown = ip(&["-o", "link", "show", "dev", &cable]);
        let end = shown.split('@').nth(1).and_then(|rest| rest.split(':').next()).expect("its other end");
        ip(&["link", "set", end, "netns", &process.id().to_string()]);
        ip(&["link", "set", &cable, "master", "ozbridge"]);
        ip(&["link", "set", &cable, "up"]);
        std::fs::write(self.folder.join("device"), end).unwrap();
        self.process = Some(process);
    }

    /// Waits until its engine answers.
    pub fn wait_ready(&self) {
        let process = self.process.as_ref().expect("it runs");
        wait_or(
            || format!("the engine answers\n{}", self.log()),
            || {
                assert!(process.is_running(), "{}: {:#?}", self.name, process.stderr().all());
                self.docker(&["version"]).is_ok()
            },
        );
    }

    /// Cuts its power: everything on it ends at once.
    pub fn crash(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::KILL);
        process.wait_exit(DEADLINE);
    }

    /// Returns its engine.
    pub fn engine(&self) -> Engine {
        Engine::at(&format!("unix://{}", self.folder.join("s").display()))
    }

    /// Runs the docker command on it. Returns its output, stderr included; as an error if it fails.
    pub fn docker(&self, args: &[&str]) -> Result<String, String> {
        self.docker_with(args, &[])
    }

    /// As [`Node::docker`], with these variables.
    pub fn docker_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
        let mut command = Command::new(tool("docker"));
        command.env_clear().env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin");
        command.env("DOCKER_HOST", format!("unix://{}", self.folder.join("s").display()));
        let output = command.envs(variables.iter().copied()).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    /// Makes an image from a root file system.
    pub fn import(&self, name: &str, root: RootFs, query: &str) {
        let path = format!("/images/create?fromSrc=-&repo={name}{query}");
        let headers = [("Content-Type", "application/x-tar")];
        self.engine().progress(&path, &headers, &root.finish()).expect("an import");
    }

    /// Returns the last lines of its engine's log.
    pub fn log(&self) -> String {
        let lines = self.process.as_ref().map(|process| process.stderr().all()).unwrap_or_default();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
