//! A client for the real engine of the tests, independent of the worker's own client.
//!
//! It speaks HTTP/1.0, so an answer ends with its connection and is never chunked.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

/// The time-out of a request.
const DEADLINE: Duration = Duration::from_secs(60);

/// An engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    host: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head as text.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Returns the address of the engine of the tests, from `OZ_TEST_DOCKER_HOST`, which `make test` sets.
pub fn host() -> String {
    let host = std::env::var("OZ_TEST_DOCKER_HOST").unwrap_or_default();
    assert!(!host.is_empty(), "no engine: run the tests with `make test`, or set OZ_TEST_DOCKER_HOST");
    host
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Engine {
    /// Returns the engine of the tests. Panics if it does not answer.
    pub fn get() -> Self {
        Self::at(&host())
    }

    /// Returns the engine at a `unix://` or `tcp://` address. Panics if it does not answer.
    pub fn at(host: &str) -> Self {
        let engine = Self { host: host.to_owned() };
        let answer = engine.request("GET", "/_ping", &[], &[]);
        assert!(answer.head.contains("Api-Version: "), "no engine at {host}: {answer:?}");
        engine
    }

    /// Returns its address.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn connect(&self) -> Box<dyn Stream> {
        let fail = |error| panic!("engine at {}: {error}", self.host);
        if let Some(path) = self.host.strip_prefix("unix://") {
            let stream = UnixStream::connect(path).unwrap_or_else(fail);
            stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
            return Box::new(stream);
        }
        let address = self.host.split_once("://").map_or(self.host.as_str(), |(_, address)| address);
        let stream = TcpStream::connect(address.trim_end_matches('/'))
            .unwrap_or_else(|error| fail_tcp(&self.host, &error));
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        Box::new(stream)
    }

    /// Sends a request. `path` is without an API version: the engine's newest is used, also after the engine was changed.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: engine\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).expect("a request goes out");
        stream.write_all(body).expect("a body goes out");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("an answer comes in");
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head, body: bytes[end + 4..].to_vec() }
    }

    /// Sends and receives JSON. Panics if the status is not a success.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.request(method, path, &[("Content-Type", "application/json")], body.as_bytes());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status < 300, "{method} {path}: {} {text}", answer.status);
        if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    /// Returns all containers, running or not, that match a filter such as `label`, `oz-worker-id=w`.
    pub fn containers(&self, filter: &str, value: &str) -> Vec<Value> {
        let filters = encode(&json!({filter: [value]}).to_string());
        let list = self.json("GET", &format!("/containers/json?all=1&filters={filters}"), &Value::Null);
        list.as_array().cloned().unwrap_or_default()
    }

    /// Returns all containers of a worker.
    pub fn containers_of(&self, worker: &str) -> Vec<Value> {
        self.containers("label", &format!("oz-worker-id={worker}"))
    }

    /// Returns the names of all containers.
    pub fn container_names(&self) -> Vec<String> {
        let list = self.json("GET", "/containers/json?all=1", &Value::Null);
        let name = |container: &Value| container["Names"][0].as_str().unwrap_or_default().to_owned();
        list.as_array().map(|list| list.iter().map(name).collect()).unwrap_or_default()
    }

    /// Returns the names of all volumes.
    pub fn volume_names(&self) -> Vec<String> {
        names(&self.json("GET", "/volumes", &Value::Null))
    }

    /// Returns the names of the volumes of a worker.
    pub fn volumes_of(&self, worker: &str) -> Vec<String> {
        let filters = encode(&json!({"label": [format!("oz-worker-id={worker}")]}).to_string());
        names(&self.json("GET", &format!("/volumes?filters={filters}"), &Value::Null))
    }

    /// Removes a container, running or not; it need not exist.
    pub fn remove_container(&self, id: &str) {
        let path = format!("/containers/{id}?force=1&v=1");
        assert!(self.remove(&path) || std::thread::panicking(), "{id} is not removed");
    }

    /// Removes a volume; it need not exist.
    pub fn remove_volume(&self, name: &str) {
        assert!(self.remove(&format!("/volumes/{name}")) || std::thread::panicking(), "{name} is in use");
    }

    /// Removes an image by its name; it need not exist.
    pub fn remove_image(&self, name: &str) {
        let path = format!("/images/{name}?force=1");
        assert!(self.remove(&path) || std::thread::panicking(), "{name} is in use");
    }

    /// Removes all containers and volumes of a worker.
    pub fn remove_all_of(&self, worker: &str) {
        let in_use = self.remove_unused_of(worker);
        assert!(in_use.is_empty() || std::thread::panicking(), "{in_use:?} are in use");
    }

    /// As [`Engine::remove_all_of`], but leaves and returns the volumes that a container of another worker uses: workers share the
    /// volumes of sidecars.
    pub fn remove_unused_of(&self, worker: &str) -> Vec<String> {
        for container in self.containers_of(worker) {
            self.remove_container(container["Id"].as_str().unwrap_or_default());
        }
        let mut volumes = self.volumes_of(worker);
        volumes.retain(|volume| !self.remove(&format!("/volumes/{volume}")));
        volumes
    }

    /// Removes something that need not exist. Returns whether it is gone: not if it is in use.
    fn remove(&self, path: &str) -> bool {
        let Answer { status, body, .. } = self.request("DELETE", path, &[], &[]);
        let known = status < 300 || matches!(status, 404 | 409);
        assert!(known || std::thread::panicking(), "{path}: {status} {}", String::from_utf8_lossy(&body));
        status != 409
    }

    /// Sends a request that is answered with a progress stream. Returns the stream's text as an error if it reports one.
    pub fn progress(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<(), String> {
        let answer = self.request("POST", path, headers, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let failed = answer.status >= 300 || text.contains("errorDetail");
        if failed { Err(format!("{} {text}", answer.status)) } else { Ok(()) }
    }
}

fn fail_tcp(host: &str, error: &std::io::Error) -> TcpStream {
    panic!("engine at {host}: {error}")
}

fn names(volumes: &Value) -> Vec<String> {
    let name = |volume: &Value| volume["Name"].as_str().unwrap_or_default().to_owned();
    volumes["Volumes"].as_array().map(|list| list.iter().map(name).collect()).unwrap_or_default()
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
