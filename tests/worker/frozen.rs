//! A worker whose main thread is frozen.

use super::monitoring::Pages;
use super::notify::Manager;
use crate::support::control_plane::State;
use crate::support::process::Process;
use crate::support::stage::{DEADLINE, Stage};

#[test]
fn a_frozen_main_thread_is_unhealthy_and_the_service_manager_hears_nothing() {
    let (stage, pages, manager) = (Stage::new(), Pages::new(), Manager::new());
    let worker = pages.on(stage.worker()).env("NOTIFY_SOCKET", &manager.address());
    let worker = stage.start(worker.env("WATCHDOG_USEC", "200000"));
    manager.until("WATCHDOG=1");
    assert_eq!(pages.get("/healthz").0, 200);
    let frozen = Process::freeze(worker.id(), DEADLINE);
    // What was sent before.
    while !manager.pending().is_empty() {}
    let stuck = "the main thread does not answer\n";
    // The answer takes ten times as long as the watchdog's limit.
    pages.wait("/healthz", |status, body| status == 503 && body == stuck);
    let sent = std::iter::repeat_with(|| manager.pending()).take_while(|lines| !lines.is_empty()).count();
    // The thread may have sent one more before its next system call.
    assert!(sent <= 1, "{sent} notices of a frozen worker");
    for page in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(pages.get(page), (503, stuck.to_owned()), "{page}");
    }
    assert_eq!((&pages.status()["state"], &pages.status()["healthy"]), (&"unhealthy".into(), &false.into()));

    drop(frozen);
    pages.wait("/healthz", |status, _| status == 200);
    manager.until("WATCHDOG=1");
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.stop(worker);
}
