//! Assignments of the upstream dialect.

use super::tests::*;
use super::*;
use crate::protocol::{Assignment, Dialect, Invalid};

fn started_upstream(job: u64, id: &str) -> Effect {
    let assignment = Assignment { key: key(id), dialect: Dialect::Upstream, ..Assignment::default() };
    Effect::Start { job: JobId(job), work: Work::Run(Arc::new(assignment)) }
}

fn claimed_upstream(seq: u64, id: &str) -> Effect {
    let message = Outgoing::Claimed { key: key(id), dialect: Dialect::Upstream };
    Effect::Send { seq: Some(seq), message }
}

fn full(id: &str) -> Effect {
    let reason = "worker at maximum concurrency".to_owned();
    Effect::Send {
        seq: None,
        message: Outgoing::Rejected { key: key(id), dialect: Dialect::Upstream, reason },
    }
}

fn failed_upstream(id: &str, reason: FailureReason, message: &str) -> Effect {
    let (dialect, message) = (Dialect::Upstream, message.to_owned());
    Effect::Send { seq: None, message: Outgoing::Failed { key: key(id), dialect, reason, message } }
}

#[test]
fn a_full_worker_gives_the_run_back_at_once() {
    let mut script = Script::connected(1);
    assert_eq!(script.on(upstream("a/1")), [started_upstream(0, "a/1"), claimed_upstream(1, "a/1")]);
    assert_eq!(script.on(upstream("b/1")), [full("b/1")]);
    script.finish(0, "a/1");
    script.on(confirmed(2));
    assert_eq!(script.on(upstream("b/1")), [full("b/1")], "the container is being removed");
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(upstream("b/1")), [started_upstream(1, "b/1"), claimed_upstream(3, "b/1")]);
    assert_eq!(script.assign("old"), [], "it waits");
    script.finish(1, "b/1");
    script.on(confirmed(4));
    assert_eq!(script.on(freed(1)), [started(2, "old"), claimed(Some(5), "old")]);
}

/// The check of the disk takes a moment, in which further assignments come.
#[test]
fn those_that_wait_for_the_check_of_the_disk_count() {
    let mut script = Script::with(Rules { slots: 2, check_disk: true, ..RULES });
    script.on(Event::LinkUp);
    assert_eq!(script.on(upstream("a")), [Effect::CheckDisk]);
    assert_eq!(script.on(upstream("b")), []);
    assert_eq!(script.on(upstream("c")), [full("c")]);
    assert_eq!(script.on(Event::DiskChecked { low: None }).len(), 4);
}

#[test]
fn a_claim_is_sent_once_on_all_connections() {
    let mut script = Script::connected(2);
    script.on(upstream("a/1"));
    assert_eq!(script.on(confirmed(1)), [release(0)]);
    assert_eq!(script.on(upstream("a/1")), []);
    script.on(Event::LinkDown);
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.on(upstream("a/1")), []);
    assert_eq!(script.coordinator.status().tasks, 1);
}

#[test]
fn a_task_without_execution_ids_starts_again_after_its_end() {
    let mut script = Script::connected(2);
    script.on(upstream("a"));
    script.finish(0, "a");
    assert_eq!(script.on(upstream("a")), [], "its report is on its way");
    script.on(confirmed(2));
    assert_eq!(script.on(upstream("a")), [], "it waits until the former container is removed");
    assert_eq!(script.on(freed(0)), [started_upstream(1, "a"), claimed_upstream(3, "a")]);
}

#[test]
fn answers_without_a_slot_have_the_dialect() {
    let mut script = Script::with(Rules { check_disk: true, ..RULES });
    script.on(Event::LinkUp);
    script.on(upstream("a/1"));
    let message = "cancelled before it was started";
    assert_eq!(script.on(cancel("a")), [failed_upstream("a/1", FailureReason::TaskCancelled, message)]);
    let invalid = Invalid { key: Some(key("b/1")), dialect: Dialect::Upstream, message: "m".into() };
    assert_eq!(script.on(Event::Invalid(invalid)), {
        [failed_upstream("b/1", FailureReason::InvalidAssignment, "m")]
    });
}

#[test]
fn an_adopted_task_keeps_its_dialect() {
    let mut script = Script::new(1);
    let adopted = AdoptedTask { dialect: Dialect::Upstream, ..AdoptedTask::clone(&adopted_task("a/1")) };
    script.on(Event::Adopted(vec![Arc::new(adopted)]));
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.on(upstream("a/1")), []);
    assert_eq!(script.on(upstream("b/1")), [full("b/1")]);
    assert_eq!(script.finish(0, "a/1"), [reported(Some(1), "a/1")]);
    assert_eq!(script.on(confirmed(1)), [delivered(0)], "no look-up");
}
