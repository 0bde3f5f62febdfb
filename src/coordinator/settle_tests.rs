//! Received reports, as scripts. The first job is number 1, its claim number 3 and its report number 4.

use super::super::tests::*;
use super::super::{Event, Rules};
use super::*;
use crate::exit::Exit;
use crate::protocol::{Dialect, RunState};
use crate::sys::cancel::CancelReason;

/// A worker with one slot that has sent the report of the run `a`, which was assigned at 10 s. The control plane has received
/// it.
fn with_report() -> Script {
    let mut script = Script::with_rest(RULES);
    report_of(&mut script, 1, "a", 3);
    script
}

/// Runs one task to the confirmation of its report.
fn report_of(script: &mut Script, job: u64, id: &str, seq: u64) {
    script.on(assignment_at(id, 10));
    script.on(confirmed(seq));
    assert_eq!(script.answer(id, RunState::InProgress, 11), [release(job)]);
    assert_eq!(script.finish(job, id), [reported(Some(seq + 1), id)]);
    assert_eq!(script.on(confirmed(seq + 1))[0], received(job));
    script.on(freed(job));
}

#[test]
fn a_report_is_settled_when_the_run_has_ended() {
    for state in [RunState::Succeeded, RunState::Failed, RunState::Cancelled] {
        let mut script = with_report();
        assert_eq!(script.after_millis(499), []);
        assert_eq!(script.looked_up(), [""; 0]);
        assert_eq!(script.after_millis(1), []);
        assert_eq!(script.looked_up(), ["a"]);
        assert_eq!(script.answer("a", state, 12), [clean_up(1, "a")], "{state}");
        assert!(!script.coordinator.settling.is_empty());
        assert_eq!(script.on(cleaned_up(1)), []);
        assert!(script.coordinator.settling.is_empty());
    }
}

#[test]
fn a_report_that_is_not_stored_is_sent_again() {
    for (state, changed) in [(RunState::InProgress, 11), (RunState::Claimed, 10)] {
        let mut script = with_report();
        script.after_millis(500);
        for delay in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(script.answer("a", state, changed), [reported(None, "a")], "{state}");
            // Up to a fifth shorter.
            assert_eq!(script.after_millis(delay * 799), []);
            assert_eq!(script.looked_up(), [""; 0], "{delay}");
            script.after_millis(delay * 201);
            assert_eq!(script.looked_up(), ["a"], "{delay}");
        }
        assert_eq!(script.answer("a", RunState::Succeeded, 12), [clean_up(1, "a")]);
    }
}

#[test]
fn a_report_of_someone_else_s_run_is_settled_with_a_warning() {
    for (state, changed) in [(RunState::Queued, 9), (RunState::Pending, 12), (RunState::Claimed, 11)] {
        let mut script = with_report();
        script.after_millis(500);
        let number = script.asked[0].number;
        let run = RunView { state, updated_at: Some(at(changed)) };
        let log = script.log(Event::LookedUp((number, Ok(run))));
        let expected =
            format!("WARN report not wanted task=a reason=\"the run was taken back\" state={state}");
        assert_eq!(log, expected);
        assert!(script.coordinator.settling.is_removing(JobId(1)));
    }
}

#[test]
fn without_an_answer_a_report_is_kept_for_ten_minutes() {
    let mut script = with_report();
    let end = script.now + Duration::from_secs(600);
    script.after_millis(500);
    while script.now < end {
        let left = end - script.now;
        let delay = script.coordinator.deadline().map(|at| at - script.now).unwrap();
        if script.looked_up() == ["a"] {
            assert_eq!(script.fail("a", false), []);
        } else if delay < left {
            script.now += delay;
            assert_eq!(script.on(Event::Tick), []);
        } else {
            break;
        }
    }
    script.now = end;
    let log = script.log(Event::Tick);
    assert_eq!(log, "WARN report settled by its receipt task=a reason=\"the look-ups got no answer\"");
    assert!(script.coordinator.settling.is_removing(JobId(1)));
}

#[test]
fn an_answer_starts_the_ten_minutes_anew() {
    let mut script = with_report();
    script.after(599);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [reported(None, "a")]);
    assert_eq!(script.after(599), []);
    assert_eq!(script.after(1), [clean_up(1, "a")]);
}

#[test]
fn a_missing_report_is_sent_on_a_new_connection() {
    let mut script = with_report();
    script.on(Event::LinkDown);
    assert_eq!(script.on(Event::LinkUp), [], "it may be stored");
    script.on(Event::LinkDown);
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [], "nothing can be sent");
    assert_eq!(script.on(Event::LinkUp), [reported(None, "a")]);
}

/// A worker whose first look-up, that of the report of `a`, has failed.
fn with_a_failed_look_up() -> Script {
    let mut script = Script::untried(Rules { slots: 3, ..RULES });
    script.on(Event::Adopted(vec![adopted_task("a"), adopted_task("b"), adopted_task("c")]));
    script.on(Event::LinkUp);
    script.finish(0, "a");
    assert_eq!(script.on(confirmed(1)), [received(0)]);
    script.on(freed(0));
    script.after_millis(500);
    assert_eq!(script.fail("a", true), [], "it may be the only one that fails");
    script
}

#[test]
fn a_first_look_up_that_fails_costs_no_report() {
    let mut script = with_a_failed_look_up();
    script.finish(1, "b");
    assert_eq!(script.on(confirmed(2)), [received(1)]);
    script.on(freed(1));
    script.after(1);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [reported(None, "a")], "it was not stored");
    script.after(2);
    assert_eq!(script.answer("b", RunState::Succeeded, 12), [clean_up(1, "b")]);
}

/// As a control plane that has no look-ups answers.
#[test]
fn after_three_answers_without_a_run_the_confirmation_settles_a_report() {
    let mut script = with_a_failed_look_up();
    for delay in [1, 2] {
        script.after(delay);
        assert_eq!(script.fail("a", false), []);
    }
    script.after(4);
    assert_eq!(script.fail("a", false), [clean_up(0, "a")]);
    script.finish(1, "b");
    assert_eq!(script.on(confirmed(2)), [delivered(1)], "by its job, as nothing is to be awaited");
}

#[test]
fn without_look_ups_for_ten_minutes_the_confirmation_settles_a_report() {
    let mut script = with_a_failed_look_up();
    // The silence of `a` ends half a second before the trial.
    let end = script.now + Duration::from_secs(599);
    script.finish(1, "b");
    script.on(confirmed(2));
    script.on(freed(1));
    while script.now < end {
        for id in script.looked_up().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            assert_eq!(script.fail(&id, true), [], "{id}");
        }
        script.now += (script.coordinator.deadline().unwrap() - script.now).min(end - script.now);
        assert_eq!(script.on(Event::Tick), []);
    }
    assert_eq!(script.after(2).first(), Some(&clean_up(0, "a")), "it had no answer for ten minutes");
    script.finish(2, "c");
    assert_eq!(script.on(confirmed(3)), [received(2)]);
    script.on(freed(2));
    script.after_millis(500);
    assert!(script.fail("c", true).contains(&clean_up(2, "c")));
    assert!(script.coordinator.lookups.are_absent(), "the next one is settled by its job");
}

#[test]
fn the_slot_is_free_before_the_report_is_settled() {
    let mut script = Script::with_rest(RULES);
    script.on(assignment_at("a", 10));
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 11);
    script.assign("b");
    script.finish(1, "a");
    assert_eq!(script.on(confirmed(4)), [received(1), started(2, "b"), claimed(Some(5), "b")]);
    assert_eq!(script.coordinator.status().tasks, 1);
}

#[test]
fn a_run_that_is_assigned_again_is_answered_with_the_report() {
    let mut script = with_report();
    script.after_millis(500);
    assert_eq!(script.on(assignment_at("a", 30)), [reported(None, "a")]);
    assert_eq!(script.answer("a", RunState::Claimed, 30), [reported(None, "a")], "its time is the new one");
    script.after(1);
    assert_eq!(script.answer("a", RunState::Succeeded, 31), [clean_up(1, "a")]);
    // Until everything is removed it does not start again.
    assert_eq!(script.assign("a"), []);
    assert_eq!(script.on(cleaned_up(1)), [started(2, "a"), claimed(Some(5), "a")]);
}

#[test]
fn a_report_without_a_container_needs_no_clean_up() {
    let mut script = Script::with_rest(RULES);
    script.assign("a");
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 0);
    let nothing = Leftover { container: None, ..Leftover::clone(&left("a")) };
    let report = completed("a");
    script.on(Event::Job(JobId(1), crate::job::JobEvent::Finished { report, left: Arc::new(nothing) }));
    script.on(confirmed(4));
    script.on(freed(1));
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::Succeeded, 0), []);
    assert!(script.coordinator.settling.is_empty());
}

#[test]
fn at_most_256_reports_are_kept() {
    let mut script = Script::with_rest(RULES);
    for number in 0..=MAX_REPORTS as u64 {
        let (job, seq) = (number + 1, 3 + 2 * number);
        script.on(assignment_at(&number.to_string(), 10));
        script.on(confirmed(seq));
        let id = number.to_string();
        // Three look-ups of reports wait, and the claim's comes first.
        assert!(script.looked_up().contains(&id.as_str()));
        script.answer(&id, RunState::InProgress, 11);
        script.finish(job, &id);
        let log = script.log(confirmed(seq + 1));
        let warning = "\nWARN report settled by its receipt task=0 reason=\"too many reports are kept\"";
        assert_eq!(log.ends_with(warning), number == MAX_REPORTS as u64, "{number} {log}");
        script.on(freed(job));
    }
    assert_eq!(script.coordinator.settling.settling.len(), MAX_REPORTS);
    assert!(script.coordinator.settling.is_removing(JobId(1)));
}

#[test]
fn reports_of_at_most_64_mib_are_kept() {
    let mut script = Script::with_rest(Rules { slots: 8, ..RULES });
    assert_eq!(script.coordinator.settling.max_bytes, 64 << 20);
    // Shorter ones are made faster.
    script.coordinator.settling.max_bytes = 64 << 10;
    let large = |id: &str, kib: usize| {
        let report = crate::protocol::Report {
            output: "x".repeat(kib << 10),
            ..crate::protocol::Report::failed(
                &key(id),
                Dialect::Old,
                crate::protocol::FailureReason::Internal,
                "m",
            )
        };
        Arc::new(EncodedReport::new(report, "w"))
    };
    let mut report = |job: u64, id: &str, kib, seq| {
        script.assign(id);
        script.on(confirmed(seq));
        script.answer(id, RunState::InProgress, 0);
        script.on(finished(job, large(id, kib)));
        let effects = script.on(confirmed(seq + 1));
        script.on(freed(job));
        effects
    };
    assert_eq!(report(1, "a", 30, 3), [received(1)]);
    assert_eq!(report(2, "b", 33, 5), [received(2)]);
    assert_eq!(report(3, "c", 1, 7), [received(3), clean_up(1, "a")]);
    assert_eq!(report(4, "d", 65, 9), [received(4), clean_up(2, "b"), clean_up(3, "c"), clean_up(4, "d")]);
    assert_eq!(script.coordinator.settling.bytes, 0);
}

#[test]
fn as_many_containers_are_removed_at_once_as_there_are_slots() {
    let mut script = Script::with_rest(Rules { slots: 2, ..RULES });
    for (job, id) in [(1, "a"), (2, "b"), (3, "c")] {
        report_of(&mut script, job, id, 2 * job + 1);
    }
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::Succeeded, 12), [clean_up(1, "a")]);
    assert_eq!(script.answer("b", RunState::Succeeded, 12), [clean_up(2, "b")]);
    assert_eq!(script.answer("c", RunState::Succeeded, 12), []);
    assert_eq!(script.on(cleaned_up(1)), [clean_up(3, "c")]);
}

#[test]
fn no_task_starts_while_too_many_containers_wait_for_their_removal() {
    let mut script = Script::with_rest(RULES);
    let waiting = (100..).map(|number| (JobId(number), left(&number.to_string())));
    script.coordinator.settling.waiting.extend(waiting.take(MAX_REMOVALS + 1));
    assert_eq!(script.on(Event::Tick), [clean_up(100, "100")]);
    assert_eq!(script.assign("a"), []);
    assert_eq!(
        script.on(cleaned_up(100)),
        [clean_up(101, "101"), started(1, "a"), claimed(Some(3), "a")],
        "one fewer waits"
    );
}

#[test]
fn a_stop_waits_for_one_look_up_of_each_report() {
    let mut script = with_report();
    assert_eq!(script.on(Event::Signal), [Effect::StopWaiting]);
    assert_eq!((script.looked_up(), script.asked[0].limit), (vec!["a"], Duration::from_secs(2)), "at once");
    assert_eq!(script.answer("a", RunState::Succeeded, 12), [clean_up(1, "a")]);
    assert_eq!(script.on(cleaned_up(1)), [Effect::CloseLink]);
    assert_eq!(
        script.on(Event::LinkGone { exit: Exit::Failure, reason: None }),
        [Effect::Exit(Exit::Success)]
    );
}

/// It may not be stored. The next process finds the container, reports it again and asks again.
#[test]
fn without_an_answer_within_two_seconds_a_report_is_left_at_a_stop() {
    let mut script = with_report();
    script.on(Event::Signal);
    assert_eq!(script.after_millis(1999), []);
    script.now += Duration::from_millis(1);
    assert_eq!(script.log(Event::Tick), "ERROR report not delivered task=a");
    assert!(script.coordinator.settling.is_empty());
    assert_eq!(
        script.on(Event::LinkGone { exit: Exit::Success, reason: None }),
        [Effect::Exit(Exit::Failure)]
    );
}

/// As at a control plane without look-ups, where no process would get an answer.
#[test]
fn at_a_stop_the_confirmation_counts_if_no_look_up_has_ever_succeeded() {
    let mut script = Script::untried(RULES);
    script.on(Event::Adopted(vec![adopted_task("a")]));
    script.on(Event::LinkUp);
    script.finish(0, "a");
    assert_eq!(script.on(confirmed(1)), [received(0)]);
    script.on(freed(0));
    script.after_millis(500);
    assert_eq!(script.fail("a", true), []);
    script.on(Event::Signal);
    assert_eq!(script.after_millis(1999), []);
    assert_eq!(script.after_millis(1), [clean_up(0, "a")]);
    assert_eq!(script.on(cleaned_up(0)), [Effect::CloseLink]);
    assert_eq!(
        script.on(Event::LinkGone { exit: Exit::Failure, reason: None }),
        [Effect::Exit(Exit::Success)]
    );
}

#[test]
fn a_report_of_a_task_that_the_stop_ended_is_looked_up_too() {
    let mut script = Script::with_rest(RULES);
    script.on(assignment_at("a", 10));
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 11);
    assert_eq!(script.on(Event::Signal), [cancelled(1, CancelReason::Shutdown), Effect::StopWaiting]);
    script.finish(1, "a");
    assert_eq!(script.on(confirmed(4)), [received(1)]);
    script.on(freed(1));
    script.after_millis(100);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [reported(None, "a")], "it was not stored");
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::Failed, 12), [clean_up(1, "a")]);
}

#[test]
fn a_report_that_is_not_stored_before_the_end_is_left_for_the_next_process() {
    for link_ends in [false, true] {
        let mut script = with_report();
        script.after_millis(500);
        script.answer("a", RunState::InProgress, 11);
        let log = if link_ends {
            script.log(Event::LinkGone { exit: Exit::Failure, reason: None })
        } else {
            script.on(Event::Signal);
            let until = script.now + Duration::from_secs(39);
            while script.now < until {
                if !script.asked.is_empty() {
                    script.answer("a", RunState::InProgress, 11);
                }
                script.after_millis(500);
            }
            script.now = until + Duration::from_secs(1);
            script.log(Event::Tick)
        };
        assert!(log.contains("ERROR report not delivered task=a"), "{link_ends} {log}");
        assert!(script.coordinator.settling.is_empty());
        if !link_ends {
            let end = script.on(Event::LinkGone { exit: Exit::Success, reason: None });
            assert_eq!(end, [Effect::Exit(Exit::Failure)], "a lost report is not a success");
        }
    }
}
