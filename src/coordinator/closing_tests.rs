//! Confirmations of cancels that name an execution.

use super::super::tests::*;
use super::super::{Effect, Event, Rules};
use super::*;
use crate::job::JobEvent;
use crate::sys::cancel::CancelReason;

const SLOTS: usize = 3;

fn closed(id: &str) -> Effect {
    Effect::Send { seq: None, message: Outgoing::Closed { key: key(id), dialect: Dialect::Upstream } }
}

fn done(job: u64, removal: Removal) -> Event {
    Event::Job(JobId(job), JobEvent::Done(removal))
}

/// A worker that runs `t/1` as job 0.
fn running() -> Script {
    let mut script = Script::connected(SLOTS);
    script.on(upstream("t/1"));
    script.on(confirmed(1));
    script
}

/// As [`running`], after the end of `t/1`. Its report is sent and confirmed with number 2.
fn reported_end(script: &mut Script) {
    script.finish(0, "t/1");
    assert_eq!(script.on(confirmed(2)), [delivered(0)]);
}

#[test]
fn a_cancel_is_confirmed_once_the_container_is_removed() {
    let mut script = running();
    assert_eq!(script.on(cancel("t/1")), [cancelled(0, CancelReason::Requested)]);
    reported_end(&mut script);
    script.after(8);
    assert_eq!(script.on(done(0, Removal::Gone)), [closed("t/1")]);
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")], "again, and the engine is not asked");
    assert!(script.log(cancel("t/1")).contains("INFO execution closed task=t execution=1"));
}

#[test]
fn after_ten_seconds_only_the_next_cancel_is_confirmed() {
    let mut script = running();
    script.on(cancel("t/1"));
    reported_end(&mut script);
    script.after(11);
    assert_eq!(script.on(done(0, Removal::Gone)), []);
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")]);
}

#[test]
fn an_ordinary_end_is_not_confirmed_and_a_cancel_after_it_is() {
    let mut script = running();
    reported_end(&mut script);
    assert_eq!(script.on(done(0, Removal::Gone)), []);
    assert_eq!(script.on(cancel("t")), [], "it names no execution");
    assert_eq!(script.on(cancel("t/2")), [], "an unknown one");
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")]);
}

#[test]
fn a_cancel_while_the_container_is_removed_counts() {
    let mut script = running();
    reported_end(&mut script);
    assert_eq!(script.on(cancel("t/1")), []);
    assert_eq!(script.on(done(0, Removal::Gone)), [closed("t/1")]);
}

#[test]
fn a_container_that_could_not_be_removed_is_removed_again_after_the_next_cancel() {
    let mut script = running();
    script.on(cancel("t/1"));
    reported_end(&mut script);
    let not_removed = || Event::Job(JobId(0), JobEvent::NotRemoved { left: left("t/1") });
    script.on(not_removed());
    assert_eq!(script.on(done(0, Removal::Left)), []);
    assert_eq!(script.on(cancel("t/1")), [clean_up(0, "t/1")]);
    assert_eq!(script.on(cancel("t/1")), [], "it is under way");
    let cleaned_up = |removal| Event::Job(JobId(0), JobEvent::CleanedUp(removal));
    script.on(not_removed());
    assert_eq!(script.on(cleaned_up(Removal::Left)), []);
    assert_eq!(script.on(cancel("t/1")), [clean_up(0, "t/1")]);
    script.after(11);
    assert_eq!(script.on(cleaned_up(Removal::Gone)), [], "too late");
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")]);
}

#[test]
fn a_kept_container_and_a_lost_task_are_not_confirmed() {
    let mut script = running();
    script.on(cancel("t/1"));
    reported_end(&mut script);
    assert_eq!(script.on(done(0, Removal::Kept)), []);
    assert_eq!(script.on(cancel("t/1")), []);
    let mut script = Script::connected(SLOTS);
    script.on(upstream("t/1"));
    script.on(Event::LinkDown);
    script.finish(0, "t/1");
    script.on(Event::LinkUp);
    script.on(done(0, Removal::Gone));
    assert_eq!(script.on(cancel("t/1")), [], "it may run elsewhere");
}

#[test]
fn a_task_without_a_slot_is_closed_at_once() {
    let mut script = Script::with(Rules { check_disk: true, ..RULES });
    script.on(Event::LinkUp);
    script.on(upstream("t/1"));
    let effects = script.on(cancel("t/1"));
    assert_eq!(effects.len(), 2, "{effects:?}");
    assert_eq!(effects[1], closed("t/1"));
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")]);
    script.on(upstream("t/2"));
    assert_eq!(script.on(cancel("t")).len(), 1, "it names no execution");
}

#[test]
fn nothing_is_confirmed_at_the_old_control_plane_or_without_a_connection() {
    let mut script = Script::connected(SLOTS);
    script.assign("t/1");
    script.on(cancel("t/1"));
    reported_end(&mut script);
    assert_eq!(script.on(done(0, Removal::Gone)), []);
    assert_eq!(script.on(cancel("t/1")), []);
    let mut script = running();
    script.on(cancel("t/1"));
    reported_end(&mut script);
    script.on(Event::LinkDown);
    assert_eq!(script.on(done(0, Removal::Gone)), []);
    script.on(Event::LinkUp);
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")]);
}

#[test]
fn an_ended_execution_is_not_started_again_and_its_report_is_repeated() {
    let mut script = running();
    reported_end(&mut script);
    script.on(done(0, Removal::Gone));
    assert_eq!(script.on(upstream("t/1")), [reported(None, "t/1")]);
    assert_eq!(script.on(upstream("t/2")).len(), 2, "another execution starts");
}

#[test]
fn the_last_4096_of_each_kind_are_remembered() {
    let mut script = Script::connected(1);
    let end = |script: &mut Script, number: u64, cancels: bool| {
        let id = format!("t/{number}");
        script.on(upstream(&id));
        if cancels {
            script.on(cancel(&id));
        }
        script.finish(number, &id);
        script.on(confirmed(2 * number + 2));
        script.on(done(number, Removal::Gone))
    };
    let first = 4097;
    (0..first).for_each(|number| drop(end(&mut script, number, true)));
    for number in first..first + 4097 {
        assert_eq!(end(&mut script, number, false), []);
    }
    assert_eq!(script.on(cancel("t/0")), [], "forgotten");
    assert_eq!(script.on(cancel(&format!("t/{first}"))), [], "forgotten");
    for number in [1, first - 1, first + 1, first + 4096] {
        let id = format!("t/{number}");
        assert_eq!(script.on(cancel(&id)), [closed(&id)]);
    }
}

#[test]
fn repeated_cancels_of_one_execution_forget_no_other() {
    let mut script = Script::connected(1);
    for number in 0..2 {
        let id = format!("t/{number}");
        script.on(upstream(&id));
        script.on(cancel(&id));
        script.finish(number, &id);
        script.on(confirmed(2 * number + 2));
        assert_eq!(script.on(done(number, Removal::Gone)), [closed(&id)]);
    }
    (0..=MAX_ENDED).for_each(|_| assert_eq!(script.on(cancel("t/1")), [closed("t/1")]));
    assert_eq!(script.on(cancel("t/0")), [closed("t/0")]);
}

#[test]
fn what_is_remembered_of_containers_that_are_left_is_bounded() {
    let mut script = Script::connected(1);
    for number in 0..MAX_ENDED as u64 + 10 {
        let id = format!("t/{number}");
        script.on(upstream(&id));
        script.finish(number, &id);
        script.on(confirmed(2 * number + 2));
        script.on(done(number, Removal::Left));
    }
    let ended = &script.coordinator.ended;
    assert_eq!((ended.by_key.len(), ended.left.len()), (MAX_ENDED, MAX_ENDED));
}

#[test]
fn without_a_connection_an_execution_does_not_count_as_confirmed() {
    let mut script = running();
    script.on(cancel("t/1"));
    reported_end(&mut script);
    script.on(Event::LinkDown);
    assert!(!script.log(done(0, Removal::Gone)).contains("execution closed"));
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.on(cancel("t/1")), [closed("t/1")]);
}
