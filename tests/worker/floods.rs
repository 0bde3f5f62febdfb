//! Control planes that send more than a worker can use: its memory, its log and its stop stay bounded.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread::JoinHandle;

use serde_json::json;

use crate::link::{accept_raw, header, listen};
use crate::support::peer::Peer;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::Worker;

const MIB: usize = 1 << 20;

/// The most resident memory at any time.
const MAX_PEAK: usize = 96 * MIB;

/// A worker that is connected to a raw socket.
struct Flooded {
    stage: Stage,
    worker: Worker,
    stream: Peer,
}

impl Flooded {
    fn start() -> Self {
        let (listener, url) = listen();
        let address = url.trim_start_matches("ws://").split('/').next().unwrap();
        let stage = Stage::new();
        let slots = ["--max-concurrent-tasks", "1"];
        let worker = stage.worker_via(&stage.worker_id, address).args(slots).start();
        let stream = accept_raw(&listener);
        Self { stage, worker, stream }
    }

    /// Reads and drops what the worker sends.
    fn read(&self) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().unwrap();
        stream.set_read_timeout(None).unwrap();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        })
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&header(first, payload.len())).unwrap();
        self.stream.write_all(payload).unwrap();
    }

    /// Sends these bytes again and again until the connection ends.
    fn flood(&self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || while stream.write_all(&bytes).is_ok() {})
    }

    /// Waits until everything sent so far was handled.
    fn handled(&mut self, mark: &str) {
        self.send(0x81, json!({"type": "task_assignment", "data": {"task_id": mark}}).to_string().as_bytes());
        let task = format!("task={mark} ");
        self.worker.wait_log(DEADLINE, |line| line.contains(&task));
    }

    /// Returns the peak of the resident memory in bytes.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        kib.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Stops the worker, which must exit with 0 while the flood goes on.
    fn stop(mut self, what: &str) {
        let peak = self.peak();
        assert!(peak < MAX_PEAK, "{what}: {} MiB", peak / MIB);
        self.worker.signal(Signal::TERM);
        let status = self.worker.wait_exit(DEADLINE);
        assert_eq!(status.code(), Some(0), "{what}: {:#?}", self.worker.stderr().all());
        self.stage.wait_no_containers();
    }
}

/// An assignment whose environment has this many bytes.
fn assignment(id: &str, bytes: usize) -> Vec<u8> {
    let data = json!({"task_id": id, "task": {}, "sidecar_image": "127.0.0.1:1/none:none",
        "docker_image": "127.0.0.1:1/none:none", "env_vars": {"A": "x".repeat(bytes)}});
    json!({"type": "task_assignment", "data": data}).to_string().into_bytes()
}

#[test]
fn large_assignments_beyond_the_backlog_are_given_back() {
    let mut flooded = Flooded::start();
    let reader = flooded.read();
    // Takes the slot. Its claim is never confirmed, so its container does not start.
    let data = flooded.stage.spec("true").assignment("first");
    flooded.send(0x81, json!({"type": "task_assignment", "data": data}).to_string().as_bytes());
    for n in 0..8 {
        flooded.send(0x81, &assignment(&format!("large-{n}"), 7 * MIB));
    }
    flooded.handled("mark");
    let full = "task rejected task=large-7 reason=\"the worker's backlog is full\"";
    assert!(flooded.worker.stderr().all().iter().any(|line| line.ends_with(full)), "{full}");
    // Drops the first task.
    flooded.stream.shutdown(Shutdown::Both).unwrap();
    flooded.worker.wait_log(DEADLINE, |line| line.contains("claim lost task=first"));
    flooded.stop("large assignments");
    reader.join().unwrap();
}

#[test]
fn large_unknown_messages_are_not_stored() {
    let mut flooded = Flooded::start();
    let reader = flooded.read();
    let unknown = format!("{{\"x\":\"{}\",\"type\":\"news\"}}", "x".repeat(15 * MIB));
    for _ in 0..6 {
        flooded.send(0x81, unknown.as_bytes());
        flooded.send(0x82, &unknown.as_bytes()[..15 * MIB]);
    }
    flooded.handled("mark");
    flooded.stop("large unknown messages");
    reader.join().unwrap();
}

#[test]
fn pongs_that_cannot_be_sent_are_bounded() {
    let mut flooded = Flooded::start();
    let pings = [&[0x89, 125][..], &[b'p'; 125]].concat().repeat(1000);
    // 127 MB of pongs, which nobody reads.
    for _ in 0..1000 {
        flooded.stream.write_all(&pings).unwrap();
    }
    flooded.handled("mark");
    flooded.stop("pings");
}

#[test]
fn frames_without_an_end_do_not_delay_a_stop() {
    let mut flooded = Flooded::start();
    let reader = flooded.read();
    flooded.stream.write_all(&[0x01, 0]).unwrap();
    let flood = flooded.flood([0x00, 0].repeat(64 << 10));
    flooded.stop("continuations");
    flood.join().unwrap();
    reader.join().unwrap();
}

#[test]
fn large_messages_do_not_delay_a_stop() {
    let mut flooded = Flooded::start();
    let reader = flooded.read();
    let data = json!({"task_id": "long", "prompt": "x".repeat(15 * MIB)});
    let long = json!({"type": "task_assignment", "data": data}).to_string();
    flooded.send(0x81, long.as_bytes());
    let flood = flooded.flood([header(0x81, long.len()).as_slice(), long.as_bytes()].concat());
    flooded.worker.wait_log(DEADLINE, |line| line.contains("assignment invalid task=long"));
    flooded.stop("large messages");
    flood.join().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_flood_of_cancels_and_binary_frames_does_not_fill_the_log() {
    let mut flooded = Flooded::start();
    let reader = flooded.read();
    let cancel = br#"{"type":"task_cancel","data":{"task_id":"nobody"}}"#;
    let cancel = [&[0x81, u8::try_from(cancel.len()).unwrap()][..], cancel].concat();
    let frames = [cancel, vec![0x82, 1, 0]].concat().repeat(100);
    for _ in 0..300 {
        flooded.stream.write_all(&frames).unwrap();
    }
    flooded.handled("mark");
    let lines = flooded.worker.stderr().all().len();
    // Two kinds, 50 lines each in ten seconds.
    assert!(lines < 1000, "{lines} lines");
    flooded.worker.wait_log(DEADLINE, |line| line.contains("log lines left out line=\"cancel ignored\""));
    flooded.stream.shutdown(Shutdown::Write).unwrap();
    flooded.stop("cancels");
    reader.join().unwrap();
}
