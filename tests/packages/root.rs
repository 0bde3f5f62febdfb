//! A small Debian in a folder, to install packages in: as a chroot, or booted with its own systemd.
//!
//! Owns the folder and the namespaces. It must not know packages of the worker.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::images::tool;
use crate::support::process::{Process, Signal};
use crate::{DEADLINE, source};

/// No single command takes longer: making a package on a busy machine takes half a minute.
const LONGEST: Duration = Duration::from_secs(300);

/// A root file system, removed when it is dropped.
pub struct Root(TempDir);

/// The same, booted; dropping it ends everything in it.
pub struct System {
    root: Root,
    process: Process,
    init: String,
}

/// Runs a command to its end; panics with what it said when it fails or goes on and on.
pub fn run(command: &mut Command) -> String {
    let mut process = Process::spawn(command, None);
    let status = process.wait_exit(LONGEST);
    let lines = process.stdout().all().into_iter().chain(process.stderr().all());
    let told: String = lines.map(|line| line + "\n").collect();
    assert!(status.success(), "{command:?}: {status}\n{told}");
    told
}

impl Root {
    /// A Debian as `make setup` keeps it, with nothing but what is always there and systemd.
    pub fn debian() -> Self {
        let folder = tempfile::Builder::new().prefix("oz-root.").tempdir().unwrap();
        run(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(tool("debian-root.tar")));
        Self(folder)
    }

    /// Where something in it is from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside.trim_start_matches('/'))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file into its `/root` and gives the path inside.
    pub fn bring(&self, file: &Path) -> String {
        let name = file.file_name().unwrap().to_str().unwrap();
        std::fs::copy(file, self.path("/root").join(name)).unwrap();
        format!("/root/{name}")
    }

    /// A shell script in it, with an environment of its own.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.folder()).args(["/bin/sh", "-ec", script]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs it; panics when it fails.
    pub fn sh(&self, script: &str) -> String {
        run(&mut self.command(script))
    }

    /// A file's text.
    pub fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Writes a file.
    pub fn write(&self, inside: &str, text: &str) {
        std::fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        std::fs::write(self.path(inside), text).unwrap();
    }

    /// Everything in it, one path a line.
    pub fn everything(&self) -> Vec<String> {
        self.sh("find / -xdev | LC_ALL=C sort").lines().map(str::to_owned).collect()
    }

    /// Boots it, and waits until it has. The folder `shared` is `/shared` inside.
    pub fn boot(self, shared: &Path) -> System {
        let name = format!("oz-boot-{}", self.folder().file_name().unwrap().display());
        let ready = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let script = source("tests/packages/boot.sh");
        // Whatever ends this test ends what it has started.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "bash"])
            .arg(script)
            .arg(self.folder())
            .arg(shared)
            .arg(format!("@{name}"));
        let process = Process::spawn(&mut command, None);
        await_ready(&ready, &process);
        let unshare = process.stdout().all().first().expect("boot.sh says what it started").clone();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        System { root: self, process, init: children.trim().to_owned() }
    }
}

fn await_ready(socket: &UnixDatagram, process: &Process) {
    let (end, mut buffer) = (Instant::now() + DEADLINE, [0; 4096]);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    loop {
        let length = socket.recv(&mut buffer).unwrap_or(0);
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
            return;
        }
        let log = || process.stderr().all().join("\n");
        assert!(process.is_running() && Instant::now() < end, "it has not booted:\n{}", log());
    }
}

impl System {
    /// Its root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A shell script in it, as root.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init, "-m", "-p", "-u", "-i", "-C", "-r", "-w", "/bin/sh", "-ec", script]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs it; panics when it fails.
    pub fn sh(&self, script: &str) -> String {
        run(&mut self.command(script))
    }

    /// One property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.sh(&format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
    }

    /// The journal of a unit.
    pub fn journal(&self, unit: &str) -> String {
        self.sh(&format!("journalctl --no-pager -o cat -u {unit}"))
    }

    /// Waits for a line in the journal of a unit, those that are there already included.
    pub fn await_journal(&self, unit: &str, text: &str) {
        let mut command = self.command(&format!("exec journalctl --no-pager -o cat -n all -f -u {unit}"));
        let follower = Process::spawn(&mut command, None);
        let found = follower.stdout().find(DEADLINE, |line| line.contains(text));
        assert!(found.is_some(), "{unit} never said {text:?}:\n{}", self.journal(unit));
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        if !std::thread::panicking() {
            let status = self.process.wait_exit(DEADLINE);
            assert!(status.success(), "its cgroup is left: {:?}", self.process.stderr().all());
        }
    }
}
