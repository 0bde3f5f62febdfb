//! Time limits, polled runs, the engine and the disk, as scripts.

use std::time::Duration;

use super::super::assign::{SPACE_COUNTS, SPACE_RENEWED};
use super::super::tests::*;
use super::super::{BACKLOG, CancelReason, Effect, Event, JobEvent, JobId, LostRuns, Rules};
use crate::protocol::{FailureReason, RunState};

#[test]
fn a_time_limit_counts_from_the_container_s_start() {
    let mut script = Script::with(Rules { slots: 2, task_timeout: Duration::from_secs(100), ..RULES });
    script.on(Event::Adopted(vec![adopted_task("old")]));
    script.on(runs(0, 60));
    script.on(Event::LinkUp);
    script.assign("new");
    script.now += Duration::from_secs(1);
    script.on(runs(1, 0));
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(39)));
    assert_eq!(script.after(38), []);
    assert_eq!(script.after(1), [cancelled(0, CancelReason::TimedOut)]);
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(61)));
    script.finish(1, "new");
    assert_eq!(script.coordinator.deadline(), None, "a task that ended has no limit");
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(runs(0, 0));
    assert_eq!(script.coordinator.deadline(), None, "no limit");
}

#[test]
fn a_preparation_has_a_limit_as_long_as_that_of_a_task() {
    let task_timeout = Duration::from_secs(100);
    let mut script = Script::with(Rules { slots: 2, task_timeout, ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    assert_eq!(script.coordinator.deadline(), Some(script.now + task_timeout));
    script.on(confirmed(1));
    script.after(50);
    script.assign("b");
    assert_eq!(script.after(49), []);
    assert_eq!(script.after(1), [cancelled(0, CancelReason::PreparedTooLong)]);
    assert_eq!(script.after(49), []);
    script.on(runs(1, 0));
    assert_eq!(script.after(99), [], "the time of a task counts anew");
    assert_eq!(script.after(1), [cancelled(1, CancelReason::TimedOut)]);
}

#[test]
fn runs_are_polled_after_a_reconnect_and_at_each_interval() {
    let interval = Duration::from_secs(60);
    let mut script = Script::with_rest(Rules { slots: 3, reconcile_interval: interval, ..RULES });
    assert_eq!(script.coordinator.deadline(), None, "no runs");
    script.assign("a");
    script.on(confirmed(3));
    assert_eq!(script.answer("a", RunState::InProgress, 0), [release(1)]);
    script.assign("unconfirmed");
    assert_eq!(script.coordinator.deadline(), Some(script.now + interval));
    assert_eq!((script.after(60), script.looked_up()), (vec![], vec!["a"]));
    assert_eq!((script.after(600), script.looked_up()), (vec![], vec!["a"]), "one poll at a time");
    script.on(Event::LinkDown);
    assert_eq!(script.coordinator.deadline(), None, "not connected");
    script.on(Event::LinkUp);
    script.answer("a", RunState::InProgress, 0);
    assert!(script.looked_up().contains(&"a"), "the poll after the reconnect");
    assert_eq!(script.answer("a", RunState::Cancelled, 0), [cancelled(1, CancelReason::Requested)]);
    script.asked.clear();
    assert_eq!((script.after(600), script.looked_up()), (vec![], vec![]), "a task that ends is not polled");
}

/// Claims and reports are looked up nevertheless.
#[test]
fn without_an_interval_running_tasks_are_not_looked_up() {
    let mut script = Script::with_rest(RULES);
    script.assign("a");
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 0);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!((script.after(600), script.looked_up()), (vec![], vec![]));
}

#[test]
fn a_running_task_is_claimed_again_if_its_claim_is_not_stored() {
    let interval = Duration::from_secs(60);
    for (changed, expected) in [(10, vec![claimed(None, "a")]), (11, vec![])] {
        let mut script = Script::with_rest(Rules { reconcile_interval: interval, ..RULES });
        script.on(assignment_at("a", 10));
        script.on(confirmed(3));
        script.answer("a", RunState::InProgress, 0);
        script.on(runs(1, 0));
        script.after(60);
        assert_eq!(script.answer("a", RunState::Claimed, changed), expected);
    }
}

#[test]
fn a_task_ends_when_its_run_is_over() {
    let cases = [
        (LostRuns::Stop, RunState::Failed, Some(CancelReason::RunOver)),
        (LostRuns::Stop, RunState::Succeeded, Some(CancelReason::RunOver)),
        (LostRuns::Stop, RunState::Cancelled, Some(CancelReason::Requested)),
        (LostRuns::Finish, RunState::Failed, None),
        (LostRuns::Finish, RunState::Cancelled, Some(CancelReason::Requested)),
        (LostRuns::Stop, RunState::InProgress, None),
        (LostRuns::Stop, RunState::Claimed, None),
        (LostRuns::Stop, RunState::Pending, None),
        (LostRuns::Stop, RunState::Queued, None),
    ];
    for (lost_runs, state, expected) in cases {
        let reconcile_interval = Duration::from_secs(60);
        let mut script = Script::with_rest(Rules { lost_runs, reconcile_interval, ..RULES });
        script.assign("a");
        script.on(confirmed(3));
        script.answer("a", RunState::InProgress, 0);
        script.after(60);
        let effects: Vec<Effect> = expected.into_iter().map(|reason| cancelled(1, reason)).collect();
        assert_eq!(script.answer("a", state, 0), effects, "{lost_runs:?} {state:?}");
    }
    let mut script = Script::with_rest(Rules { reconcile_interval: Duration::from_secs(60), ..RULES });
    script.assign("a");
    script.on(confirmed(3));
    script.answer("a", RunState::InProgress, 0);
    script.after(60);
    script.finish(1, "a");
    assert_eq!(script.answer("a", RunState::Failed, 0), [], "an answer for a task that has ended");
}

#[test]
fn nothing_is_taken_while_the_engine_does_not_answer() {
    let engine =
        |away: Option<&str>| Event::Job(JobId(0), JobEvent::Engine { away: away.map(str::to_owned) });
    let mut script = Script::connected(1);
    script.assign("a");
    script.assign("waiting");
    let away = "the docker engine does not answer";
    assert_eq!(script.on(engine(Some(away))), [rejected("waiting", away)]);
    assert_eq!(script.assign("b"), [rejected("b", away)]);
    assert_eq!(script.on(engine(Some("another reason"))), []);
    assert_eq!(script.assign("b"), [rejected("b", "another reason")]);
    assert_eq!(script.coordinator.status().engine_away.as_deref(), Some("another reason"));
    assert_eq!(script.on(engine(None)), []);
    assert_eq!(script.coordinator.status().engine_away, None);
    assert_eq!(script.assign("b"), []);
    script.on(engine(Some(away)));
    script.finish(0, "a");
    script.on(confirmed(2));
    script.on(freed(0));
    assert_eq!(script.assign("c").len(), 2, "no job waits for the engine any more");
}

fn disk(low: Option<&str>) -> Event {
    Event::DiskChecked { low: low.map(str::to_owned) }
}

fn checking_disk(slots: usize) -> Script {
    let mut script = Script::with(Rules { slots, check_disk: true, ..RULES });
    script.on(Event::LinkUp);
    script
}

#[test]
fn a_task_is_claimed_once_the_disk_has_space_for_it() {
    let mut script = checking_disk(2);
    assert_eq!(script.assign("a"), [Effect::CheckDisk]);
    assert_eq!(script.assign("a"), [], "it is known, and not claimed yet");
    assert_eq!(script.assign("b"), [], "one check at a time");
    let both = [started(0, "a"), started(1, "b"), claimed(Some(1), "a"), claimed(Some(2), "b")];
    assert_eq!(script.on(disk(None)), both);
    assert_eq!(script.assign("a"), [claimed(None, "a")], "a task that the worker has needs no more space");
    script.now += SPACE_COUNTS;
    assert_eq!(script.assign("c"), [Effect::CheckDisk], "the result is old");
}

#[test]
fn a_claim_does_not_wait_for_the_disk_shortly_after_a_check_that_found_space() {
    let mut script = checking_disk(4);
    script.assign("a");
    script.on(disk(None));
    assert_eq!(script.assign("b"), [started(1, "b"), claimed(Some(2), "b")]);
    script.now += SPACE_RENEWED;
    let renewed = [started(2, "c"), claimed(Some(3), "c"), Effect::CheckDisk];
    assert_eq!(script.assign("c"), renewed, "the claim comes before the check");
    assert_eq!(script.assign("d"), [started(3, "d"), claimed(Some(4), "d")], "one check at a time");
    assert_eq!(script.on(disk(Some("full"))), [], "a claimed task stays");
    assert_eq!(script.assign("e"), [Effect::CheckDisk], "too little space does not count");
    assert_eq!(script.on(disk(Some("full"))), [rejected("e", "full")]);
}

#[test]
fn a_task_without_space_is_given_back_and_those_that_were_checked_stay() {
    let mut script = checking_disk(1);
    script.assign("a");
    script.on(disk(None));
    script.assign("checked");
    script.on(disk(None));
    script.now += SPACE_COUNTS;
    assert_eq!(script.assign("b"), [Effect::CheckDisk]);
    assert_eq!(script.assign("c"), []);
    let full = "the disk is full";
    assert_eq!(script.on(disk(Some(full))), [rejected("b", full), rejected("c", full)]);
    script.finish(0, "a");
    script.on(confirmed(2));
    assert_eq!(script.on(freed(0)), [started(1, "checked"), claimed(Some(3), "checked")]);
}

#[test]
fn a_check_that_hangs_holds_up_nothing_else() {
    let mut script = checking_disk(2);
    script.assign("a");
    script.on(disk(None));
    script.on(confirmed(1));
    script.now += SPACE_RENEWED;
    let renewing = [started(1, "x"), claimed(Some(2), "x"), Effect::CheckDisk];
    assert_eq!(script.assign("x"), renewing);
    script.on(cancel("x"));
    script.finish(1, "x");
    script.on(confirmed(3));
    script.on(freed(1));
    script.now += SPACE_COUNTS;
    assert_eq!(script.assign("b"), [], "it waits for the check that runs");
    assert_eq!(script.finish(0, "a"), [reported(Some(4), "a")]);
    let answer = failed("b", FailureReason::TaskCancelled, "cancelled before it was started");
    assert_eq!(script.on(cancel("b")), [answer]);
    assert_eq!(script.assign("c"), [], "the check still runs");
    assert_eq!(script.after(60), [rejected("c", "the check of the engine's disk got no answer in time")]);
    assert_eq!(script.assign("d"), []);
    assert_eq!(script.on(Event::LinkDown), []);
    assert_eq!(script.on(disk(None)), [], "its assignments belong to the control plane again");
    assert_eq!(script.on(Event::LinkUp), [reported(Some(5), "a")]);
    script.now += SPACE_COUNTS;
    assert_eq!(script.assign("e"), [Effect::CheckDisk]);
}

/// A run with a free slot takes no place in the backlog, with a check of the disk or without.
#[test]
fn a_burst_fills_the_slots_and_the_backlog() {
    for check_disk in [false, true] {
        let mut script = Script::with(Rules { slots: 100, check_disk, ..RULES });
        script.on(Event::LinkUp);
        let assigned: Vec<Effect> =
            (0..100 + BACKLOG).flat_map(|number| script.assign(&number.to_string())).collect();
        let effects = if check_disk { script.on(disk(None)) } else { assigned };
        let is_start = |effect: &&Effect| matches!(effect, Effect::Start { .. });
        assert_eq!(effects.iter().filter(is_start).count(), 100, "{check_disk}");
        assert_eq!(script.coordinator.backlog.len(), BACKLOG);
        assert_eq!(script.assign("more"), [rejected("more", "the worker's backlog is full")]);
    }
}
