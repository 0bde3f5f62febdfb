//! A worker whose main thread is frozen. A tracer that is stopped itself holds the thread at its next system call.

use std::process::Command;

use super::monitoring::Pages;
use super::notify::Manager;
use crate::support::control_plane::State;
use crate::support::process::{Process, Signal};
use crate::support::stage::{DEADLINE, Stage};

/// Freezes the thread with this id until the result is dropped.
fn freeze(thread: u32) -> Process {
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "-p", &thread.to_string()]);
    let tracer = Process::spawn(&mut command, None);
    tracer.wait_log(DEADLINE, |line| line.contains("attached"));
    tracer.signal(Signal::STOP);
    tracer
}

#[test]
fn a_frozen_main_thread_is_unhealthy_and_the_service_manager_hears_nothing() {
    let (stage, pages, manager) = (Stage::new(), Pages::new(), Manager::new());
    let worker = pages.on(stage.worker()).env("NOTIFY_SOCKET", &manager.address());
    let worker = stage.start(worker.env("WATCHDOG_USEC", "200000"));
    manager.until("WATCHDOG=1");
    assert_eq!(pages.get("/healthz").0, 200);
    let frozen = freeze(worker.id());
    let stuck = "the main thread does not answer\n";
    pages.wait("/healthz", |status, body| status == 503 && body == stuck);
    // What was sent before.
    while !manager.pending().is_empty() {}
    for page in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(pages.get(page), (503, stuck.to_owned()), "{page}");
    }
    assert_eq!((&pages.status()["state"], &pages.status()["healthy"]), (&"unhealthy".into(), &false.into()));
    assert_eq!(manager.pending(), Vec::<String>::new());

    drop(frozen);
    pages.wait("/healthz", |status, _| status == 200);
    manager.until("WATCHDOG=1");
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.stop(worker);
}
