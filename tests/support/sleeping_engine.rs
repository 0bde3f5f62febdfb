//! An engine whose containers run nothing: each sleeps until it is killed, or ends at once. A thousand of them cost almost nothing.
//!
//! It has every image and every volume, and answers one request at a time, from the one thread that accepts connections.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a client may take to send its request.
const DEADLINE: Duration = Duration::from_secs(30);

/// The body of the answer to a wait.
const EXIT: &[u8] = br#"{"StatusCode":0}"#;

/// What the stat of any path says: a file.
const STAT: &str = r#"{"name":"f","size":1,"mode":420,"mtime":"2026-01-02T03:04:05Z","linkTarget":""}"#;

/// The id of every image.
const IMAGE: &str = "sha256:abc";

/// A running engine; dropping it ends it.
pub struct SleepingEngine {
    path: PathBuf,
    over: Arc<AtomicBool>,
    /// How many containers there are.
    containers: Arc<AtomicUsize>,
    /// The ids of the tasks whose containers were started.
    starts: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

/// A container by its name, which is also its id.
#[derive(Default)]
struct Container {
    running: bool,
    ended: bool,
    /// The id of its task; empty for a helper.
    task: String,
    /// Those who wait for its end.
    waiting: Vec<UnixStream>,
}

type Containers = BTreeMap<String, Container>;

impl SleepingEngine {
    /// Listens on a Unix socket in a folder of its own, for every user. Containers sleep.
    pub fn start() -> Self {
        Self::with(false)
    }

    /// As [`SleepingEngine::start`], with containers that end at once.
    pub fn of_short_tasks() -> Self {
        Self::with(true)
    }

    fn with(ends_at_once: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("oz-sleep-").tempdir_in("/tmp").expect("a folder");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("a socket");
        for (path, mode) in [(folder.path(), 0o755), (&path, 0o777)] {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("an own file");
        }
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let starts = Arc::<Mutex<Vec<String>>>::default();
        let started = Arc::clone(&starts);
        let count = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&count);
        let thread = std::thread::spawn(move || {
            let mut containers = Containers::new();
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    break;
                }
                // A client that was cancelled or killed concerns only itself.
                let began = stream.and_then(|stream| serve(stream, &mut containers));
                counted.store(containers.len(), Ordering::SeqCst);
                let Some(id) = began.ok().flatten() else { continue };
                let Some(container) = containers.get_mut(&id) else { continue };
                started.lock().unwrap_or_else(PoisonError::into_inner).push(container.task.clone());
                if ends_at_once {
                    container.end();
                }
            }
        });
        Self { path, over, containers: count, starts, thread: Some(thread), _folder: folder }
    }

    /// Returns the ids of the tasks whose containers were started, one for each start.
    pub fn starts(&self) -> Vec<String> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has no container. Panics after `deadline`.
    pub fn wait_empty(&self, deadline: Duration) {
        let end = Instant::now() + deadline;
        while self.containers.load(Ordering::SeqCst) > 0 {
            assert!(Instant::now() < end, "{} containers are left", self.containers.load(Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the value for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for SleepingEngine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread.
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Container {
    /// Ends it with code 0.
    fn end(&mut self) {
        (self.running, self.ended) = (false, true);
        for mut waiting in self.waiting.drain(..) {
            // The waiting client may be gone.
            let _ = waiting.write_all(br#"{"StatusCode":0}"#);
        }
    }
}

/// Answers one request. Returns the container that it started.
fn serve(mut stream: UnixStream, containers: &mut Containers) -> io::Result<Option<String>> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let head = read_head(&mut stream)?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // Without the version.
    let path = path.strip_prefix("/v1.41").unwrap_or(path);
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let started = match parts.as_slice() {
        ["containers", id, "start"] => Some((*id).to_owned()),
        _ => None,
    };
    match (method, parts.as_slice()) {
        (_, ["_ping"]) => answer(&mut stream, 200, "Api-Version: 1.41\r\n", ""),
        (_, ["version"]) => {
            json(&mut stream, 200, &json!({"Version": "20.10.24", "Os": "linux", "Arch": "amd64"}))
        }
        (_, ["info"]) => json(&mut stream, 200, &json!({"NCPU": 4, "MemTotal": 1024})),
        ("GET", ["images", ..]) => {
            json(&mut stream, 200, &json!({"Id": IMAGE, "Os": "linux", "Architecture": "amd64"}))
        }
        ("GET", ["volumes"]) => json(&mut stream, 200, &json!({"Volumes": []})),
        ("POST", ["volumes", "create"]) => {
            let volume: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
            json(&mut stream, 201, &json!({"Name": volume["Name"]}))
        }
        ("GET", ["containers", "json"]) => json(&mut stream, 200, &list(containers, query)),
        ("POST", ["containers", "create"]) => {
            let name = query.trim_start_matches("name=");
            let definition: Value = serde_json::from_slice(&body).map_err(io::Error::other)?;
            let task = definition["Labels"]["oz-task-id"].as_str().unwrap_or_default().to_owned();
            containers.insert(name.to_owned(), Container { task, ..Container::default() });
            json(&mut stream, 201, &json!({"Id": name, "Warnings": []}))
        }
        ("GET", ["containers", _, "archive"]) if query.contains("oz-sidecar-complete") => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&marker()?)
        }
        ("HEAD", ["containers", _, "archive"]) => {
            let stat = BASE64.encode(STAT.as_bytes());
            answer(&mut stream, 200, &format!("X-Docker-Container-Path-Stat: {stat}\r\n"), "")
        }
        (_, ["containers", id, rest @ ..]) => match containers.get_mut(*id) {
            None => json(&mut stream, 404, &json!({"message": "no such container"})),
            Some(_) if method == "DELETE" => {
                containers.remove(*id);
                answer(&mut stream, 204, "", "")
            }
            Some(container) => act(stream, id, rest, query, container),
        },
        _ => json(&mut stream, 404, &json!({"message": format!("unexpected: {method} {path}")})),
    }?;
    Ok(started)
}

/// Returns the archive of the marker of a complete sidecar volume: every volume is one.
fn marker() -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(IMAGE.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, ".oz-sidecar-complete", IMAGE.as_bytes())?;
    archive.into_inner()
}

/// Answers a request about one container.
fn act(
    mut stream: UnixStream,
    id: &str,
    action: &[&str],
    query: &str,
    container: &mut Container,
) -> io::Result<()> {
    match action {
        ["json"] => {
            let status = match container {
                Container { running: true, .. } => "running",
                Container { ended: true, .. } => "exited",
                _ => "created",
            };
            let state = json!({"Status": status, "Running": container.running, "ExitCode": 0});
            json(
                &mut stream,
                200,
                &json!({"Id": id, "Name": format!("/{id}"), "Image": IMAGE, "State": state}),
            )
        }
        ["start"] => {
            container.running = true;
            answer(&mut stream, 204, "", "")
        }
        ["wait"] => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            if query.contains("not-running") && !container.running {
                return stream.write_all(EXIT);
            }
            container.waiting.push(stream);
            Ok(())
        }
        ["stop" | "kill"] => {
            container.end();
            answer(&mut stream, 204, "", "")
        }
        ["logs"] => answer(&mut stream, 200, "", ""),
        _ => answer(&mut stream, 204, "", ""),
    }
}

/// Returns all containers, or those that run or are of one task if the filter says so.
fn list(containers: &Containers, query: &str) -> Value {
    let only_running = query.contains("running");
    // `"oz-task-id=TASK"`, percent-encoded.
    let task = query.split("oz-task-id%3D").nth(1).and_then(|rest| rest.split("%22").next());
    let is_listed = |container: &Container| {
        (container.running || !only_running) && task.is_none_or(|task| task == container.task)
    };
    let listed = containers.iter().filter(|(_, container)| is_listed(container));
    listed
        .map(|(name, _)| json!({"Id": name, "Names": [format!("/{name}")], "ImageID": IMAGE, "Labels": {}}))
        .collect()
}

fn json(stream: &mut UnixStream, status: u16, body: &Value) -> io::Result<()> {
    answer(stream, status, "Content-Type: application/json\r\n", &body.to_string())
}

/// Writes a whole answer. `headers` is complete lines.
fn answer(stream: &mut UnixStream, status: u16, headers: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} OK\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Reads byte by byte, so that the body is not touched.
fn read_head(stream: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(io::Error::other)
}
