//! Several executions of one task.

use super::tests::*;
use super::*;
use crate::protocol::{Assignment, Dialect, Invalid};

#[test]
fn a_second_execution_of_a_task_starts_while_the_first_runs() {
    let mut script = Script::connected(2);
    assert_eq!(script.assign("t/1"), [started(0, "t/1"), claimed(Some(1), "t/1")]);
    assert_eq!(script.assign("t/2"), [started(1, "t/2"), claimed(Some(2), "t/2")]);
    assert_eq!(script.on(confirmed(2)), [release(0), release(1)]);
    assert_eq!(script.finish(1, "t/2"), [reported(Some(3), "t/2")]);
    assert_eq!(script.on(confirmed(3)), [delivered(1)]);
    assert_eq!(script.on(freed(1)), []);
    assert_eq!(
        script.assign("t"),
        [started(2, "t"), claimed(Some(4), "t")],
        "one without an id is another one"
    );
    assert_eq!(script.finish(0, "t/1"), [reported(Some(5), "t/1")]);
}

#[test]
fn the_same_execution_is_answered_with_its_own_state() {
    let mut script = Script::connected(2);
    script.assign("t/1");
    script.assign("t/2");
    script.assign("t/3");
    assert_eq!(script.assign("t/1"), [claimed(None, "t/1")]);
    assert_eq!(script.assign("t/3"), [], "it waits");
    script.finish(0, "t/1");
    script.on(confirmed(3));
    assert_eq!(script.assign("t/1"), [reported(None, "t/1")]);
    assert_eq!(script.assign("t/2"), [claimed(None, "t/2")]);
    assert_eq!(script.on(freed(0)), [started(2, "t/3"), claimed(Some(4), "t/3")]);
    assert!(script.log(assignment("t/2")).contains("assignment repeated task=t execution=2"));
}

#[test]
fn a_cancel_ends_the_execution_that_it_names_or_else_all() {
    let answer = |id| failed(id, FailureReason::TaskCancelled, "cancelled before it was started");
    let mut script = Script::connected(3);
    for id in ["t/1", "t/2", "other/1", "t/3", "t/4"] {
        script.assign(id);
    }
    assert_eq!(script.on(cancel("t/none")), []);
    assert_eq!(script.on(cancel("t/2")), [cancelled(1, CancelReason::Requested)]);
    assert_eq!(script.on(cancel("t/3")), [answer("t/3")]);
    assert_eq!(
        script.on(cancel("t")),
        [answer("t/4"), cancelled(0, CancelReason::Requested), cancelled(1, CancelReason::Requested)]
    );
    assert_eq!(script.coordinator.status().tasks, 3);
    assert_eq!(script.finish(2, "other/1"), [reported(Some(4), "other/1")]);
}

#[test]
fn each_execution_loses_its_own_claim() {
    let mut script = Script::connected(2);
    script.assign("t/1");
    script.on(confirmed(1));
    script.assign("t/2");
    assert_eq!(script.on(Event::LinkDown), [cancelled(1, CancelReason::ClaimLost)]);
    script.on(Event::LinkUp);
    assert_eq!(script.finish(1, "t/2"), [unwanted(1)]);
    assert_eq!(script.finish(0, "t/1"), [reported(Some(3), "t/1")]);
}

#[test]
fn an_adopted_execution_is_not_started_again_and_another_one_is() {
    let mut script = Script::new(2);
    assert_eq!(script.on(Event::Adopted(vec![adopted_task("t/1")])), [adopted(0, "t/1")]);
    script.on(Event::LinkUp);
    assert_eq!(script.assign("t/1"), [claimed(None, "t/1")]);
    assert_eq!(script.assign("t/2"), [started(1, "t/2"), claimed(Some(1), "t/2")]);
}

#[test]
fn an_invalid_assignment_fails_no_execution_that_it_may_mean() {
    let invalid =
        |id: &str| Event::Invalid(Invalid { key: Some(key(id)), dialect: Dialect::Old, message: "m".into() });
    let mut script = Script::connected(1);
    script.assign("t/1");
    script.assign("t/2");
    assert_eq!(script.on(invalid("t/1")), []);
    assert_eq!(script.on(invalid("t/2")), []);
    assert_eq!(script.on(invalid("t")), [], "its execution may be unreadable");
    assert_eq!(script.on(invalid("t/3")), [failed("t/3", FailureReason::InvalidAssignment, "m")]);
}

#[test]
fn a_guessed_dialect_is_logged_once() {
    let guessed = |id| {
        let assignment = Assignment { key: key(id), guess: Some("odd"), ..Assignment::default() };
        Event::Message(Incoming::Assignment(Arc::new(assignment)))
    };
    let mut script = Script::connected(9);
    for event in [assignment("t"), upstream("u"), upstream("u/1")] {
        assert!(!script.log(event).contains("dialect assumed"));
    }
    let log = script.log(guessed("t/1"));
    assert!(log.contains("WARN dialect assumed task=t execution=1 dialect=old reason=odd"), "{log}");
    assert!(!script.log(guessed("t/2")).contains("dialect assumed"));
}

/// Each message would repeat the ids.
#[test]
fn an_invalid_assignment_with_a_huge_id_is_logged_and_not_answered() {
    let invalid = |key: ExecutionKey| {
        Event::Invalid(Invalid { key: Some(key), dialect: Dialect::Old, message: "m".into() })
    };
    let huge = "i".repeat(64 * 1024 + 1);
    let mut script = Script::connected(1);
    for key in [ExecutionKey::new(huge.as_str(), None), ExecutionKey::new("t", Some(&huge))] {
        assert_eq!(script.on(invalid(key.clone())), []);
        let log = script.log(invalid(key));
        assert!(
            log.starts_with("WARN assignment not answered task=") && log.contains(" error=m reason="),
            "{log}"
        );
        assert!(log.len() < 1000, "{log}");
    }
    let longest = ExecutionKey::new("i".repeat(64 * 1024), None);
    assert_eq!(script.on(invalid(longest)).len(), 1, "it is failed");
}
