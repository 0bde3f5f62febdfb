//! A `dockerd` of a test's own that listens on TCP with mutual TLS, for what only a real one can show.
//!
//! All its files are in a temporary folder. It has a bridge of its own and makes no firewall rule, as `engine.sh` does it, so
//! that it touches no other engine. Only root can have one.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::images::tool;
use super::process::{Process, Signal};

/// A real one takes 10 to 15 seconds, on a busy machine more.
const DEADLINE: Duration = Duration::from_secs(120);

/// The engine; dropping it ends it and removes what it had.
pub struct PrivateEngine {
    process: Option<Process>,
    port: u16,
    /// After the process: what it uses until its end.
    _bridge: Bridge,
    _folder: TempDir,
}

struct Bridge(String);

impl Bridge {
    fn new() -> Self {
        let id = std::process::id();
        // At most 15 characters.
        let bridge = Self(format!("oztls{}", id % 1_000_000));
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
    pub fn start(authority: &Path, certificate: &Path, key: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("oz-tls.").tempdir_in("/tmp").expect("a folder");
        let bridge = Bridge::new();
        let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let dir = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(folder.path().join("daemon.json"), "{}").expect("a file");
        let group = format!("/{}", folder.path().file_name().unwrap().to_string_lossy());
        // It ends with the test, even when that is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "dockerd", "--bridge", &bridge.0, "--cgroup-parent", &group]);
        for (flag, name) in
            [("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid"), ("config-file", "daemon.json")]
        {
            command.arg(format!("--{flag}")).arg(dir(name));
        }
        command.args([
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--raw-logs",
        ]);
        command
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--tlsverify", "--tlscacert"])
            .arg(authority);
        command.arg("--tlscert").arg(certificate).arg("--tlskey").arg(key);
        command.arg("-H").arg(format!("tcp://127.0.0.1:{port}"));
        let process = Process::spawn(&mut command, None);
        process.wait_log(DEADLINE, |line| line.contains("API listen on 127.0.0.1"));
        Self { process: Some(process), port, _bridge: bridge, _folder: folder }
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has logged.
    pub fn log(&self) -> Vec<String> {
        self.process.as_ref().map(|process| process.stderr().all()).unwrap_or_default()
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.signal(Signal::TERM);
            let end = Instant::now() + DEADLINE;
            while process.runs() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}
