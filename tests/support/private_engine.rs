//! A private `dockerd`, for tests of its TLS and of its restarts. Needs root.
//!
//! All its files are in a temporary folder. It has its own bridge and makes no firewall rules, as in `engine.sh`, so that it
//! does not affect another engine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::images::tool;
use super::process::{Process, Signal};

/// The time-out of a start or an end; a start takes 10 to 15 s, or more on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// The engine; dropping it ends it and removes its files.
pub struct PrivateEngine {
    process: Option<Process>,
    /// Its address.
    host: String,
    /// Arguments for TLS.
    tls: Vec<OsString>,
    /// The folder that its processes have in place of `/usr`.
    usr: Option<PathBuf>,
    /// Further variables of its environment.
    environment: Vec<(String, String)>,
    /// Dropped after the process, which uses it.
    bridge: Bridge,
    folder: TempDir,
}

struct Bridge(String);

impl Bridge {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id() + 10_007 * COUNT.fetch_add(1, Ordering::SeqCst);
        // At most 15 characters.
        let bridge = Self(format!("ozeng{}", id % 1_000_000));
        let address = format!("10.{}.{}.1/24", 150 + id % 50, id / 50 % 250);
        ip(&["link", "add", &bridge.0, "type", "bridge"]);
        ip(&["addr", "add", &address, "dev", &bridge.0]);
        ip(&["link", "set", &bridge.0, "up"]);
        bridge
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new(tool("busybox")).args(["ip", "link", "del", &self.0]).output();
    }
}

fn ip(args: &[&str]) {
    let output = Command::new(tool("busybox")).arg("ip").args(args).output().expect("busybox");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl PrivateEngine {
    /// Returns the reason if no private engine can run here.
    pub fn unavailable() -> Option<&'static str> {
        if !rustix::process::geteuid().is_root() {
            return Some("only root can start a dockerd");
        }
        let found =
            Command::new("dockerd").arg("--version").output().is_ok_and(|output| output.status.success());
        (!found).then_some("there is no dockerd")
    }

    /// Starts an engine on a TCP port, with this certificate, for clients with a certificate of `authority`. Returns once it answers.
    pub fn with_tls(authority: &Path, certificate: &Path, key: &Path) -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let files = [("--tlscacert", authority), ("--tlscert", certificate), ("--tlskey", key)];
        let files = files.into_iter().flat_map(|(flag, path)| [flag.into(), path.into()]);
        Self::start(format!("tcp://127.0.0.1:{port}"), ["--tlsverify".into()].into_iter().chain(files))
    }

    /// Starts an engine on a Unix socket. Returns once it answers.
    pub fn on_unix_socket() -> Self {
        Self::start(String::new(), [])
    }

    /// As [`PrivateEngine::on_unix_socket`], with a disk of this many MiB for its data, in memory.
    pub fn with_disk_of(mib: u32) -> Self {
        let engine = Self::unstarted(String::new(), []);
        let data = engine.folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        let mut mount = Command::new(tool("busybox"));
        mount.args(["mount", "-t", "tmpfs", "-o", &format!("size={mib}m"), "oz-disk"]).arg(&data);
        assert!(mount.status().is_ok_and(|status| status.success()), "{mount:?}");
        engine.launched()
    }

    /// Starts an engine; an empty `host` stands for a socket in its folder.
    fn start(host: String, tls: impl IntoIterator<Item = OsString>) -> Self {
        Self::unstarted(host, tls).launched()
    }

    fn launched(mut self) -> Self {
        self.launch();
        self
    }

    /// Starts an engine on a Unix socket, whose processes have the folder `usr` in place of `/usr`. Returns once it answers.
    pub fn in_usr(usr: &Path) -> Self {
        let mut engine = Self::unstarted(String::new(), []);
        engine.usr = Some(usr.to_owned());
        engine.launched()
    }

    /// Ends the engine, and starts the one of `usr` with its data and these variables. Returns once it answers.
    pub fn change_to(&mut self, usr: &Path, environment: &[(&str, &str)]) {
        self.stop(Signal::TERM);
        self.usr = Some(usr.to_owned());
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.environment = environment.iter().map(owned).collect();
        self.launch();
    }

    fn unstarted(host: String, tls: impl IntoIterator<Item = OsString>) -> Self {
        if let Some(reason) = Self::unavailable() {
            panic!("this test needs a private dockerd: {reason}");
        }
        let folder = tempfile::Builder::new().prefix("oz-eng.").tempdir_in("/tmp").expect("a folder");
        // The default is three layers at a time.
        std::fs::write(folder.path().join("daemon.json"), r#"{"max-concurrent-downloads": 16}"#)
            .expect("a file");
        let own = || format!("unix://{}", folder.path().join("s").display());
        let host = if host.is_empty() { own() } else { host };
        let tls = tls.into_iter().collect();
        let (usr, environment) = (super::engine_usr::of_tests(), Vec::new());
        Self { process: None, host, tls, usr, environment, bridge: Bridge::new(), folder }
    }

    /// Starts the process, with the data of an earlier one. Returns once it answers.
    pub fn launch(&mut self) {
        let folder = self.folder.path();
        let group = format!("/{}", folder.file_name().unwrap().to_string_lossy());
        // The engine ends with the test, even if the test is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM"])
            .args(super::engine_usr::command("dockerd", self.usr.as_deref()));
        command.args(["--bridge", &self.bridge.0, "--cgroup-parent", &group]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        for (flag, name) in
            [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid"), ("config-file", "daemon.json")]
        {
            command.arg(format!("--{flag}")).arg(folder.join(name));
        }
        command.args([
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--raw-logs",
        ]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]).args(&self.tls);
        command.arg("-H").arg(&self.host);
        let process = Process::spawn(&mut command, None);
        process.wait_log(DEADLINE, |line| line.contains("API listen on"));
        self.process = Some(process);
    }

    /// Ends the process with this signal and waits until it has exited.
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        let helper = std::fs::read_to_string(self.folder.path().join("exec/containerd/containerd.pid"));
        process.signal(signal);
        process.wait_exit(DEADLINE);
        // A dockerd that starts while its old containerd is still exiting would try to use it.
        let stat = format!("/proc/{}/stat", helper.unwrap_or_default().trim());
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let until = Instant::now() + DEADLINE;
        while lives() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_file(self.folder.path().join("exec/containerd/containerd.pid"));
    }

    /// Unmounts the mounts of a killed dockerd, which would keep its folder from being removed.
    fn unmount(&self) {
        let folder = format!("{}/", self.folder.path().display());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| place.starts_with(&folder)) {
            let _ = Command::new(tool("busybox")).args(["umount", "-l", place]).output();
        }
    }

    /// Whether the process is running.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Returns its address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns its port on 127.0.0.1. Panics if it has a Unix socket.
    pub fn port(&self) -> u16 {
        self.host.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Returns its log so far.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(|process| process.stderr().all()).unwrap_or_default()
    }
}

impl Drop for PrivateEngine {
    /// Starts a stopped engine once more, because only an engine can end the containers of a killed one.
    fn drop(&mut self) {
        let end = || {
            if self.process.is_none() {
                self.launch();
            }
            self.stop(Signal::TERM);
        };
        // A panic here must not hide the panic of the test.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(end));
        self.unmount();
    }
}
