//! Refused attempts to connect, as scripts.

use std::time::Duration;

use super::super::tests::*;
use super::super::{Effect, Event, LinkState};
use super::Refusal;
use crate::exit::Exit;

fn refused(reason: &str) -> Event {
    let (reason, retry_in) = (reason.to_owned(), Some(Duration::from_secs(1)));
    Event::LinkRefused(Refusal { reason, body: "<h1>".to_owned(), may_pass: false, retry_in })
}

fn date() -> Event {
    let reason = "the certificate has expired".to_owned();
    Event::LinkRefused(Refusal { reason, body: String::new(), may_pass: true, retry_in: None })
}

#[test]
fn a_worker_that_was_never_connected_and_has_no_task_ends() {
    let mut script = Script::new(1);
    assert_eq!(script.on(refused("404")), [Effect::StopWaiting, Effect::Exit(Exit::Refused)]);
    let mut script = Script::new(1);
    script.on(Event::Adopted(Vec::new()));
    script.on(Event::LinkFailed);
    let log = script.log(refused("404"));
    assert!(log.starts_with("ERROR link ended error=404 body=<h1>\n"), "{log}");
}

#[test]
fn a_worker_that_was_connected_keeps_its_tasks_and_retries() {
    let mut script = Script::connected(2);
    script.assign("a");
    script.on(confirmed(1));
    script.on(Event::LinkDown);
    for _ in 0..100 {
        assert_eq!(script.on(refused("404")), []);
    }
    assert_eq!(script.coordinator.status().refusal.as_deref(), Some("404"));
    script.on(Event::LinkUp);
    assert_eq!(script.coordinator.status().refusal, None);
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
}

#[test]
fn a_worker_without_tasks_that_was_connected_retries() {
    let mut script = Script::connected(1);
    script.on(Event::LinkDown);
    assert_eq!(script.on(refused("401")), []);
}

#[test]
fn a_worker_that_adopted_a_task_retries() {
    let mut script = Script::new(1);
    script.on(Event::Adopted(vec![adopted_task("a")]));
    assert_eq!(script.on(refused("404")), []);
    assert_eq!(script.coordinator.status().link, LinkState::Away);
    assert_eq!(script.finish(0, "a"), []);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(1), "a")]);
}

#[test]
fn the_dates_of_a_certificate_never_end_the_worker() {
    let mut script = Script::new(1);
    for _ in 0..100 {
        assert_eq!(script.on(date()), []);
    }
    assert_eq!(script.on(Event::LinkUp), []);
}

#[test]
fn each_reason_is_a_warning_once_an_hour() {
    let mut script = Script::connected(1);
    script.on(Event::LinkDown);
    let log = script.log(refused("404"));
    assert_eq!(log, "WARN link refused reason=404 body=<h1> retry_in=1.0s tasks=0");
    assert!(script.log(refused("404")).starts_with("DEBUG link refused reason=404"));
    assert!(script.log(refused("401")).starts_with("WARN link refused reason=401"));
    script.on(Event::LinkUp);
    script.on(Event::LinkDown);
    script.after(3599);
    assert!(script.log(refused("404")).starts_with("DEBUG "));
    script.after(1);
    assert!(script.log(refused("404")).starts_with("WARN "));
}

#[test]
fn another_failure_replaces_the_refusal_in_the_status() {
    let mut script = Script::connected(1);
    script.on(Event::LinkDown);
    script.on(refused("404"));
    script.on(Event::LinkFailed);
    assert_eq!(script.coordinator.status().refusal, None);
}

#[test]
fn a_refusal_during_a_stop_does_not_change_it() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(confirmed(1));
    script.on(Event::Signal);
    script.on(Event::LinkDown);
    assert_eq!(script.on(refused("404")), []);
    script.finish(0, "a");
    assert_eq!(script.on(Event::LinkUp), [reported(Some(2), "a")]);
}
