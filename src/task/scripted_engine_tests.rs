//! An engine for unit tests, whose answers a function writes.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::docker::{Docker, Endpoint, Negotiated, Timeouts};
use crate::job::Leftover;
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelToken;
use crate::task::engine::{Probe, Retry, TaskEngine};
use crate::task::processes::Processes;

/// Writes the answer to a request, given its first line. The connection is closed when it returns.
type Answer = dyn Fn(&str, &mut UnixStream) + Send + Sync;

/// Dropping it ends it.
pub(super) struct ScriptedEngine {
    pub(super) docker: Docker,
    requests: Arc<Mutex<Vec<String>>>,
    /// The helpers that could not be removed.
    pub(super) left: Mutex<Vec<Leftover>>,
    over: Arc<AtomicBool>,
    folder: tempfile::TempDir,
}

impl ScriptedEngine {
    /// Starts an engine, and connects to it.
    pub(super) fn start(answer: impl Fn(&str, &mut UnixStream) + Send + Sync + 'static) -> Self {
        Self::start_with(Timeouts::default(), answer)
    }

    /// As [`ScriptedEngine::start`], with these limits of the client.
    pub(super) fn start_with(
        timeouts: Timeouts,
        answer: impl Fn(&str, &mut UnixStream) + Send + Sync + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (requests, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (list, is_over, answer): (_, _, Arc<Answer>) =
            (Arc::clone(&requests), Arc::clone(&over), Arc::new(answer));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let (list, answer) = (Arc::clone(&list), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &list, &*answer));
            }
        });
        let negotiated = Negotiated::new(&CancelToken::new(), Endpoint::Unix(path), None, timeouts).unwrap();
        let docker = negotiated.connect(&CancelToken::new()).unwrap();
        Self { docker, requests, left: Mutex::default(), over, folder }
    }

    /// Runs `act` with an engine handle whose outages are limited to a minute.
    pub(super) fn with<T>(&self, cancel: &CancelToken, act: impl FnOnce(&TaskEngine<'_>) -> T) -> T {
        let key = ExecutionKey::new("t", None);
        let stopping = CancelToken::new();
        let ping = |cancel: &CancelToken| self.docker.ping(cancel);
        let lost_runtime = |cancel: &CancelToken| self.docker.has_lost_runtime(cancel);
        let report = |_| ();
        let address = "unix:///s";
        let probe = Probe { address, ping: &ping, lost_runtime: &lost_runtime, report: &report };
        let retry = Retry::new(&key, Duration::from_secs(60), &stopping, probe);
        let processes = Processes::without_lock("p");
        let (docker, cancel) = (&self.docker, cancel.clone());
        let helper_left = |left: Leftover| self.left.lock().unwrap().push(left);
        act(&TaskEngine {
            docker,
            key: &key,
            cancel,
            retry: &retry,
            processes: &processes,
            helper_left: &helper_left,
        })
    }

    /// Returns how many requests for `text` were made.
    pub(super) fn count(&self, text: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }
}

impl Drop for ScriptedEngine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = UnixStream::connect(self.folder.path().join("s"));
    }
}

fn serve(mut stream: UnixStream, requests: &Mutex<Vec<String>>, answer: &Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let line = head.lines().next().unwrap_or_default();
    if line.contains("/_ping") {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n");
    } else if line.contains("/info ") {
        json(&mut stream, 200, r#"{"NCPU":4}"#);
    } else if line.contains("/version ") {
        json(&mut stream, 200, r#"{"Version":"20","Os":"linux","Arch":"amd64"}"#);
    } else {
        requests.lock().unwrap().push(line.to_owned());
        answer(line, &mut stream);
    }
}

/// Writes an answer with a JSON body. A client that is gone is no error.
pub(super) fn json(stream: &mut UnixStream, status: u16, body: &str) {
    let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
}

/// Writes the head of an answer whose body ends with the connection.
pub(super) fn head(stream: &mut UnixStream, headers: &str) {
    let _ = write!(stream, "HTTP/1.1 200 OK\r\n{headers}\r\n");
}

/// Writes bytes. Returns `false` if the client is gone.
pub(super) fn bytes(stream: &mut UnixStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}
