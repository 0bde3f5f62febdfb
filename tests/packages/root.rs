//! A small Debian in a folder, to install packages in: as a chroot, or booted with its own systemd.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::images::tool;
use crate::support::process::{Process, Signal};
use crate::{DEADLINE, source};

/// The time limit of a command; making a package on a busy machine takes half a minute.
const LONGEST: Duration = Duration::from_secs(300);

/// A root file system; removed when dropped.
pub struct Root(TempDir);

/// A booted root file system; dropping it kills every process in it.
pub struct System {
    root: Root,
    process: Process,
    init: String,
}

/// Runs a command and returns its output. Panics with the output if it fails or runs longer than `LONGEST`.
pub fn run(command: &mut Command) -> String {
    let mut process = Process::spawn(command, None);
    let status = process.wait_exit(LONGEST);
    let lines = process.stdout().all().into_iter().chain(process.stderr().all());
    let output: String = lines.map(|line| line + "\n").collect();
    assert!(status.success(), "{command:?}: {status}\n{output}");
    output
}

impl Root {
    /// Unpacks the Debian that `tests/support/setup.sh package-tests` makes: the essential packages and systemd.
    pub fn debian() -> Self {
        let folder = tempfile::Builder::new().prefix("oz-root.").tempdir().unwrap();
        run(Command::new("tar").arg("-C").arg(folder.path()).arg("-xf").arg(tool("debian-root.tar")));
        Self(folder)
    }

    /// Returns the path on this machine of a path inside.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join(inside.trim_start_matches('/'))
    }

    /// Returns the folder of the root.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// Copies a file to `/root` and returns its path inside.
    pub fn copy_in(&self, file: &Path) -> String {
        let name = file.file_name().unwrap().to_str().unwrap();
        std::fs::copy(file, self.path("/root").join(name)).unwrap();
        format!("/root/{name}")
    }

    /// Returns a command that runs a shell script in the chroot, with a clean environment.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(self.folder()).args(["/bin/sh", "-ec", script]).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a shell script and returns its output; panics if it fails.
    pub fn sh(&self, script: &str) -> String {
        run(&mut self.command(script))
    }

    /// Reads a text file.
    pub fn read(&self, inside: &str) -> String {
        std::fs::read_to_string(self.path(inside)).unwrap_or_else(|error| panic!("{inside}: {error}"))
    }

    /// Writes a file and makes its parent folders.
    pub fn write(&self, inside: &str, text: &str) {
        std::fs::create_dir_all(self.path(inside).parent().unwrap()).unwrap();
        std::fs::write(self.path(inside), text).unwrap();
    }

    /// Returns every path in the root, sorted.
    pub fn everything(&self) -> Vec<String> {
        self.sh("find / -xdev | LC_ALL=C sort").lines().map(str::to_owned).collect()
    }

    /// Boots the root and waits until systemd is ready. The folder `shared` is mounted at `/shared`.
    pub fn boot(self, shared: &Path) -> System {
        let name = format!("oz-boot-{}", self.folder().file_name().unwrap().display());
        let ready = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let script = source("tests/packages/boot.sh");
        // If this test dies, the booted system is stopped too.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "bash"])
            .arg(script)
            .arg(self.folder())
            .arg(shared)
            .arg(format!("@{name}"));
        let process = Process::spawn(&mut command, None);
        await_ready(&ready, &process);
        let unshare = process.stdout().all().first().expect("boot.sh prints a process id first").clone();
        let children = std::fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
        System { root: self, process, init: children.trim().to_owned() }
    }
}

fn await_ready(socket: &UnixDatagram, process: &Process) {
    let end = Instant::now() + DEADLINE;
    let mut buffer = [0; 4096];
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    loop {
        let length = socket.recv(&mut buffer).unwrap_or(0);
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
            return;
        }
        let log = || process.stderr().all().join("\n");
        assert!(process.is_running() && Instant::now() < end, "systemd has not booted:\n{}", log());
    }
}

impl System {
    /// Returns its root file system.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Returns a command that runs a shell script in the booted system, as root.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init, "-m", "-p", "-u", "-i", "-C", "-r", "-w", "/bin/sh", "-ec", script]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Runs a shell script and returns its output; panics if it fails.
    pub fn sh(&self, script: &str) -> String {
        run(&mut self.command(script))
    }

    /// Returns the id on this machine of a process that has the id `inside` in the booted system.
    pub fn outer_pid(&self, inside: &str) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.init);
        let children = std::fs::read_to_string(children).unwrap();
        // A process has an id in each namespace, from the outermost to its own.
        let has_the_id = |pid: &&str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            ids.split_whitespace().last() == Some(inside)
        };
        let found = children.split_whitespace().find(has_the_id);
        found.unwrap_or_else(|| panic!("no process {inside}: {children}")).parse().unwrap()
    }

    /// Returns a property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.sh(&format!("systemctl show --value -p {name} {unit}")).trim().to_owned()
    }

    /// Returns the journal of a unit.
    pub fn journal(&self, unit: &str) -> String {
        self.sh(&format!("journalctl --no-pager -o cat -u {unit}"))
    }

    /// Waits until the journal of a unit has a line with `text`; earlier lines count.
    pub fn await_journal(&self, unit: &str, text: &str) {
        let mut command = self.command(&format!("exec journalctl --no-pager -o cat -n all -f -u {unit}"));
        let follower = Process::spawn(&mut command, None);
        let found = follower.stdout().find(DEADLINE, |line| line.contains(text));
        assert!(found.is_some(), "the journal of {unit} has no {text:?}:\n{}", self.journal(unit));
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        if !std::thread::panicking() {
            let status = self.process.wait_exit(DEADLINE);
            assert!(
                status.success(),
                "boot.sh failed to remove the cgroup: {:?}",
                self.process.stderr().all()
            );
        }
    }
}
