//! Time limits, lost runs, and an engine or a disk that cannot take more, as scripts.

use std::sync::Arc;
use std::time::Duration;

use super::super::tests::*;
use super::super::{CancelReason, Effect, Event, JobId, LostRuns, Rules, RunEnd};
use crate::protocol::Assignment;

#[test]
fn a_task_has_its_time_from_the_start_of_its_container() {
    let mut script = Script::with(Rules { slots: 2, task_timeout: Duration::from_secs(100), ..RULES });
    script.on(Event::Adopted(vec![adopted_task("old")]));
    script.on(runs(0, 60));
    script.on(Event::LinkUp);
    script.assign("new");
    script.on(runs(1, 0));
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(40)));
    assert_eq!(script.after(39), []);
    assert_eq!(script.after(1), [cancelled(0, CancelReason::TimedOut)]);
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(60)));
    script.finish(1, "new");
    assert_eq!(script.coordinator.deadline(), None, "what has ended cannot be late");
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(runs(0, 0));
    assert_eq!(script.coordinator.deadline(), None, "no limit");
}

#[test]
fn the_control_plane_is_asked_after_a_reconnect_and_from_time_to_time() {
    let mut script = Script::with(Rules { slots: 3, reconcile_interval: Duration::from_secs(60), ..RULES });
    script.on(Event::LinkUp);
    assert_eq!(script.coordinator.deadline(), None, "nothing to ask for");
    script.assign("a");
    assert_eq!(script.on(confirmed(1)), [release(0)]);
    script.assign("unconfirmed");
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(60)));
    assert_eq!(script.after(60), [ask(&[(0, "a")])]);
    assert_eq!(script.after(600), [], "one question at a time");
    script.on(Event::LinkDown);
    assert_eq!(script.coordinator.deadline(), None, "nobody can answer");
    script.on(Event::LinkUp);
    assert_eq!(script.on(Event::Asked { over: vec![] }), [ask(&[(0, "a")])]);
    assert_eq!(script.on(over(0, RunEnd::Cancelled)), [cancelled(0, CancelReason::Requested)]);
    assert_eq!(script.after(600), [], "what is ending is not asked for");
}

#[test]
fn a_run_that_is_over_there_is_ended_here() {
    let cases = [
        (LostRuns::Stop, RunEnd::Failed, Some(CancelReason::RunOver)),
        (LostRuns::Stop, RunEnd::Succeeded, Some(CancelReason::RunOver)),
        (LostRuns::Stop, RunEnd::Cancelled, Some(CancelReason::Requested)),
        (LostRuns::Finish, RunEnd::Failed, None),
        (LostRuns::Finish, RunEnd::Cancelled, Some(CancelReason::Requested)),
    ];
    for (lost_runs, end, expected) in cases {
        let mut script = Script::with(Rules { lost_runs, ..RULES });
        script.on(Event::LinkUp);
        script.assign("a");
        script.on(confirmed(1));
        let effects: Vec<Effect> = expected.into_iter().map(|reason| cancelled(0, reason)).collect();
        assert_eq!(script.on(over(0, end)), effects, "{lost_runs:?} {end:?}");
        assert_eq!(script.on(over(7, end)), [], "the answer for a job that has gone");
    }
}

#[test]
fn nothing_new_is_taken_while_the_engine_is_away_or_its_disk_full() {
    let engine = |away| Event::Engine { job: JobId(0), away };
    let mut script = Script::connected(1);
    script.assign("a");
    script.assign("waiting");
    let away = "the docker engine does not answer";
    assert_eq!(script.on(engine(true)), [rejected("waiting", away)]);
    assert_eq!(script.assign("b"), [rejected("b", away)]);
    assert_eq!(script.on(engine(false)), []);
    assert_eq!(script.assign("b"), []);
    script.on(engine(true));
    script.finish(0, "a");
    script.on(confirmed(2));
    script.on(freed(0));
    assert_eq!(script.assign("c").len(), 2, "nobody waits for the engine any more");
    let assignment = Arc::new(Assignment { task_id: "d".into(), ..Assignment::default() });
    let assigned = |full: Option<&str>| Event::Assigned {
        assignment: Arc::clone(&assignment),
        disk_full: full.map(str::to_owned),
    };
    assert_eq!(script.on(assigned(Some("the disk is full"))), [rejected("d", "the disk is full")]);
    assert_eq!(script.on(assigned(None)), []);
    assert_eq!(script.assign("c"), [claimed(None, "c")], "one that is here needs no more space");
}
