//! A minimal worker, to test the stand-in for the control plane.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use crate::support::control_plane::ControlPlane;
use crate::support::peer::Peer;

/// A connected worker.
pub struct FakeWorker {
    pub socket: WebSocket<Peer>,
    worker: String,
}

pub fn stream(plane: &ControlPlane) -> Peer {
    let stream = TcpStream::connect(plane.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    Peer(stream)
}

impl FakeWorker {
    pub fn connect(plane: &ControlPlane, worker: &str) -> Self {
        let url = format!("{}?worker_id={worker}", plane.ws_url());
        let mut request = url.into_client_request().unwrap();
        let key = HeaderValue::from_str(&format!("Bearer {}", plane.key())).unwrap();
        request.headers_mut().insert("authorization", key);
        let (socket, _) = tungstenite::client(request, stream(plane)).unwrap();
        Self { socket, worker: worker.to_owned() }
    }

    /// Returns the next text frame as JSON.
    pub fn next(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Returns the id of the next assignment.
    pub fn assigned(&mut self) -> String {
        let message = self.next();
        assert_eq!(message["type"], "task_assignment");
        message["data"]["task_id"].as_str().unwrap().to_owned()
    }

    pub fn send(&mut self, kind: &str, data: &Value) {
        let text = json!({"type": kind, "data": data}).to_string();
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn claim(&mut self, id: &str) {
        let worker = self.worker.clone();
        self.send("task_claimed", &json!({"task_id": id, "worker_id": worker}));
    }

    pub fn complete(&mut self, id: &str, exit_code: i64) {
        let data = json!({"task_id": id, "worker_id": self.worker, "output": "done", "exit_code": exit_code});
        self.send("task_completed", &data);
    }

    /// Waits until the control plane has received all messages sent so far.
    pub fn sync(&mut self) {
        self.socket.send(Message::Ping("sync".into())).unwrap();
        while !matches!(self.socket.read().unwrap(), Message::Pong(_)) {}
    }
}

/// Sends a REST request and returns the status and the body.
pub fn rest(plane: &ControlPlane, method: &str, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
    let mut stream = stream(plane);
    let bearer = key.map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    write!(stream, "{head}{bearer}Content-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}
