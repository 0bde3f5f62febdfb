//! The handshake and the REST part.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use serde_json::json;

use super::fake_worker::{FakeWorker, rest, stream};
use crate::support::control_plane::{ControlPlane, DEADLINE, Options, State};
use crate::support::peer::Peer;

fn handshake(plane: &ControlPlane, target: &str, key: Option<&str>) -> Peer {
    let mut stream = stream(plane);
    let bearer = key.map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
    let head =
        format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{bearer}");
    let nonce = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(nonce.as_bytes()).unwrap();
    stream
}

fn answer(mut stream: Peer) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_handshake_is_refused_with_a_bare_status_line() {
    let plane = ControlPlane::start(Options::default());
    let target = "/api/v1/selfhosted/worker/ws?worker_id=w";
    assert_eq!(answer(handshake(&plane, target, None)), "HTTP/1.1 401 Refused\r\n\r\n");
    assert_eq!(answer(handshake(&plane, target, Some("no"))), "HTTP/1.1 403 Refused\r\n\r\n");
    plane.refuse_with(Some(503));
    assert_eq!(answer(handshake(&plane, target, Some(plane.key()))), "HTTP/1.1 503 Refused\r\n\r\n");
    assert_eq!((plane.connections(), plane.view(|model| model.attempts)), (0, 3));
}

#[test]
fn a_wrong_path_is_never_answered() {
    let plane = ControlPlane::start(Options::default());
    let mut stream = handshake(&plane, "/api/v1/selfhosted/worker/ws/?worker_id=w", Some(plane.key()));
    plane.wait_for(DEADLINE, |model| model.attempts == 1);
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_worker_id_may_be_percent_encoded() {
    let plane = ControlPlane::start(Options::default());
    let _worker = FakeWorker::connect(&plane, "w%20%C3%A4&x=1");
    plane.wait_connected(1);
    assert_eq!(plane.view(|model| model.connections[0].worker.clone()), "w ä");
}

#[test]
fn rest_submits_returns_lists_and_cancels_runs() {
    let plane = ControlPlane::start(Options::default());
    let (key, runs) = (Some(plane.key()), "/api/v1/agent/runs");
    assert_eq!(rest(&plane, "GET", "/health", None, "").1["ok"], true);
    let (status, made) = rest(&plane, "POST", runs, key, r#"{"prompt": "p", "sidecar_image": "s"}"#);
    let id = made["run_id"].as_str().unwrap().to_owned();
    assert_eq!((status, plane.run(&id).state), (201, State::Pending));
    let one = format!("{runs}/{id}");
    assert_eq!(rest(&plane, "GET", &one, key, "").1["state"], "PENDING");
    assert_eq!(rest(&plane, "GET", &one, Some("no"), "").0, 404);
    assert_eq!(rest(&plane, "GET", &one, None, "").0, 401);
    assert_eq!(rest(&plane, "GET", runs, key, "").1["runs"][0]["run_id"], json!(id));
    assert_eq!(rest(&plane, "POST", &format!("{one}/cancel"), key, "").0, 200);
    assert_eq!(plane.run(&id).state, State::Cancelled);
    assert_eq!(rest(&plane, "GET", "/api/v1/agent/runs/none", key, "").0, 404);
    assert_eq!(rest(&plane, "POST", runs, key, "{").0, 400);
    let named = r#"{"id": "one", "sidecar_image": "s"}"#;
    assert_eq!([named, named].map(|spec| rest(&plane, "POST", runs, key, spec).0), [201, 409]);
}
