//! The floor: the calls of one task, made by hand without a worker.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::control_plane::run::new_id;
use crate::support::engine::Engine;
use crate::support::images::{AGENT, Layout, RootFs};

/// The time limit of a read, and so of a wait for an exit.
const DEADLINE: Duration = Duration::from_secs(150);

/// Runs containers like those of a worker: of the same image, with the agent on a volume at `/agent`. Dropping it removes the
/// volume.
pub struct Hand {
    engine: Engine,
    image: String,
    /// Its name, and the value of the label of every container.
    volume: String,
}

impl Hand {
    /// Creates the volume.
    pub fn new(engine: &Engine, image: &str) -> Self {
        let volume = format!("bench-{}", new_id());
        let hand = Self { engine: engine.clone(), image: image.to_owned(), volume };
        engine.json("POST", "/volumes/create", &json!({"Name": hand.volume}));
        let container = hand.create_with("true", false);
        let archive = RootFs::sidecar(Layout::Root, AGENT).finish();
        let answer =
            engine.request("PUT", &format!("/containers/{container}/archive?path=/agent"), &[], &archive);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        engine.remove_container(&container);
        hand
    }

    /// Creates, starts, awaits and removes a container that executes `script`.
    pub fn run(&self, script: &str) {
        let container = self.run_to_exit(script);
        self.remove(&container);
    }

    /// As [`Hand::run`], and reads the container's log before it removes the container. Returns the number of bytes read.
    pub fn run_and_read_log(&self, script: &str) -> u64 {
        let container = self.run_to_exit(script);
        let bytes = self.read("GET", &format!("/containers/{container}/logs?stdout=1&stderr=1"), |_| {});
        self.remove(&container);
        bytes
    }

    /// Creates a container of an image, reads its whole file system, and removes it. Returns the number of bytes read.
    pub fn export(&self, image: &str) -> u64 {
        let body = json!({"Image": image, "Cmd": ["/never-started"], "Labels": {"oz-bench": self.volume}});
        let container = self.engine.json("POST", "/containers/create", &body);
        let container = container["Id"].as_str().expect("an id");
        let bytes = self.read("GET", &format!("/containers/{container}/export"), |_| {});
        self.remove(container);
        bytes
    }

    fn run_to_exit(&self, script: &str) -> String {
        let container = self.create_with(script, true);
        self.engine.json("POST", &format!("/containers/{container}/start"), &Value::Null);
        let mut answer = Vec::new();
        self.read("POST", &format!("/containers/{container}/wait"), |bytes| answer.extend_from_slice(bytes));
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("\"StatusCode\":0"), "{script}: {answer}");
        container
    }

    fn create_with(&self, script: &str, read_only: bool) -> String {
        let mount =
            json!({"Type": "volume", "Source": self.volume, "Target": "/agent", "ReadOnly": read_only});
        let body = json!({
            "Image": self.image,
            "Entrypoint": ["/bin/sh"],
            "Cmd": ["/agent/entrypoint.sh", "agent", "run"],
            "Env": ["OZ_TEST_QUIET=1", format!("OZ_TEST_SCRIPT={script}")],
            "WorkingDir": "/workspace",
            "Labels": {"oz-bench": self.volume},
            "HostConfig": {"Mounts": [mount]},
        });
        let created = self.engine.json("POST", "/containers/create", &body);
        created["Id"].as_str().expect("an id").to_owned()
    }

    fn remove(&self, container: &str) {
        self.engine.remove_container(container);
    }

    /// Passes an answer, with its head, to `sink` in pieces. Returns its length.
    fn read(&self, method: &str, path: &str, sink: impl FnMut(&[u8])) -> u64 {
        let host = self.engine.host();
        match host.strip_prefix("unix://") {
            Some(socket) => {
                let stream = UnixStream::connect(socket).expect("the engine");
                stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
                exchange(stream, method, path, sink)
            }
            None => {
                let address = host.split_once("://").map_or(host, |(_, address)| address);
                let stream = TcpStream::connect(address.trim_end_matches('/')).expect("the engine");
                stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
                exchange(stream, method, path, sink)
            }
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        for container in self.engine.containers("label", &format!("oz-bench={}", self.volume)) {
            self.engine.remove_container(container["Id"].as_str().unwrap_or_default());
        }
        self.engine.remove_volume(&self.volume);
    }
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, mut sink: impl FnMut(&[u8])) -> u64 {
    // With HTTP/1.0 the answer ends with its connection.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: engine\r\n\r\n").expect("a request goes out");
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = stream.read(&mut buffer).expect("an answer comes in");
        let bytes = &buffer[..count];
        assert!(total > 0 || bytes.get(8..13) == Some(b" 200 "), "{path}: no success");
        if bytes.is_empty() {
            return total;
        }
        sink(bytes);
        total += count as u64;
    }
}
