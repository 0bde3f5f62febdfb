//! The REST part: health, a run's state, and for people: submitting, listing and cancelling runs. Connections stay open for the next
//! request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::Shared;
use super::model::Model;
use super::run::RunSpec;
use super::server::{Key, Request, percent_decode};

const RUNS: &str = "/api/v1/agent/runs";
const MAX_BODY: usize = 1 << 20;

/// Answers one request. Returns `None` if the connection is to be closed.
pub fn serve(shared: &Shared, stream: &mut TcpStream, request: &Request) -> Option<()> {
    let body = read_body(shared, stream, request)?;
    let delay = shared.lock().rest_delay;
    if !shared.sleep(delay) {
        return None;
    }
    let (status, answer, padding) = shared.update(|model| {
        model.requests.push(format!("{} {}", request.method, request.path));
        let (fails, padding) =
            if request.path.starts_with(RUNS) { model.look_up() } else { Default::default() };
        let (status, answer) = if fails { unavailable() } else { respond(model, request, &body) };
        (status, answer, padding)
    });
    let mut text = answer.to_string();
    if padding > 0 {
        text.insert_str(1, &format!("\"padding\":\"{}\",", "x".repeat(padding)));
    }
    let is_last = request.has("connection", "close");
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json");
    let connection = if is_last { "\r\nConnection: close" } else { "" };
    write!(stream, "{head}{connection}\r\nContent-Length: {}\r\n\r\n{text}", text.len()).ok()?;
    (!is_last).then_some(())
}

fn read_body(shared: &Shared, stream: &mut TcpStream, request: &Request) -> Option<Vec<u8>> {
    let length = request.header("content-length").map_or(Some(0), |value| value.parse::<usize>().ok())?;
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = request.early.clone();
    while body.len() < length.min(MAX_BODY) {
        let mut chunk = [0; 4096];
        if !shared.readable(stream) {
            return None;
        }
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        body.extend_from_slice(&chunk[..count]);
    }
    Some(body)
}

type Answer = (&'static str, Value);

fn respond(model: &mut Model, request: &Request, body: &[u8]) -> Answer {
    if let Some(status) = model.rest_failure {
        return (
            if status == 404 { "404 Not Found" } else { "503 Service Unavailable" },
            json!({"error": status}),
        );
    }
    if request.path == "/health" {
        return ("200 OK", json!({"ok": true, "service": "oz demo control plane"}));
    }
    match request.key(&model.options().key) {
        Key::Missing => return ("401 Unauthorized", json!({"error": "no key"})),
        Key::Wrong => return not_found(),
        Key::Admin => {}
    }
    let Some(rest) = request.path.strip_prefix(RUNS) else { return not_found() };
    // Split before decoding, because an id may have an encoded slash. In a path a plus is not a space.
    let decoded = |step: &str| percent_decode(&step.replace('+', "%2B"));
    let Some(parts) = rest.split('/').skip(1).map(decoded).collect::<Option<Vec<_>>>() else {
        return ("400 Bad Request", json!({"error": "the path is not percent-encoded"}));
    };
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (request.method.as_str(), parts.as_slice()) {
        ("GET", []) => {
            ("200 OK", json!({"runs": model.runs.iter().map(super::Run::to_json).collect::<Vec<_>>()}))
        }
        ("POST", []) => submit(model, body),
        ("GET", [id]) => model.run(id).map_or_else(not_found, |run| ("200 OK", run.to_json())),
        ("POST", [id, "cancel"]) if model.cancel(id, None, Instant::now()) => {
            ("200 OK", json!({"run_id": id, "state": "CANCELLED"}))
        }
        _ => not_found(),
    }
}

fn unavailable() -> Answer {
    ("503 Service Unavailable", json!({"error": "the store is locked"}))
}

fn submit(model: &mut Model, body: &[u8]) -> Answer {
    match serde_json::from_slice::<RunSpec>(body) {
        Ok(RunSpec { id: Some(id), .. }) if model.run(&id).is_some() => {
            ("409 Conflict", json!({"error": format!("there is a run {id:?} already")}))
        }
        Ok(spec) => ("201 Created", json!({"run_id": model.submit(&spec, Instant::now())})),
        Err(error) => ("400 Bad Request", json!({"error": error.to_string()})),
    }
}

fn not_found() -> Answer {
    ("404 Not Found", json!({"error": "not found"}))
}
