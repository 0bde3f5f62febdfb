//! Claims and their look-ups, as scripts. In scripts with look-ups the first job is number 1, and its claim number 3.

use super::super::tests::*;
use super::super::{BACKLOG, Event, Incoming, LostRuns, Rules};
use super::*;
use crate::job::{Removal, Work};

const TWO: Rules = Rules { slots: 2, ..RULES };

/// A worker with one slot and a job that has claimed the run `a`, which was assigned at 10 s.
fn claimed_at_ten() -> Script {
    let mut script = Script::with_rest(RULES);
    assert_eq!(script.on(assignment_at("a", 10)), [started_at(1, "a", 10), claimed(Some(3), "a")]);
    assert_eq!(script.on(confirmed(3)), []);
    assert_eq!(script.looked_up(), ["a"]);
    assert_eq!(script.asked[0].limit, Duration::from_secs(3));
    script
}

fn started_at(job: u64, id: &str, seconds: i64) -> Effect {
    let Event::Message(Incoming::Assignment(assignment)) = assignment_at(id, seconds) else { unreachable!() };
    Effect::Start { job: JobId(job), work: Work::Run(assignment) }
}

#[test]
fn whose_a_run_is_follows_from_its_state_and_the_times() {
    let view = |state, seconds: Option<i64>| RunView { state, updated_at: seconds.map(at) };
    let ten = Some(at(10));
    let claimed = |seconds, assigned_at| standing(&view(RunState::Claimed, seconds), assigned_at);
    assert_eq!([claimed(Some(9), ten), claimed(Some(10), ten)], [Standing::Ours; 2]);
    assert_eq!(claimed(Some(11), ten), Standing::TakenBack);
    assert_eq!([claimed(None, ten), claimed(Some(9), None), claimed(None, None)], [Standing::Unclear; 3]);
    let cases = [
        (RunState::Queued, Standing::TakenBack),
        (RunState::Pending, Standing::TakenBack),
        (RunState::InProgress, Standing::Running),
        (RunState::Succeeded, Standing::Over),
        (RunState::Failed, Standing::Over),
        (RunState::Cancelled, Standing::Over),
    ];
    for (state, expected) in cases {
        for seconds in [None, Some(9), Some(11)] {
            assert_eq!(standing(&view(state, seconds), ten), expected, "{state}");
        }
    }
}

#[test]
fn a_container_starts_when_the_claim_is_stored() {
    let mut script = claimed_at_ten();
    assert_eq!(script.answer("a", RunState::InProgress, 11), [release(1)]);
    assert_eq!(script.after(600), []);
    assert_eq!(script.looked_up(), [""; 0], "a stored claim is not looked up again");
}

#[test]
fn a_claim_that_is_not_stored_is_sent_again_until_it_is() {
    let mut script = claimed_at_ten();
    for millis in [20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000] {
        assert_eq!(script.answer("a", RunState::Claimed, 10), [claimed(None, "a")]);
        assert_eq!(script.after_millis(millis - 1), []);
        assert_eq!(script.looked_up(), [""; 0], "{millis}");
        assert_eq!(script.after_millis(1), []);
        assert_eq!(script.looked_up(), ["a"], "{millis}");
    }
    assert_eq!(script.answer("a", RunState::InProgress, 20), [release(1)]);
}

#[test]
fn a_task_whose_run_was_taken_back_is_dropped_unstarted() {
    for (state, changed) in [(RunState::Queued, 9), (RunState::Pending, 12), (RunState::Claimed, 11)] {
        let mut script = claimed_at_ten();
        assert_eq!(script.answer("a", state, changed), [cancelled(1, CancelReason::ClaimLost)], "{state}");
        assert_eq!(script.finish(1, "a"), [unwanted(1)]);
        assert_eq!(script.on(freed(1)), []);
        assert_eq!(script.on(assignment_at("a", 20)), [started_at(2, "a", 20), claimed(Some(4), "a")]);
    }
}

#[test]
fn a_task_whose_run_is_over_does_not_start_unless_it_is_to_finish() {
    for lost_runs in [LostRuns::Stop, LostRuns::Finish] {
        for (state, reason) in [
            (RunState::Cancelled, CancelReason::Requested),
            (RunState::Failed, CancelReason::RunOver),
            (RunState::Succeeded, CancelReason::RunOver),
        ] {
            let mut script = Script::with_rest(Rules { lost_runs, ..RULES });
            script.on(assignment_at("a", 10));
            script.on(confirmed(3));
            let effects = script.answer("a", state, 11);
            if (lost_runs, state) == (LostRuns::Finish, RunState::Failed) {
                assert_eq!(effects, [release(1)], "as a task that runs already");
            } else {
                assert_eq!(effects, [cancelled(1, reason)], "{lost_runs:?} {state}");
            }
            assert_eq!(script.after(60), [], "it is not released");
        }
    }
}

#[test]
fn without_an_answer_a_container_starts_after_three_seconds() {
    let mut script = claimed_at_ten();
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(3)));
    assert_eq!(script.after_millis(2999), []);
    assert_eq!(script.after_millis(1), [release(1)]);
    // The late answer still counts.
    assert_eq!(script.answer("a", RunState::Claimed, 10), [claimed(None, "a")]);
    script.after_millis(20);
    assert_eq!(script.answer("a", RunState::InProgress, 11), [], "it was released already");
}

#[test]
fn three_seconds_count_from_the_last_answer() {
    let mut script = claimed_at_ten();
    script.after_millis(2900);
    assert_eq!(script.answer("a", RunState::Claimed, 10), [claimed(None, "a")]);
    script.after_millis(20);
    assert_eq!(script.after_millis(2999), []);
    assert_eq!(script.after_millis(1), [release(1)]);
}

#[test]
fn a_failed_look_up_starts_the_container_at_once() {
    for systemic in [false, true] {
        let mut script = claimed_at_ten();
        assert_eq!(script.fail("a", systemic), [release(1)]);
        assert_eq!(script.after(5), []);
        assert_eq!(script.looked_up(), ["a"], "it is looked up again");
        assert_eq!(script.answer("a", RunState::Claimed, 10), [claimed(None, "a")]);
    }
}

#[test]
fn a_claim_of_an_unclear_time_is_no_answer() {
    let mut script = Script::with_rest(RULES);
    script.assign("a");
    script.on(confirmed(3));
    assert_eq!(script.answer("a", RunState::Claimed, 10), [release(1)]);
}

/// A released container that has not started yet can still be dropped; one that runs goes on.
#[test]
fn a_late_answer_drops_only_a_task_that_has_not_started() {
    for has_started in [false, true] {
        let mut script = claimed_at_ten();
        script.after(3);
        if has_started {
            script.on(runs(1, 0));
        }
        let effects = script.answer("a", RunState::Pending, 12);
        let expected = [cancelled(1, CancelReason::ClaimLost)];
        assert_eq!(effects, if has_started { vec![] } else { expected.to_vec() });
    }
}

/// As without the REST API.
#[test]
fn nothing_waits_while_no_look_up_has_succeeded() {
    let mut script = Script::untried(Rules { slots: 2, ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    assert_eq!(script.on(confirmed(1)), [release(0)], "none has ended yet");
    assert_eq!(script.fail("a", true), []);
    script.assign("b");
    assert_eq!(script.on(confirmed(2)), [release(1)], "all have failed");
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.on(confirmed(3)), [received(0)]);
    assert_eq!(script.answer("b", RunState::InProgress, 0), []);
    script.on(freed(0));
    script.assign("c");
    assert_eq!(script.on(confirmed(4)), [], "one has succeeded");
}

/// A worker whose last look-up took this long, with 100 jobs whose claims are confirmed now, and with this number of assignments
/// that wait for a slot. Returns how many containers start with the confirmation.
fn burst(took_millis: u64, waiting: usize) -> (Script, usize) {
    let mut script = Script::with_rest(Rules { slots: 101, ..RULES });
    script.assign("a");
    script.on(confirmed(3));
    script.after_millis(took_millis);
    // The start has waited for three seconds at most.
    script.answer("a", RunState::InProgress, 0);
    (0..100 + waiting).for_each(|run| drop(script.assign(&run.to_string())));
    let started = releases(&script.on(confirmed(103)));
    (script, started)
}

/// Returns how many containers start. Nothing else happens.
fn releases(effects: &[Effect]) -> usize {
    assert!(effects.iter().all(|effect| matches!(effect, Effect::Release { .. })), "{effects:?}");
    effects.len()
}

#[test]
fn a_start_does_not_wait_for_an_answer_that_cannot_come_in_time() {
    // Three rounds of four look-ups of a second end within 3 s.
    let cases = [(0, 0), (100, 0), (1000, 88), (1500, 92), (2000, 96), (2999, 96), (3001, 100)];
    for (took_millis, started) in cases {
        assert_eq!(burst(took_millis, 0).1, started, "{took_millis} ms");
    }
}

#[test]
fn while_assignments_wait_few_starts_wait_long() {
    // Four wait, and those whose answers can be expected within 0.1 s.
    let cases = [(0, 0), (1, 0), (10, 60), (100, 96), (1000, 96), (2999, 96), (3001, 100)];
    for (took_millis, started) in cases {
        assert_eq!(burst(took_millis, 1).1, started, "{took_millis} ms");
    }
    let (mut script, started) = burst(1, 1);
    assert_eq!((started, script.looked_up()), (0, vec!["0", "1", "2", "3"]));
    assert_eq!(releases(&script.after_millis(99)), 0);
    assert_eq!(releases(&script.after_millis(1)), 96, "the answers are late");
    assert_eq!(releases(&script.after_millis(2899)), 0);
    assert_eq!(releases(&script.after_millis(1)), 4);
}

#[test]
fn starts_wait_shorter_once_an_assignment_waits() {
    let (mut script, _) = burst(1, 0);
    assert_eq!(releases(&script.after_millis(200)), 0);
    assert_eq!(releases(&script.assign("waits")), 96);
}

#[test]
fn a_start_that_no_longer_waits_is_looked_up_after_those_that_wait() {
    let (mut script, _) = burst(1, 3);
    script.after_millis(100);
    // The first job ends, and the run 100 takes its slot.
    script.finish(1, "a");
    script.on(confirmed(104));
    assert_eq!(script.on(confirmed(105)), [release(102)], "four wait, and the look-ups under way take long");
    (0..4).for_each(|run| drop(script.answer(&run.to_string(), RunState::InProgress, 0)));
    assert_eq!(script.looked_up(), ["4", "5", "6", "7"]);
    script.finish(2, "0");
    script.on(confirmed(106));
    assert_eq!(script.on(confirmed(107)), [], "no other start waits");
    script.answer("4", RunState::InProgress, 0);
    assert_eq!(script.looked_up(), ["5", "6", "7", "101"]);
}

#[test]
fn claims_are_sent_again_on_a_new_connection() {
    let mut script = Script::with_rest(TWO);
    script.on(assignment_at("stored", 10));
    script.on(assignment_at("received", 10));
    script.on(confirmed(4));
    assert_eq!(script.answer("stored", RunState::InProgress, 11), [release(1)]);
    assert_eq!(script.on(Event::LinkDown), []);
    assert_eq!(script.on(Event::LinkUp), [claimed(None, "stored"), claimed(None, "received")]);
    assert_eq!(script.answer("received", RunState::Claimed, 10), [claimed(None, "received")]);
    let mut script = Script::new(1);
    script.on(Event::Adopted(vec![adopted_task("old")]));
    assert_eq!(script.on(Event::LinkUp), [claimed(None, "old")], "an earlier process has claimed it");
    assert_eq!(script.finish(0, "old"), [reported(Some(1), "old")]);
    script.on(Event::LinkDown);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(2), "old")], "a report follows from a claim");
}

#[test]
fn a_run_that_is_assigned_again_is_claimed_again_until_that_is_stored() {
    let mut script = claimed_at_ten();
    script.answer("a", RunState::InProgress, 11);
    assert_eq!(script.on(assignment_at("a", 30)), [claimed(None, "a")]);
    assert_eq!(script.looked_up(), [""; 0]);
    script.after_millis(500);
    assert_eq!(script.answer("a", RunState::Claimed, 30), [claimed(None, "a")], "its time is the new one");
    script.after_millis(20);
    assert_eq!(script.answer("a", RunState::InProgress, 31), []);
}

/// One slot that is taken, and a run that was assigned at 10 s and waits for it.
fn waiting() -> Script {
    let mut script = claimed_at_ten();
    script.answer("a", RunState::InProgress, 11);
    assert_eq!(script.on(assignment_at("b", 10)), []);
    script
}

/// Frees the slot of job 1.
fn free(script: &mut Script) -> Vec<Effect> {
    script.on(Event::Job(JobId(1), crate::job::JobEvent::Done(Removal::Gone)))
}

#[test]
fn an_assignment_that_waited_at_most_eight_seconds_is_claimed_at_once() {
    let mut script = waiting();
    script.after(8);
    assert_eq!(free(&mut script)[1..], [started_at(2, "b", 10), claimed(Some(4), "b")]);
}

#[test]
fn an_assignment_that_waited_longer_is_looked_up_before_its_claim() {
    for seconds in [9, 61, 109] {
        let mut script = waiting();
        assert_eq!(script.after(seconds), []);
        assert_eq!(free(&mut script).len(), 1, "the failure of a job without a report");
        assert_eq!((script.looked_up(), script.asked[0].limit), (vec!["b"], Duration::from_secs(2)));
        // The slot is kept for it.
        assert_eq!(script.on(assignment_at("c", 10)), []);
        let claim = [started_at(2, "b", 10), claimed(Some(4), "b")];
        assert_eq!(script.answer("b", RunState::Claimed, 10), claim, "{seconds}");
    }
}

#[test]
fn an_assignment_whose_run_is_no_longer_ours_is_dropped() {
    for (state, changed) in [
        (RunState::Claimed, 11),
        (RunState::Pending, 12),
        (RunState::Queued, 12),
        (RunState::InProgress, 12),
        (RunState::Failed, 12),
        (RunState::Cancelled, 12),
        (RunState::Succeeded, 12),
    ] {
        let mut script = waiting();
        script.on(assignment_at("c", 10));
        script.after(20);
        free(&mut script);
        assert_eq!(script.looked_up(), ["b"]);
        assert_eq!(script.answer("b", state, changed), [], "{state}");
        assert_eq!(script.looked_up(), ["c"], "the slot is for the next one");
    }
}

#[test]
fn without_an_answer_an_assignment_is_claimed_within_sixty_seconds() {
    for fails in [false, true] {
        let mut script = waiting();
        script.after(20);
        free(&mut script);
        assert_eq!(script.looked_up(), ["b"]);
        let effects = if fails { script.fail("b", true) } else { script.after(2) };
        assert_eq!(effects, [started_at(2, "b", 10), claimed(Some(4), "b")], "{fails}");
    }
    for fails in [false, true] {
        let mut script = waiting();
        script.after(58);
        free(&mut script);
        script.now += Duration::from_secs(2);
        let effects = if fails { script.fail("b", true) } else { script.on(Event::Tick) };
        assert_eq!(effects, [rejected("b", "no slot was free in time")], "{fails}");
    }
}

#[test]
fn with_look_ups_an_assignment_waits_for_110_seconds() {
    let mut script = waiting();
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(110)));
    assert_eq!(script.after(109), []);
    assert_eq!(script.after(1), [rejected("b", "no slot was free in time")]);
}

#[test]
fn an_assignment_that_comes_again_waits_anew() {
    let mut script = waiting();
    script.on(assignment_at("c", 10));
    script.after(60);
    assert_eq!(script.on(assignment_at("b", 70)), []);
    assert_eq!(script.after(50), [rejected("c", "no slot was free in time")], "it is behind the other");
    assert_eq!(script.after(59), []);
    free(&mut script);
    assert_eq!(script.answer("b", RunState::Claimed, 70), [started_at(2, "b", 70), claimed(Some(4), "b")]);
}

#[test]
fn an_assignment_that_is_looked_up_can_be_cancelled_and_given_back() {
    let mut script = waiting();
    script.after(20);
    free(&mut script);
    assert_eq!(script.on(cancel("b")).len(), 1);
    assert_eq!(script.assign("c"), [started(2, "c"), claimed(Some(4), "c")], "the slot is free again");
    assert_eq!(script.answer("b", RunState::Claimed, 10), []);
    let mut script = waiting();
    script.after(20);
    free(&mut script);
    script.on(Event::LinkDown);
    assert_eq!(script.answer("b", RunState::Claimed, 10), []);
    assert_eq!(script.on(Event::LinkUp), []);
}

#[test]
fn the_backlog_is_looked_up_one_by_slot() {
    let mut script = Script::with_rest(RULES);
    script.on(assignment_at("a", 10));
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 11);
    (0..BACKLOG).for_each(|run| drop(script.on(assignment_at(&run.to_string(), 10))));
    script.after(30);
    free(&mut script);
    assert_eq!(script.looked_up(), ["0"]);
    for run in 0..BACKLOG - 1 {
        script.answer(&run.to_string(), RunState::Pending, 40);
        assert_eq!(script.looked_up(), [(run + 1).to_string()]);
    }
}

#[test]
fn an_assignment_without_a_time_is_claimed_as_without_look_ups() {
    let mut script = Script::with_rest(RULES);
    script.assign("a");
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 0);
    script.assign("b");
    script.after(20);
    free(&mut script);
    assert_eq!(script.answer("b", RunState::Claimed, 10), [started(2, "b"), claimed(Some(4), "b")]);
}

/// In the other dialect the agent sets the state of the run, so that it shows nothing about the worker's messages.
#[test]
fn for_the_upstream_dialect_the_confirmation_decides() {
    let mut script = Script::with_rest(Rules { reconcile_interval: Duration::from_secs(60), ..RULES });
    script.on(upstream("a"));
    assert_eq!(script.on(confirmed(3)), [release(1)]);
    script.after(60);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    script.after(60);
    assert_eq!(script.finish(1, "a"), [reported(Some(4), "a")]);
    assert_eq!(script.on(confirmed(4)), [delivered(1)]);
    script.on(freed(1));
    script.on(upstream("b"));
    assert_eq!(script.on(Event::LinkDown), [cancelled(2, CancelReason::ClaimLost)]);
    script.finish(2, "b");
    script.on(freed(2));
    script.on(Event::LinkUp);
    script.after(60);
    assert_eq!(script.looked_up(), [""; 0], "nothing was ever looked up");
}
