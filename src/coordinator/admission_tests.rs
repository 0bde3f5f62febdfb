//! Assignments that the operator does not admit, as scripts.

use super::tests::*;
use super::*;
use crate::docker::Reference;
use crate::policy::Glob;
use crate::protocol::{Assignment, Dialect};

const REASON: &str = "data.docker_image: evil.example/x:latest matches no --allow-image of the worker";

fn strict(slots: usize) -> Script {
    let admission = Admission {
        images: vec![Glob::image("ghcr.io/acme/*").unwrap()],
        variables: Vec::new(),
        denied_variables: vec![Glob::variable("LD_*").unwrap()],
        default_image: Reference::parse("ghcr.io/acme/base").unwrap(),
        replaces_sidecar: false,
    };
    let mut script = Script::connected(slots);
    let coordinator = std::mem::replace(&mut script.coordinator, Coordinator::new(RULES));
    script.coordinator = coordinator.with_admission(admission);
    script
}

fn of_image(id: &str, image: &str, dialect: Dialect) -> Event {
    let assignment =
        Assignment { key: key(id), docker_image: Some(image.into()), dialect, ..Assignment::default() };
    Event::Message(Incoming::Assignment(Arc::new(assignment)))
}

fn evil(id: &str) -> Event {
    of_image(id, "evil.example/x", Dialect::Old)
}

#[test]
fn a_run_that_is_not_admitted_is_failed_without_a_claim() {
    let mut script = strict(1);
    let refused = failed("a", FailureReason::InvalidAssignment, REASON);
    assert_eq!(script.on(evil("a")), std::slice::from_ref(&refused));
    assert_eq!(script.on(evil("a")), [refused], "it may come again");
    assert_eq!(script.coordinator.tally.counts(), [("policy", 2)]);
    assert_eq!(script.coordinator.deadline(), None);
    assert_eq!(script.assign("a"), [started(0, "a"), claimed(Some(1), "a")]);
    let log = script.log(evil("b"));
    assert_eq!(log, format!("WARN task refused task=b reason=\"{REASON}\""));
    assert!(script.log(of_image("c", "ghcr.io/acme/x", Dialect::Old)).contains("assignment received task=c"));
}

#[test]
fn it_is_failed_also_where_others_would_be_given_back() {
    let mut script = strict(1);
    script.assign("a");
    let [effect] = script.on(of_image("b/1", "evil.example/x", Dialect::Upstream)).try_into().unwrap();
    let (reason, message) = (FailureReason::InvalidAssignment, REASON.to_owned());
    let message = Outgoing::Failed { key: key("b/1"), dialect: Dialect::Upstream, reason, message };
    assert_eq!(effect, Effect::Send { seq: None, message });
    script.on(Event::Signal);
    assert_eq!(script.on(evil("c")), [failed("c", FailureReason::InvalidAssignment, REASON)]);
}

#[test]
fn a_waiting_assignment_is_not_replaced_by_one_that_is_not_admitted() {
    let mut script = strict(1);
    script.assign("a");
    assert_eq!(script.assign("b"), []);
    assert_eq!(script.on(evil("b")), [failed("b", FailureReason::InvalidAssignment, REASON)]);
    script.finish(0, "a");
    script.on(confirmed(2));
    assert_eq!(script.on(freed(0)), [], "it does not wait any more");
}

#[test]
fn a_task_that_runs_is_not_affected() {
    let mut script = strict(1);
    script.assign("a");
    script.on(confirmed(1));
    assert_eq!(script.on(evil("a")), [claimed(None, "a")]);
    assert_eq!(script.coordinator.tally.counts(), [("claimed", 1)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
}

#[test]
fn without_a_connection_nothing_is_answered() {
    let mut script = strict(1);
    script.on(Event::LinkDown);
    assert_eq!(script.on(evil("a")), []);
}

#[test]
fn a_flood_of_refused_runs_does_not_fill_the_log() {
    let mut script = strict(1);
    let lines: usize = (0..2000).map(|_| script.log(evil("a")).lines().count()).sum();
    assert_eq!(lines, 500);
}
