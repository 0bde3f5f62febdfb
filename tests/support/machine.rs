//! A machine of its own, with a Docker engine that makes bridges and firewall rules, and with an internet of one site. Needs root.
//!
//! `machine.sh` says what is there.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::engine::Engine;
use super::process::{Process, Signal};

/// The time-out of a start or an end.
const DEADLINE: Duration = Duration::from_secs(120);

/// The machine; dropping it ends its processes and removes its files.
pub struct Machine {
    process: Process,
    folder: TempDir,
}

impl Machine {
    /// Starts it. Returns once its engine answers.
    pub fn start() -> Self {
        // A short path: that of a socket has at most 108 bytes.
        let folder = tempfile::Builder::new().prefix("oz-machine.").tempdir_in("/tmp").expect("a folder");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "unshare", "--net", "--mount", "bash"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/machine.sh"));
        let process = Process::spawn(command.arg(folder.path()), None);
        let machine = Self { process, folder };
        let end = Instant::now() + DEADLINE;
        while std::os::unix::net::UnixStream::connect(machine.folder.path().join("s")).is_err() {
            let is_up = machine.process.is_running() && Instant::now() < end;
            assert!(is_up, "{:#?}\n{}", machine.process.stderr().all(), machine.read("log"));
            std::thread::sleep(Duration::from_millis(50));
        }
        machine
    }

    /// Returns its engine.
    pub fn engine(&self) -> Engine {
        Engine::at(&format!("unix://{}/s", self.folder.path().display()))
    }

    /// Runs a program on it. Panics if it fails.
    pub fn run(&self, words: &[&str]) {
        let mut command = Command::new("nsenter");
        let output = command.arg(format!("--net=/proc/{}/ns/net", self.process.id())).args(words).output();
        let output = output.expect("nsenter");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the names that its resolver was asked for so far, as the queries have them.
    pub fn lookups(&self) -> String {
        self.read("lookups")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        // A panic here must not hide the panic of the test.
        let end = || self.process.wait_exit(DEADLINE);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(end));
    }
}
