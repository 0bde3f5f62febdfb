//! The control plane's end of one worker's WebSocket, without the threads and locks of the stand-in: a message is timed right at
//! the socket.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::gauge::Gauge;
use crate::session::{Program, end};
use crate::support::control_plane::run::new_id;
use crate::support::control_plane::{ControlPlane, Options, RunSpec};
use crate::support::engine::Engine;
use crate::support::process::{Process, Signal};

/// The longest wait for a message.
const DEADLINE: Duration = Duration::from_secs(30);

/// A worker and its connection. Dropping it stops the worker.
pub struct Link {
    process: Process,
    socket: WebSocket<TcpStream>,
    /// Answers requests of the REST part.
    _plane: ControlPlane,
    engine: Engine,
    worker_id: String,
}

/// A message about a task.
pub struct Answer {
    pub kind: String,
    pub task_id: String,
    /// When it was read.
    pub at: Instant,
}

impl Link {
    /// Starts a worker and accepts its connection.
    pub fn start(engine: &Engine, program: &Program) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let plane = ControlPlane::start(Options::default());
        let worker_id = format!("bench-{}", new_id());
        let url = format!("ws://{address}/api/v1/selfhosted/worker/ws");
        let process = program.start(engine, [&url, &plane.root_url()], &worker_id, &[]);
        let stream = accept(&listener);
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let socket = tungstenite::accept(stream).expect("a handshake");
        Self { process, socket, _plane: plane, engine: engine.clone(), worker_id }
    }

    /// Returns the counters of the worker's process.
    pub fn gauge(&self) -> Gauge {
        Gauge::of(self.process.id())
    }

    /// Sends an assignment. Returns the task's id and when the write began.
    pub fn assign(&mut self, spec: &RunSpec) -> (String, Instant) {
        let id = new_id();
        let text = json!({"type": "task_assignment", "data": spec.assignment(&id)}).to_string();
        let message = Message::text(text);
        let start = Instant::now();
        self.socket.send(message).expect("an assignment goes out");
        (id, start)
    }

    /// Waits for the next message about a task.
    pub fn next(&mut self) -> Answer {
        loop {
            // Reading also sends the pongs.
            let message = self.socket.read().expect("a message comes in");
            let at = Instant::now();
            if let Message::Text(text) = message {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                return Answer {
                    kind: text(&message["type"]),
                    task_id: text(&message["data"]["task_id"]),
                    at,
                };
            }
        }
    }
}

/// Waits for the worker's connection.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("a socket");
    let end = Instant::now() + DEADLINE;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a socket");
                return stream;
            }
            Err(error) => assert!(Instant::now() < end, "the worker does not connect: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Answer {
    /// Whether it is the last message about the task.
    pub fn is_final(&self) -> bool {
        matches!(self.kind.as_str(), "task_completed" | "task_failed" | "task_rejected")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        // Its last report needs a pong.
        while self.process.is_running() && self.socket.read().is_ok() {}
        end(&self.process, &self.engine, &self.worker_id);
    }
}
