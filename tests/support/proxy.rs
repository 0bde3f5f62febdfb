//! Proxies: a small one in the test, which forwards every tunnel to one address, and tinyproxy from Debian.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::images::tool;
use super::process::Process;
use super::proxy_only::join;
use super::registry::free_port;

/// The user of a proxy with a password.
pub const USER: &str = "proxy-user";
/// Its password.
pub const PASSWORD: &str = "pa55-w.rd_";

/// [`USER`] and [`PASSWORD`] for a URL, with every character percent-encoded that tinyproxy allows besides letters and digits.
pub const USER_INFO: &str = "proxy%2Duser:pa55%2dw%2Erd%5F";

/// A proxy on 127.0.0.1 that connects every tunnel to one address. Its threads end with their connections.
pub struct ForwardProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    /// Starts a proxy whose tunnels lead to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(client, target, &seen));
            }
        });
        Self { port, heads }
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(mut client: TcpStream, target: SocketAddr, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    let target = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (from, to) = (target.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || copy(from, to));
    copy(client, target);
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

/// Listens on `address` and connects every client to `target` (`unix:///path` or `tcp://host:port`); returns the port. Its threads end
/// with the process.
pub fn relay(address: &str, target: &str) -> u16 {
    let listener = TcpListener::bind(address).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let target = target.to_owned();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            if let Some(path) = target.strip_prefix("unix://") {
                let Ok(unix) = UnixStream::connect(path) else { continue };
                join(unix, client);
            } else if let Ok(tcp) = TcpStream::connect(target.trim_start_matches("tcp://")) {
                let Ok(end) = tcp.try_clone() else { continue };
                let Ok(from) = client.try_clone() else { continue };
                std::thread::spawn(move || copy(tcp, from));
                std::thread::spawn(move || copy(client, end));
            }
        }
    });
    port
}

/// A tinyproxy on 127.0.0.1 that wants [`USER`] and [`PASSWORD`]; dropping it ends it. It runs in a mount namespace, so it needs root.
pub struct TinyProxy {
    process: Process,
    port: u16,
    _folder: TempDir,
}

impl TinyProxy {
    /// Starts a proxy that alone knows `host`, as 127.0.0.1, and opens tunnels to `ports`.
    pub fn start(host: &str, ports: &[u16]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let hosts = write(folder.path(), "hosts", &format!("127.0.0.1 localhost {host}\n"));
        for _ in 0..5 {
            let port = free_port();
            let allowed: String = ports.iter().map(|port| format!("ConnectPort {port}\n")).collect();
            let config = format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nBasicAuth {USER} {PASSWORD}\n{allowed}"
            );
            let config = write(folder.path(), "tinyproxy.conf", &config);
            let script = "mount --bind \"$1\" /etc/hosts && exec \"$2\" -d -c \"$3\"";
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", script, "sh", &hosts]).arg(tool("tinyproxy")).arg(&config);
            let process = Process::spawn(&mut command, None);
            let ready = |line: &str| line.contains("Accepting connections");
            if process.stdout().find(Duration::from_secs(30), ready).is_some() {
                return Self { process, port, _folder: folder };
            }
            // Another process may have taken the port in between.
        }
        panic!("tinyproxy did not start")
    }

    /// Returns its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its log so far.
    pub fn log(&self) -> Vec<String> {
        self.process.stdout().all()
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}
