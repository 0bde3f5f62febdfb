//! Notifications to the service manager, received on a socket in its place.

use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use crate::support::control_plane::{Disconnect, State};
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};

/// A service manager that only receives.
pub(super) struct Manager {
    socket: UnixDatagram,
    path: tempfile::TempDir,
}

impl Manager {
    pub(super) fn new() -> Self {
        let path = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(path.path().join("notify")).unwrap();
        Self { socket, path }
    }

    pub(super) fn address(&self) -> String {
        self.path.path().join("notify").display().to_string()
    }

    /// Receives until the line `last` and returns all lines.
    pub(super) fn until(&self, last: &str) -> Vec<String> {
        self.until_line(|line| line == last)
    }

    /// As [`Manager::until`], until a line for which `last` holds.
    pub(super) fn until_line(&self, last: impl Fn(&str) -> bool) -> Vec<String> {
        let (end, mut lines, mut buffer) = (Instant::now() + DEADLINE, Vec::<String>::new(), [0; 4096]);
        while !lines.iter().any(|line| last(line)) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the last line was not received, only {lines:?}");
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        lines
    }

    /// Returns the lines of the next datagram, if one has arrived.
    pub(super) fn pending(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_service_manager_receives_readiness_the_task_count_and_the_stop_timeout() {
    let stage = Stage::new();
    let manager = Manager::new();
    let worker = stage.worker().env("NOTIFY_SOCKET", &manager.address()).env("OZ_MAX_CONCURRENT_TASKS", "4");
    let mut worker = stage.start(worker.args(["--drain-timeout", "2h"]));
    let lines = manager.until("STATUS=connected, tasks: 0 of 4");
    assert_eq!(lines.iter().filter(|line| *line == "READY=1").count(), 1, "{lines:?}");
    let id = stage.plane.submit(stage.spec("trap 'exit 0' TERM; sleep 1000 & wait"));
    let lines = manager.until("STATUS=connected, tasks: 1 of 4");
    assert!(!lines.contains(&"READY=1".to_owned()), "{lines:?}");
    stage.plane.wait_state(&id, State::InProgress);
    worker.signal(Signal::TERM);
    let lines = manager.until("STATUS=draining, tasks: 1 of 4");
    // 2 h for the drain, 73 s for the rest of the stop, and 10 s of margin.
    let expected = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=7283000000"];
    assert!(
        lines.ends_with(&[expected[0], expected[1], "STATUS=draining, tasks: 1 of 4"].map(str::to_owned)),
        "{lines:?}"
    );
    worker.signal_again(Signal::TERM);
    manager.until("STATUS=stopping, tasks: 0 of 4");
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
}

#[test]
fn the_status_says_why_a_worker_that_was_connected_is_refused() {
    let stage = Stage::new();
    let manager = Manager::new();
    let worker = stage
        .start(stage.worker().env("NOTIFY_SOCKET", &manager.address()).env("OZ_MAX_CONCURRENT_TASKS", "4"));
    stage.plane.refuse_with(Some(404));
    stage.plane.drop_connections(Disconnect::Rst);
    manager.until(
        "STATUS=waiting for the control plane, tasks: 0 of 4; refused: the control plane answered 404: check the path of the URL (--server-root-url or --web-socket-url)",
    );
    stage.plane.refuse_with(None);
    manager.until("STATUS=connected, tasks: 0 of 4");
    stage.stop(worker);
}

#[test]
fn a_worker_is_ready_while_the_control_plane_is_unavailable_but_not_when_it_is_refused() {
    let stage = Stage::new();
    let manager = Manager::new();
    stage.plane.refuse_with(Some(503));
    let waiting =
        stage.worker().env("NOTIFY_SOCKET", &manager.address()).env("OZ_MAX_CONCURRENT_TASKS", "4").start();
    assert!(
        manager.until("STATUS=waiting for the control plane, tasks: 0 of 4").contains(&"READY=1".to_owned())
    );
    drop(waiting);
    stage.plane.refuse_with(Some(403));
    let manager = Manager::new();
    let mut refused =
        stage.worker().env("NOTIFY_SOCKET", &manager.address()).env("OZ_MAX_CONCURRENT_TASKS", "4").start();
    assert_eq!(refused.wait_exit(DEADLINE).code(), Some(3));
    assert!(!manager.pending().contains(&"READY=1".to_owned()));
}

#[test]
fn an_unreachable_service_manager_is_logged_and_otherwise_ignored() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().env("NOTIFY_SOCKET", "/nonexistent/notify"));
    worker.wait_log(DEADLINE, |line| {
        line.contains("WARN") && line.contains("service manager not notified error=")
    });
    let id = stage.plane.submit(stage.spec("true"));
    assert_eq!(stage.plane.wait_ended(&id).state, State::Succeeded);
}
