//! Lost claims, as scripts.

use super::super::tests::*;
use super::super::{CancelReason, Effect, Event, Rules};
use super::*;
use crate::protocol::{Assignment, Incoming, Outgoing, RunState};

fn lost(id: &str) -> Effect {
    failed(id, FailureReason::Internal, MESSAGE)
}

/// A worker that has lost the claim of the run `a`, and is connected again.
fn reconnected(rules: Rules) -> Script {
    let mut script = Script::with_rest(rules);
    script.on(assignment_at("a", 10));
    assert_eq!(script.on(Event::LinkDown), [cancelled(1, CancelReason::ClaimLost)]);
    assert_eq!(script.finish(1, "a"), [unwanted(1)]);
    script.on(freed(1));
    assert_eq!(script.on(Event::LinkUp), []);
    script
}

#[test]
fn a_run_that_waits_for_a_lost_claim_is_failed() {
    let mut script = reconnected(RULES);
    assert_eq!(script.looked_up(), ["a"]);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [], "the run may have been assigned again");
    script.after_millis(500);
    // The control plane may not store this either.
    for delay in [1000, 2000, 4000] {
        assert_eq!(script.answer("a", RunState::InProgress, 11), [lost("a")]);
        script.after_millis(delay);
    }
    assert_eq!(script.answer("a", RunState::Failed, 12), []);
    assert!(script.coordinator.lost_claims.claims.is_empty());
}

#[test]
fn a_run_is_failed_once_the_dropped_job_has_cleaned_up() {
    let mut script = Script::with_rest(RULES);
    script.on(assignment_at("a", 10));
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [], "its job is still here");
    script.finish(1, "a");
    script.on(freed(1));
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [lost("a")]);
}

/// The claim was stored after the run was assigned again, and before that assignment arrives.
#[test]
fn a_run_whose_assignment_is_on_its_way_is_not_failed() {
    let mut script = reconnected(RULES);
    assert_eq!(script.answer("a", RunState::InProgress, 12), []);
    assert_eq!(script.on(assignment_at("a", 11)).len(), 2, "it is started and claimed");
    assert_eq!(script.after_millis(500), []);
    assert_eq!(script.looked_up(), [""; 0]);
}

#[test]
fn each_connection_is_given_time_for_an_assignment_on_its_way() {
    let mut script = reconnected(RULES);
    assert_eq!(script.answer("a", RunState::InProgress, 11), []);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::InProgress, 11), []);
    script.after_millis(1000);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [lost("a")]);
}

#[test]
fn a_run_that_does_not_wait_is_left_alone() {
    for state in
        [RunState::Queued, RunState::Pending, RunState::Failed, RunState::Succeeded, RunState::Cancelled]
    {
        let mut script = reconnected(RULES);
        assert_eq!(script.answer("a", state, 11), [], "{state}");
        assert!(script.coordinator.lost_claims.claims.is_empty());
    }
    let mut script = reconnected(RULES);
    assert_eq!(script.answer("a", RunState::Claimed, 11), [], "it was sent to a worker again");
    assert!(script.coordinator.lost_claims.claims.is_empty());
}

#[test]
fn a_claim_on_its_way_is_looked_up_again() {
    let mut script = reconnected(RULES);
    assert_eq!(script.answer("a", RunState::Claimed, 10), []);
    script.after_millis(499);
    assert_eq!(script.looked_up(), [""; 0]);
    script.after_millis(1);
    assert_eq!(script.answer("a", RunState::InProgress, 11), []);
    script.after(1);
    assert_eq!(script.fail("a", true), [], "no answer");
    script.after(2);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [lost("a")]);
}

#[test]
fn a_claim_is_forgotten_after_ten_minutes() {
    let mut script = reconnected(RULES);
    script.after(600);
    assert_eq!(script.answer("a", RunState::Claimed, 10), []);
    assert!(script.coordinator.lost_claims.claims.is_empty());
}

/// The run is here again when the answer comes: as a waiting assignment, as a job, or as a report.
#[test]
fn a_run_that_the_worker_has_again_is_not_failed() {
    let mut script = reconnected(RULES);
    let old = script.asked[0].clone();
    script.on(assignment_at("a", 20));
    assert_eq!(script.answer("a", RunState::InProgress, 11), []);
    // Even if the claim was not forgotten.
    let answer = |script: &mut Script| {
        script.coordinator.lost_claims.forget(&key("a"));
        script.coordinator.remember_claim(key("a"), Dialect::Old, None, script.now);
        script.coordinator.look_up_lost_claims(script.now);
        script.on(Event::Tick);
        script.answer("a", RunState::InProgress, 11)
    };
    assert_eq!(answer(&mut script), [], "a job");
    script.on(confirmed(4));
    script.answer("a", RunState::InProgress, 21);
    script.finish(2, "a");
    script.on(confirmed(5));
    assert_eq!(answer(&mut script), [], "a report");
    assert!(old.number > 0);
}

#[test]
fn with_a_shared_id_no_run_is_failed() {
    let script = reconnected(Rules { shared_id: true, ..RULES });
    assert_eq!(script.looked_up(), [""; 0]);
    let mut script = Script::untried(Rules { shared_id: true, ..RULES });
    script.on(Event::Unstarted(vec![(key("old"), Dialect::Old)]));
    script.on(Event::LinkUp);
    assert_eq!(script.looked_up(), [""; 0]);
}

#[test]
fn tasks_that_an_earlier_process_never_started_are_lost_claims() {
    let mut script = Script::untried(Rules { slots: 1, ..RULES });
    script.on(Event::Adopted(vec![]));
    let found = [("old", Dialect::Old), ("other", Dialect::Old), ("upstream", Dialect::Upstream)];
    let unstarted = Event::Unstarted(found.map(|(id, dialect)| (key(id), dialect)).to_vec());
    assert_eq!(script.on(unstarted), []);
    assert_eq!(script.looked_up(), [""; 0], "not connected");
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.looked_up(), ["old", "other"]);
    assert_eq!(script.answer("old", RunState::InProgress, 0), []);
    assert_eq!(script.answer("other", RunState::Failed, 0), []);
    script.after_millis(500);
    assert_eq!(script.answer("old", RunState::InProgress, 0), [lost("old")]);
    assert_eq!(script.after(3), [upstream_lost("upstream")], "its state would not tell");
}

/// Fails the run of the upstream dialect: it names no reason of ours.
fn upstream_lost(id: &str) -> Effect {
    let (key, message) = (key(id), MESSAGE.to_owned());
    let (dialect, reason) = (Dialect::Upstream, FailureReason::Internal);
    Effect::Send { seq: None, message: Outgoing::Failed { key, dialect, reason, message } }
}

/// A worker that has lost the claim of the run `a` of the upstream dialect, and is not connected.
fn upstream_disconnected() -> Script {
    let mut script = Script::with_rest(RULES);
    script.on(upstream("a"));
    assert_eq!(script.on(Event::LinkDown), [cancelled(1, CancelReason::ClaimLost)]);
    script
}

fn upstream(id: &str) -> Event {
    let assignment = Assignment { key: key(id), dialect: Dialect::Upstream, ..Assignment::default() };
    Event::Message(Incoming::Assignment(std::sync::Arc::new(assignment)))
}

#[test]
fn a_run_of_the_upstream_dialect_is_failed_a_while_after_the_reconnect() {
    let mut script = upstream_disconnected();
    script.after(60);
    script.on(Event::LinkUp);
    script.finish(1, "a");
    assert_eq!(script.after(2), []);
    assert_eq!(script.after(2), [], "the dropped job still cleans up");
    script.on(freed(1));
    assert_eq!(script.after(3), [upstream_lost("a")]);
    assert_eq!(script.after(30), []);
    // The message may have been lost with the connection.
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.after(3), [upstream_lost("a")]);
    script.after(61);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.after(3), []);
    assert_eq!(script.looked_up(), [""; 0]);
}

#[test]
fn a_run_of_the_upstream_dialect_that_is_assigned_again_is_started() {
    let mut script = upstream_disconnected();
    script.finish(1, "a");
    script.on(freed(1));
    script.on(Event::LinkUp);
    assert_eq!(script.on(upstream("a")).len(), 2, "claimed and started");
    assert_eq!(script.after(4), []);
}

#[test]
fn unstarted_tasks_that_the_late_sweep_finds_are_looked_up_at_once() {
    let mut script = Script::with_rest(RULES);
    assert_eq!(script.on(assignment_at("own", 10)).len(), 2);
    let found = [("old", Dialect::Old), ("own", Dialect::Old), ("upstream", Dialect::Upstream)];
    let unstarted = found.map(|(id, dialect)| (key(id), dialect)).to_vec();
    assert_eq!(script.on(Event::LateSwept { unstarted, again: false }), []);
    assert_eq!(script.looked_up(), ["old"], "this process has claimed the other one");
    assert_eq!(script.answer("old", RunState::InProgress, 0), []);
    script.after_millis(500);
    assert_eq!(script.answer("old", RunState::InProgress, 0), [lost("old")]);
    assert_eq!(script.after(3), [], "a run of the upstream dialect may have ended meanwhile");
}

#[test]
fn an_answer_without_a_connection_is_asked_for_again() {
    let mut script = reconnected(RULES);
    script.on(Event::LinkDown);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [], "nothing can be sent");
    script.on(Event::LinkUp);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.looked_up(), ["a"], "once");
    assert_eq!(script.answer("a", RunState::InProgress, 11), []);
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [lost("a")]);
}

#[test]
fn a_claim_that_was_never_sent_is_not_looked_up() {
    let mut script = Script::with_rest(RULES);
    let now = script.now;
    script.coordinator.handle(assignment_at("a", 10), now);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.looked_up(), [""; 0]);
}

#[test]
fn the_memory_of_lost_claims_is_bounded() {
    let mut script = Script::with_rest(RULES);
    let now = script.now;
    for number in 0..2000 {
        script.coordinator.remember_claim(key(&number.to_string()), Dialect::Old, None, now);
    }
    assert_eq!(script.coordinator.lost_claims.claims.len(), MAX_CLAIMS);
    assert!(script.coordinator.lost_claims.contains(&key("1999")));
    assert!(!script.coordinator.lost_claims.contains(&key("975")));
}
