//! Decisions as scripts: events in, effects out, and a clock that the script sets.

pub(super) use super::script::*;
use super::*;
use crate::exit::Exit;
use crate::protocol::{Assignment, Dialect, Invalid};

#[test]
fn a_task_from_its_assignment_to_a_free_slot() {
    let mut script = Script::connected(1);
    assert_eq!(script.assign("a"), [started(0, "a"), claimed(Some(1), "a")]);
    assert_eq!(script.on(confirmed(1)), [release(0)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    assert_eq!(script.on(confirmed(1)), []);
    assert_eq!(script.on(confirmed(2)), [delivered(0)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.coordinator.deadline(), None);
    assert_eq!(script.assign("a"), [started(1, "a"), claimed(Some(3), "a")]);
}

#[test]
fn a_task_is_claimed_only_when_a_slot_is_free_for_it() {
    let mut script = Script::connected(2);
    assert_eq!(script.assign("a").len(), 2);
    assert_eq!(script.assign("b").len(), 2);
    assert_eq!(script.assign("c"), []);
    assert_eq!(script.assign("d"), []);
    // An unconfirmed report holds its slot, which bounds the reports that wait.
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.on(confirmed(3)), [delivered(0), release(1)]);
    assert_eq!(script.on(freed(0)), [started(2, "c"), claimed(Some(4), "c")]);
}

#[test]
fn one_confirmation_covers_all_that_was_sent_before() {
    let mut script = Script::connected(3);
    for id in ["a", "b", "c"] {
        script.assign(id);
    }
    assert_eq!(script.finish(1, "b"), [reported(Some(4), "b")]);
    assert_eq!(script.on(confirmed(2)), [release(0)]);
    assert_eq!(script.on(confirmed(4)), [delivered(1), release(2)]);
    assert_eq!(script.on(confirmed(4)), []);
}

#[test]
fn the_backlog_is_bounded_in_number_and_time() {
    let mut script = Script::connected(1);
    script.assign("running");
    for waiting in 0..BACKLOG {
        assert_eq!(script.assign(&waiting.to_string()), []);
    }
    assert_eq!(script.assign("more"), [rejected("more", "the worker's backlog is full")]);
    assert_eq!(script.coordinator.deadline(), Some(script.now + CLAIM_HOLD));
    assert_eq!(script.after(59), []);
    let given_back = script.after(1);
    assert_eq!(given_back.len(), BACKLOG);
    assert_eq!(given_back[0], rejected("0", "no slot was free in time"));
    assert_eq!(script.coordinator.deadline(), None);
    // The same task may come again.
    script.finish(0, "running");
    script.on(confirmed(2));
    script.on(freed(0));
    assert_eq!(script.assign("0"), [started(1, "0"), claimed(Some(3), "0")]);
}

#[test]
fn a_repeated_assignment_is_answered_and_not_started_again() {
    let mut script = Script::connected(1);
    script.assign("a");
    assert_eq!(script.assign("a"), [claimed(None, "a")]);
    script.assign("b");
    assert_eq!(script.assign("b"), []);
    script.finish(0, "a");
    assert_eq!(script.assign("a"), [], "the report was sent already");
    script.on(confirmed(2));
    assert_eq!(script.assign("a"), [reported(None, "a")]);
    assert_eq!(script.on(freed(0)), [started(1, "b"), claimed(Some(3), "b")]);
    assert_eq!(script.on(freed(1)).len(), 1, "the failure of a job without a report");
    assert_eq!(script.coordinator.jobs.len(), 0);
}

#[test]
fn a_lost_connection_drops_the_backlog_and_unconfirmed_claims() {
    let mut script = Script::connected(2);
    script.assign("confirmed");
    script.on(confirmed(1));
    script.assign("unconfirmed");
    script.assign("waiting");
    assert_eq!(script.on(Event::LinkDown), [cancelled(1, CancelReason::ClaimLost)]);
    assert_eq!(script.coordinator.deadline(), None);
    // Nothing is sent without a connection, and the dropped task is never reported.
    assert_eq!(script.finish(0, "confirmed"), []);
    assert_eq!(script.finish(1, "unconfirmed"), [unwanted(1)]);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(3), "confirmed")]);
    // The run comes back before the former execution is cleaned up, and waits for that.
    assert_eq!(script.assign("unconfirmed"), []);
    assert_eq!(script.on(freed(1)), [started(2, "unconfirmed"), claimed(Some(4), "unconfirmed")]);
    assert_eq!(script.on(confirmed(4)), [delivered(0), release(2)]);
}

#[test]
fn a_report_is_sent_again_until_it_is_confirmed() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(confirmed(1));
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    for round in 0..5 {
        assert_eq!(script.on(Event::LinkDown), []);
        assert_eq!(script.on(Event::LinkUp), [reported(Some(3 + round), "a")]);
    }
    // A number of an earlier connection confirms nothing on this one.
    assert_eq!(script.on(confirmed(6)), []);
    assert_eq!(script.on(confirmed(7)), [delivered(0)]);
}

#[test]
fn a_report_whose_claim_was_not_confirmed_is_not_sent_on_another_connection() {
    let mut script = Script::connected(1);
    script.assign("a");
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    assert_eq!(script.on(Event::LinkDown), [unwanted(0)]);
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.assign("a"), []);
    assert_eq!(script.on(freed(0)), [started(1, "a"), claimed(Some(3), "a")]);
}

#[test]
fn a_cancel_in_every_phase() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.assign("b");
    let answer = failed("b", FailureReason::TaskCancelled, "cancelled before it was started");
    assert_eq!(script.on(cancel("b")), [answer]);
    assert_eq!(script.on(cancel("a")), [cancelled(0, CancelReason::Requested)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    assert_eq!(script.on(cancel("a")), []);
    script.on(confirmed(2));
    assert_eq!(script.on(cancel("a")), []);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(cancel("a")), []);
    assert_eq!(script.on(cancel("nobody")), []);
}

#[test]
fn an_invalid_assignment_fails_its_task_unless_the_worker_has_it() {
    let invalid = |id: Option<&str>| {
        Event::Invalid(Invalid {
            key: id.map(key),
            dialect: Dialect::Old,
            message: "data.task: is missing".into(),
        })
    };
    let mut script = Script::connected(1);
    assert_eq!(script.on(invalid(None)), []);
    let answer = failed("x", FailureReason::InvalidAssignment, "data.task: is missing");
    assert_eq!(script.on(invalid(Some("x"))), [answer]);
    script.assign("a");
    script.assign("b");
    assert_eq!(script.on(invalid(Some("a"))), []);
    assert_eq!(script.on(invalid(Some("b"))), []);
    assert_eq!(script.on(Event::Message(Incoming::Unknown { kind: "news".into() })), []);
}

#[test]
fn log_lines_name_the_task_and_an_id_cannot_forge_a_line() {
    let mut script = Script::connected(1);
    let log = script.log(assignment("a b\nERROR forged"));
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.lines().all(|line| line.contains(r#"task="a b\nERROR forged""#)), "{log}");
    assert!(script.log(cancel("gone")).contains("task=gone"));
}

#[test]
fn a_job_without_a_report_fails_its_task() {
    let mut script = Script::connected(1);
    script.assign("a");
    let answer = failed("a", FailureReason::Internal, "the worker failed while it ran the task");
    assert_eq!(script.on(freed(0)), [answer]);
}

#[test]
fn adopted_tasks_come_before_new_ones() {
    let mut script = Script::new(1);
    let found = Event::Adopted(vec![adopted_task("a"), adopted_task("b")]);
    assert_eq!(script.on(found), [adopted(0, "a"), adopted(1, "b")], "also beyond the slots");
    assert_eq!(script.on(Event::LinkUp), [claimed(None, "a"), claimed(None, "b")]);
    assert_eq!(script.assign("a"), [claimed(None, "a")], "it is adopted");
    assert_eq!(script.assign("c"), []);
    assert_eq!(script.on(cancel("b")), [cancelled(1, CancelReason::Requested)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(1), "a")]);
    assert_eq!(script.on(confirmed(1)), [delivered(0)]);
    assert_eq!(script.on(freed(0)), [], "the other task has the only slot");
    assert_eq!(script.on(Event::LinkDown), [], "an earlier process claimed it");
    assert_eq!(script.finish(1, "b"), []);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(2), "b")]);
}

#[test]
fn the_backlog_takes_32_mib_of_assignments() {
    let large = |id: &str, mib: usize| {
        let args = vec!["x".repeat(mib << 20)];
        let assignment = Assignment { key: key(id), additional_oz_args: args, ..Assignment::default() };
        Event::Message(Incoming::Assignment(Arc::new(assignment)))
    };
    let mut script = Script::connected(1);
    script.assign("running");
    assert_eq!(script.on(large("a", 15)), []);
    assert_eq!(script.on(large("b", 15)), []);
    assert_eq!(script.on(large("c", 15)), [rejected("c", "the worker's backlog is full")]);
    assert_eq!(script.assign("small"), []);
    assert_eq!(script.on(cancel("a")).len(), 1);
    assert_eq!(script.on(large("d", 15)), []);
}

#[test]
fn a_flood_of_messages_does_not_fill_the_log() {
    let invalid = |id: Option<&str>| {
        Event::Invalid(Invalid {
            key: id.map(key),
            dialect: Dialect::Old,
            message: "data.task: is missing".into(),
        })
    };
    let unknown = || Event::Message(Incoming::Unknown { kind: "news".into() });
    let floods: [(&str, &dyn Fn() -> Event); 7] = [
        ("cancel ignored", &|| cancel("nobody")),
        ("message ignored", &unknown),
        ("message invalid", &|| invalid(None)),
        ("message invalid", &|| Event::Binary { bytes: 1 }),
        ("assignment invalid", &|| invalid(Some("x"))),
        ("assignment repeated", &|| assignment("a")),
        ("task rejected", &|| Event::Message(Incoming::Assignment(Arc::default()))),
    ];
    for (line, flood) in floods {
        let mut script = Script::connected(1);
        script.assign("a");
        (0..70).for_each(|n| drop(script.assign(&n.to_string())));
        let lines: usize = (0..2000).map(|_| script.log(flood()).lines().count()).sum();
        assert!((1..=1000).contains(&lines), "{line}: {lines}");
        assert!(script.coordinator.deadline().is_some(), "{line}");
        script.now += Duration::from_secs(10);
        let left_out = script.log(Event::Tick);
        assert!(left_out.contains(&format!("log lines left out line=\"{line}\" count=")), "{left_out}");
    }
}

#[test]
fn a_run_is_claimed_only_once_its_job_has_a_thread() {
    let mut script = Script::connected(1);
    script.on(assignment("busy"));
    script.assign("a");
    script.assign("b");
    let no_thread = |job| Event::ThreadStarted { job: JobId(job), error: Some("EAGAIN".to_owned()) };
    let (now, reason) = (script.now, "no thread for the task: EAGAIN");
    let mut effects = script.coordinator.handle(freed(0), now);
    effects.retain(|effect| !matches!(effect, Effect::Log(..)));
    assert_eq!(effects[1..], [started(1, "a")], "it is not claimed yet");
    assert_eq!(script.on(no_thread(1)), [rejected("a", reason), started(2, "b"), claimed(Some(2), "b")]);
    assert_eq!(script.on(no_thread(1)), [], "the job is gone");
    assert_eq!(script.coordinator.status().tasks, 1);
}

#[test]
fn a_run_without_file_descriptors_is_given_back_unclaimed() {
    let mut script = Script::connected(1);
    let now = script.now;
    script.coordinator.handle(assignment("a"), now);
    let none = || Event::NoDescriptors { job: JobId(0), error: "EMFILE".to_owned() };
    assert_eq!(script.on(none()), [rejected("a", "no file descriptors for the task: EMFILE")]);
    assert_eq!(script.on(none()), [], "the job is gone");
    script.coordinator.handle(assignment("b"), now);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    let gone = Event::NoDescriptors { job: JobId(1), error: "EMFILE".to_owned() };
    assert_eq!(script.on(gone), [], "the control plane has taken it back");
}

#[test]
fn a_run_that_was_taken_back_before_its_job_had_a_thread_is_neither_claimed_nor_rejected() {
    for error in [None, Some("EAGAIN".to_owned())] {
        let mut script = Script::connected(1);
        let now = script.now;
        script.coordinator.handle(assignment("a"), now);
        assert_eq!(script.on(Event::LinkDown), [cancelled(0, CancelReason::ClaimLost)]);
        script.on(Event::LinkUp);
        assert_eq!(script.on(Event::ThreadStarted { job: JobId(0), error }), []);
    }
}

#[test]
fn without_a_thread_for_an_adopted_task_the_worker_ends() {
    let mut script = Script::new(1);
    let now = script.now;
    script.coordinator.handle(Event::Adopted(vec![adopted_task("a")]), now);
    let no_thread = Event::ThreadStarted { job: JobId(0), error: Some("EAGAIN".to_owned()) };
    assert_eq!(script.on(no_thread), [Effect::Exit(Exit::Failure)]);
}
