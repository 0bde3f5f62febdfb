//! A `dockerd` of a test's own, for what only a real one can show: its TLS, and how it ends and comes back.
//!
//! All its files are in a temporary folder. It has a bridge of its own and makes no firewall rule, as `engine.sh` does it, so
//! that it touches no other engine. Only root can have one.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::images::tool;
use super::process::{Process, Signal};

/// A real one takes 10 to 15 seconds, on a busy machine more.
const DEADLINE: Duration = Duration::from_secs(120);

/// The engine; dropping it ends it and removes what it had.
pub struct PrivateEngine {
    process: Option<Process>,
    /// Where it listens, and what its program needs for that.
    host: String,
    listen: Vec<OsString>,
    /// After the process: what it uses until its end.
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
    /// Why there can be none here.
    pub fn obstacle() -> Option<&'static str> {
        if !rustix::process::geteuid().is_root() {
            return Some("only root can start a dockerd");
        }
        let found =
            Command::new("dockerd").arg("--version").output().is_ok_and(|output| output.status.success());
        (!found).then_some("there is no dockerd")
    }

    /// Starts one that shows this certificate and takes only clients of that authority. It is up when this returns.
    pub fn with_tls(authority: &Path, certificate: &Path, key: &Path) -> Self {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let files = [("--tlscacert", authority), ("--tlscert", certificate), ("--tlskey", key)];
        let files = files.into_iter().flat_map(|(flag, path)| [flag.into(), path.into()]);
        Self::listening(format!("tcp://127.0.0.1:{port}"), ["--tlsverify".into()].into_iter().chain(files))
    }

    /// Starts one with a Unix socket. It is up when this returns.
    pub fn on_unix_socket() -> Self {
        Self::listening(String::new(), [])
    }

    /// An empty address stands for a socket in the engine's own folder.
    fn listening(host: String, listen: impl IntoIterator<Item = OsString>) -> Self {
        if let Some(obstacle) = Self::obstacle() {
            panic!("this test needs a private dockerd: {obstacle}");
        }
        let folder = tempfile::Builder::new().prefix("oz-eng.").tempdir_in("/tmp").expect("a folder");
        // By itself it loads three layers at a time.
        std::fs::write(folder.path().join("daemon.json"), r#"{"max-concurrent-downloads": 16}"#)
            .expect("a file");
        let own = || format!("unix://{}", folder.path().join("s").display());
        let host = if host.is_empty() { own() } else { host };
        let listen = listen.into_iter().collect();
        let mut engine = Self { process: None, host, listen, bridge: Bridge::new(), folder };
        engine.launch();
        engine
    }

    /// Starts it again with all that it had. It is up when this returns.
    pub fn launch(&mut self) {
        let folder = self.folder.path();
        let group = format!("/{}", folder.file_name().unwrap().to_string_lossy());
        // It ends with the test, even when that is killed.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "TERM",
            "dockerd",
            "--bridge",
            &self.bridge.0,
            "--cgroup-parent",
            &group,
        ]);
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
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]).args(&self.listen);
        command.arg("-H").arg(&self.host);
        let process = Process::spawn(&mut command, None);
        process.wait_log(DEADLINE, |line| line.contains("API listen on"));
        self.process = Some(process);
    }

    /// Ends it with this signal, and waits for that.
    pub fn stop(&mut self, signal: Signal) {
        let Some(mut process) = self.process.take() else { return };
        let helper = std::fs::read_to_string(self.folder.path().join("exec/containerd/containerd.pid"));
        process.signal(signal);
        process.wait_exit(DEADLINE);
        // One that finds its dying helper believes that it can go on with it.
        let stat = format!("/proc/{}/stat", helper.unwrap_or_default().trim());
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        let until = Instant::now() + DEADLINE;
        while lives() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = std::fs::remove_file(self.folder.path().join("exec/containerd/containerd.pid"));
    }

    /// One that was killed has left its data folder mounted on itself, which keeps the folder from going.
    fn unmount(&self) {
        let folder = format!("{}/", self.folder.path().display());
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let places = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1));
        for place in places.filter(|place| place.starts_with(&folder)) {
            let _ = Command::new(tool("busybox")).args(["umount", "-l", place]).output();
        }
    }

    /// Whether it has not been ended.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Its address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port on 127.0.0.1, when it has one.
    pub fn port(&self) -> u16 {
        self.host.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// What it has logged.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(|process| process.stderr().all()).unwrap_or_default()
    }
}

impl Drop for PrivateEngine {
    /// One that was killed has left its containers running: only it knows how to end them.
    fn drop(&mut self) {
        let end = || {
            if self.process.is_none() {
                self.launch();
            }
            self.stop(Signal::TERM);
        };
        // What went wrong with the test says more.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(end));
        self.unmount();
    }
}
