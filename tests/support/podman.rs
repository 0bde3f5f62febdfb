//! A private Podman that serves Docker's API: `podman system service` with all its files in a temporary folder.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::engine::Engine;
use super::engine_usr;
use super::process::Process;

const DEADLINE: Duration = Duration::from_secs(60);

/// The ulimits are low, because Podman's defaults cannot be set where the session's hard limit is lower.
const SETTINGS: &str = "\
[containers]
netns = \"none\"
default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]
[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"file\"
";

/// Added if runc is installed, because crun refuses a machine with cgroups of both versions.
const RUNC: &str = "runtime = \"runc\"\n";

/// A running Podman; dropping it ends it and removes its files.
pub struct Podman {
    process: Process,
    folder: TempDir,
}

impl Podman {
    /// Starts Podman and waits until it answers. Needs the package, and root.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("oz-podman").tempdir_in("/tmp").expect("a folder");
        let usr = engine_usr::of_tests().unwrap_or_else(|| "/usr".into());
        let runc = ["sbin/runc", "bin/runc"].iter().any(|path| usr.join(path).exists());
        let settings = format!("{SETTINGS}{}", if runc { RUNC } else { "" });
        std::fs::write(folder.path().join("containers.conf"), settings).expect("a file");
        let socket = folder.path().join("s");
        // In a separate network namespace, so that the kernel removes its bridge and firewall rules.
        let mut command = Command::new("unshare");
        command.arg("--net").args(program());
        set(&mut command, folder.path());
        command.args(["system", "service", "--time=0"]).arg(format!("unix://{}", socket.display()));
        let process = Process::spawn(&mut command, None);
        let podman = Self { process, folder };
        let end = Instant::now() + DEADLINE;
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let log = podman.process.stderr().all();
            assert!(podman.process.is_running() && Instant::now() < end, "podman does not answer: {log:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        podman
    }

    /// Returns a client for it.
    pub fn engine(&self) -> Engine {
        Engine::at(&format!("unix://{}/s", self.folder.path().display()))
    }
}

fn program() -> Vec<OsString> {
    engine_usr::command("podman", engine_usr::of_tests().as_deref())
}

fn podman(folder: &Path) -> Command {
    let words = program();
    let mut command = Command::new(&words[0]);
    set(command.args(&words[1..]), folder);
    command
}

/// Makes Podman keep all its files in `folder`, including the archives of loaded images, which it does not remove.
fn set(command: &mut Command, folder: &Path) {
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command.arg("--tmpdir").arg(folder.join("tmp")).env("CONTAINERS_CONF", folder.join("containers.conf"));
    // Its monitors write files here, such as the one that reports an OOM kill.
    command.env("TMPDIR", folder).current_dir(folder);
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Podman's containers outlive it, and its storage is mounted.
        for arguments in [&["rm", "--all", "--force", "--time", "0"][..], &["umount", "--all", "--force"]] {
            let _ = podman(self.folder.path()).args(arguments).output();
        }
        self.process.signal(super::process::Signal::TERM);
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let under = format!("{}/", self.folder.path().display());
        let mut mounts: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        mounts.retain(|mount| mount.starts_with(&under));
        for mount in mounts.iter().rev() {
            let _ = Command::new("umount").args(["-l", mount]).output();
        }
    }
}
