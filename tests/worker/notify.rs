//! What a service manager is told, read from a socket like its own.

use std::os::unix::net::UnixDatagram;
use std::time::Instant;

use super::{DEADLINE, Stage};
use crate::support::control_plane::State;
use crate::support::process::Signal;

/// A service manager that only listens.
struct Manager {
    socket: UnixDatagram,
    path: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let path = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(path.path().join("notify")).unwrap();
        Self { socket, path }
    }

    fn address(&self) -> String {
        self.path.path().join("notify").display().to_string()
    }

    /// Everything that is told until one of it is `last`.
    fn until(&self, last: &str) -> Vec<String> {
        let (end, mut told, mut buffer) = (Instant::now() + DEADLINE, Vec::new(), [0; 4096]);
        while !told.iter().any(|line| line == last) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{last} was not told, only {told:?}");
            self.socket.set_read_timeout(Some(left)).unwrap();
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            told.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        told
    }

    /// Whether there is anything that was not read.
    fn told_all(&self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_service_manager_hears_of_the_connection_the_tasks_and_the_time_that_a_stop_takes() {
    let (stage, manager) = (Stage::new(), Manager::new());
    let worker = stage.worker().env("NOTIFY_SOCKET", &manager.address());
    let mut worker = stage.connected(worker.args(["--drain-timeout", "2h"]));
    let told = manager.until("STATUS=connected, tasks: 0");
    assert_eq!(told.iter().filter(|line| *line == "READY=1").count(), 1, "{told:?}");
    let id = stage.plane.submit(stage.spec("trap 'exit 0' TERM; sleep 1000 & wait"));
    let told = manager.until("STATUS=connected, tasks: 1");
    assert!(!told.contains(&"READY=1".to_owned()), "{told:?}");
    stage.plane.wait_state(&id, State::InProgress);
    worker.signal(Signal::TERM);
    let told = manager.until("STATUS=draining, tasks: 1");
    // 2 h of the drain, 80 s for the rest of the stop, 10 s to spare.
    let expected = ["STOPPING=1", "EXTEND_TIMEOUT_USEC=7290000000"];
    assert!(
        told.ends_with(&[expected[0], expected[1], "STATUS=draining, tasks: 1"].map(str::to_owned)),
        "{told:?}"
    );
    worker.signal(Signal::TERM);
    manager.until("STATUS=stopping, tasks: 0");
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
}

/// Whoever waits for a start is not kept waiting for a control plane that is away.
#[test]
fn a_worker_whose_control_plane_is_away_is_ready_and_one_that_is_refused_is_not() {
    let (stage, manager) = (Stage::new(), Manager::new());
    stage.plane.refuse_with(Some(503));
    let waiting = stage.worker().env("NOTIFY_SOCKET", &manager.address()).start();
    assert!(manager.until("STATUS=waiting for the control plane, tasks: 0").contains(&"READY=1".to_owned()));
    drop(waiting);
    stage.plane.refuse_with(Some(403));
    let manager = Manager::new();
    let mut refused = stage.worker().env("NOTIFY_SOCKET", &manager.address()).start();
    assert_eq!(refused.wait_exit(DEADLINE).code(), Some(3));
    assert!(!manager.told_all().contains(&"READY=1".to_owned()));
}

#[test]
fn a_service_manager_that_cannot_be_told_is_warned_about_and_disturbs_nothing() {
    let stage = Stage::new();
    let worker = stage.connected(stage.worker().env("NOTIFY_SOCKET", "/nonexistent/notify"));
    worker.wait_log(DEADLINE, |line| {
        line.contains("WARN") && line.contains("service manager not notified error=")
    });
    let id = stage.plane.submit(stage.spec("true"));
    assert_eq!(stage.plane.wait_ended(&id).state, State::Succeeded);
}
