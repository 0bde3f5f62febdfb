//! A network namespace whose only way out is a proxy. Needs root.
//!
//! Sockets of the file system belong to no network namespace: inside, a relay listens on a port of loopback and connects each client to
//! such a socket; outside, a thread connects that to the proxy.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::images::tool;
use super::process::Process;

/// The port of the relay in the namespace.
pub const PORT: u16 = 3128;
/// Names the relay's socket for its process.
pub const SOCKET: &str = "OZ_TEST_RELAY_SOCKET";
/// How long a process may take to start.
const START: Duration = Duration::from_secs(60);

/// The namespace; dropping it ends its processes.
pub struct ProxyOnly {
    holder: Process,
    _relay: Process,
    folder: TempDir,
}

impl ProxyOnly {
    /// Makes a namespace in which 127.0.0.1:3128 leads to `proxy`, a port of this namespace. `relay` is the test of this binary that
    /// calls [`relay`].
    pub fn new(proxy: u16, relay: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("relay.sock");
        let outside = UnixListener::bind(&socket).expect("a socket");
        std::thread::spawn(move || {
            while let Ok((inside, _)) = outside.accept() {
                if let Ok(proxy) = TcpStream::connect(("127.0.0.1", proxy)) {
                    join(inside, proxy);
                }
            }
        });
        let script = "\"$0\" ip link set lo up && echo ready && exec sleep 1000000";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).arg(tool("busybox"));
        let holder = Process::spawn(&mut command, None);
        assert!(holder.stdout().find(START, |line| line == "ready").is_some(), "{:?}", holder.stderr().all());
        let mut command = enter(&holder);
        command.arg(std::env::current_exe().expect("a binary")).args([
            "--exact",
            relay,
            "--ignored",
            "--nocapture",
        ]);
        let relay = Process::spawn(command.env(SOCKET, &socket), None);
        let listens = relay.stdout().find(START, |line| line.contains("relay ready"));
        assert!(listens.is_some(), "{:?}", relay.stderr().all());
        Self { holder, _relay: relay, folder }
    }

    /// Makes a program that runs `program` in the namespace.
    pub fn wrap(&self, program: &Path) -> PathBuf {
        let path = self.folder.path().join("inside");
        let command = enter(&self.holder);
        let words: Vec<_> = command.get_args().map(|word| word.to_str().expect("UTF-8").to_owned()).collect();
        let script = format!("#!/bin/sh\nexec nsenter {} {} \"$@\"\n", words.join(" "), program.display());
        std::fs::write(&path, script).expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("a script");
        path
    }
}

fn enter(holder: &Process) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/proc/{}/ns/net", holder.id()));
    command
}

/// Runs the relay until its process is killed.
pub fn relay() {
    let socket = std::env::var_os(SOCKET).expect("a socket");
    let listener = TcpListener::bind(("127.0.0.1", PORT)).expect("a port");
    #[allow(clippy::print_stdout, reason = "the test waits for it")]
    {
        println!("relay ready");
    }
    while let Ok((client, _)) = listener.accept() {
        if let Ok(outside) = UnixStream::connect(&socket) {
            join(outside, client);
        }
    }
}

/// Copies both directions on threads of their own.
pub(super) fn join(unix: UnixStream, tcp: TcpStream) {
    let (Ok(mut unix_reader), Ok(mut tcp_reader)) = (unix.try_clone(), tcp.try_clone()) else { return };
    let (mut unix, mut tcp) = (unix, tcp);
    std::thread::spawn(move || {
        let _ = io::copy(&mut unix_reader, &mut tcp);
        let _ = tcp.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = io::copy(&mut tcp_reader, &mut unix);
        let _ = unix.shutdown(Shutdown::Write);
    });
}
