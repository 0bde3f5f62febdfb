//! Stops, as scripts.

use std::time::Duration;

use super::super::tests::*;
use super::super::{CancelReason, Effect, Event, LinkState, Rules, Status};
use crate::exit::Exit;

#[test]
fn the_first_signal_stops_the_tasks_then_the_link() {
    let mut script = Script::connected(2);
    script.assign("a");
    script.on(confirmed(1));
    script.assign("b");
    script.assign("waiting");
    let expected = [
        rejected("waiting", "the worker is stopping"),
        cancelled(0, CancelReason::Shutdown),
        cancelled(1, CancelReason::Shutdown),
        Effect::StopWaiting,
    ];
    assert_eq!(script.on(Event::Signal), expected);
    assert_eq!(script.assign("late"), [rejected("late", "the worker is stopping")]);
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.finish(1, "b"), [reported(Some(4), "b")]);
    assert_eq!(script.on(confirmed(4)), [delivered(0), delivered(1)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(freed(1)), [Effect::CloseLink]);
    assert_eq!(script.assign("later"), [rejected("later", "the worker is stopping")]);
    assert_eq!(
        script.on(Event::LinkGone { exit: Exit::Failure, reason: None }),
        [Effect::Exit(Exit::Success)]
    );
}

/// A task that is being ended can be interrupted: the reading of its output may take long.
#[test]
fn a_second_reason_interrupts_a_task_that_is_being_ended() {
    let mut script = Script::with(Rules { slots: 2, task_timeout: Duration::from_secs(9), ..RULES });
    script.on(Event::LinkUp);
    script.on(Event::Adopted(vec![adopted_task("old")]));
    script.on(runs(0, 0));
    script.now += Duration::from_secs(1);
    script.assign("new");
    script.on(confirmed(1));
    assert_eq!(script.after(8), [cancelled(0, CancelReason::TimedOut)]);
    assert_eq!(script.on(cancel("old")), [interrupted(0)]);
    assert_eq!(script.on(cancel("new")), [cancelled(1, CancelReason::Requested)]);
    assert_eq!(script.on(cancel("new")), [cancelled(1, CancelReason::Requested)], "the same reason");
    let effects = script.on(Event::Signal);
    assert_eq!(effects, [interrupted(0), interrupted(1), Effect::StopWaiting]);
}

#[test]
fn an_idle_worker_closes_its_link_at_once() {
    let mut script = Script::connected(2);
    assert_eq!(script.on(Event::Signal), [Effect::StopWaiting, Effect::CloseLink]);
    script.after(1);
    assert_eq!(script.on(Event::Signal), [Effect::Exit(Exit::Interrupted)]);
}

#[test]
fn a_stop_without_a_connection_waits_40_seconds_for_one() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(confirmed(1));
    script.on(Event::LinkDown);
    assert_eq!(script.on(Event::Signal), [cancelled(0, CancelReason::Shutdown), Effect::StopWaiting]);
    assert_eq!(script.finish(0, "a"), []);
    assert_eq!(script.after(39), []);
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(1)));
    assert_eq!(script.after(1), [undelivered(0)]);
    assert_eq!(script.on(freed(0)), [Effect::CloseLink]);
    let end = script.on(Event::LinkGone { exit: Exit::Failure, reason: None });
    assert_eq!(end, [Effect::Exit(Exit::Failure)], "a lost report is not a success");
}

#[test]
fn a_stop_ends_after_80_seconds_with_a_job_left() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(Event::Signal);
    assert_eq!(script.after(79), []);
    assert_eq!(script.after(1), [Effect::Exit(Exit::Failure)]);
}

#[test]
fn a_failed_link_ends_the_worker_with_its_exit_code() {
    let mut script = Script::connected(2);
    script.assign("a");
    script.on(confirmed(1));
    script.assign("b");
    script.on(Event::LinkDown);
    let effects = script.on(Event::LinkGone { exit: Exit::Refused, reason: None });
    assert_eq!(effects, [cancelled(0, CancelReason::Shutdown), Effect::StopWaiting]);
    assert_eq!(script.finish(0, "a"), [undelivered(0)]);
    assert_eq!(
        script.on(Event::LinkGone { exit: Exit::Failure, reason: None }),
        [],
        "the first reason stays"
    );
    assert_eq!(script.finish(1, "b"), [unwanted(1)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(freed(1)), [Effect::Exit(Exit::Refused)]);
}

#[test]
fn a_drain_lets_running_tasks_finish() {
    let mut script = Script::with(Rules { slots: 2, drain_timeout: Duration::from_secs(600), ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    script.assign("b");
    script.assign("waiting");
    let text = script.log(Event::Signal);
    assert_eq!(
        text,
        "INFO stopping tasks=2 backlog=1 drain_s=600 budget_s=680 \
        note=\"draining up to 10m, 2 tasks; signal again to end them now\"\n\
        INFO task rejected task=waiting reason=\"the worker is stopping\""
    );
    assert_eq!(script.assign("late"), [rejected("late", "the worker is stopping")]);
    script.now += Duration::from_secs(10);
    assert_eq!(script.log(Event::Tick), "INFO draining tasks=2 working=2 left_s=590");
    // It is still connected, reports, and reconnects.
    assert_eq!(script.on(confirmed(2)), [release(0), release(1)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.on(Event::LinkDown), []);
    assert_eq!(script.on(Event::LinkUp), [claimed(None, "b"), reported(Some(4), "a")]);
    assert_eq!(script.on(confirmed(4)), [delivered(0)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.finish(1, "b"), [reported(Some(5), "b"), Effect::StopWaiting]);
    assert_eq!(script.on(confirmed(5)), [delivered(1)]);
    assert_eq!(script.on(freed(1)), [Effect::CloseLink]);
    assert_eq!(
        script.on(Event::LinkGone { exit: Exit::Failure, reason: None }),
        [Effect::Exit(Exit::Success)]
    );
}

/// A report that cannot be sent does not prolong the drain.
#[test]
fn a_drain_ends_with_the_last_task() {
    let mut script = Script::with(Rules { drain_timeout: Duration::from_secs(600), ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    script.on(confirmed(1));
    script.on(Event::Signal);
    script.on(Event::LinkDown);
    assert_eq!(script.finish(0, "a"), [Effect::StopWaiting]);
    assert_eq!(script.after(39), []);
    assert_eq!(script.after(1), [undelivered(0)]);
    assert_eq!(script.on(freed(0)), [Effect::CloseLink]);
}

#[test]
fn a_drain_ends_with_its_time_or_the_next_signal() {
    let rules = Rules { drain_timeout: Duration::from_secs(600), ..RULES };
    let ending = [cancelled(0, CancelReason::Shutdown), Effect::StopWaiting];
    for by_signal in [false, true] {
        let mut script = Script::with(rules);
        script.on(Event::LinkUp);
        script.assign("a");
        assert_eq!(script.on(Event::Signal), []);
        assert_eq!(script.after(599), []);
        let effects = if by_signal { script.on(Event::Signal) } else { script.after(1) };
        assert_eq!(effects, ending, "{by_signal}");
        assert_eq!(script.after(79), []);
        if by_signal {
            assert_eq!(script.on(Event::Signal), [Effect::Exit(Exit::Interrupted)]);
        } else {
            assert_eq!(
                script.after(1),
                [Effect::Exit(Exit::Failure)],
                "the budget counts from the drain's end"
            );
        }
    }
}

/// `timeout` sends two: one to the process and one to its group.
#[test]
fn signals_within_a_tenth_of_a_second_count_as_one() {
    let mut script = Script::with(Rules { drain_timeout: Duration::from_secs(600), ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    script.on(Event::Signal);
    let mut after = |milliseconds| {
        script.now += Duration::from_millis(milliseconds);
        script.on(Event::Signal)
    };
    assert_eq!((after(0), after(99)), (vec![], vec![]), "they drain");
    assert_eq!(after(1), [cancelled(0, CancelReason::Shutdown), Effect::StopWaiting]);
    assert_eq!((after(50), after(49)), (vec![], vec![]), "it waits for the task");
    assert_eq!(after(1), [Effect::Exit(Exit::Interrupted)]);
}

#[test]
fn the_log_says_what_a_further_signal_does() {
    let limits = [(300, "5m"), (5400, "1h30m"), (90, "1m30s"), (7 * 86_400, "7d")];
    for (seconds, words) in limits {
        let mut script = Script::with(Rules { drain_timeout: Duration::from_secs(seconds), ..RULES });
        script.on(Event::LinkUp);
        script.assign("a");
        let text = script.log(Event::Signal);
        let note = format!("note=\"draining up to {words}, 1 task; signal again to end them now\"");
        assert!(text.contains(&note), "{text}");
        script.now += Duration::from_secs(1);
        let text = script.log(Event::Signal);
        let note = "INFO tasks ending tasks=1 grace_s=10 note=\"signal again to end the process at once\"";
        assert!(text.contains(note), "{text}");
    }
    let mut idle = Script::with(Rules { drain_timeout: Duration::from_secs(300), ..RULES });
    assert_eq!(idle.log(Event::Signal), "INFO stopping tasks=0 backlog=0 drain_s=300 budget_s=380");
}

/// The time for the reports begins after the grace time.
#[test]
fn a_longer_grace_time_prolongs_the_stop() {
    let mut script = Script::with(Rules { stop_grace: Duration::from_secs(60), ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    script.on(confirmed(1));
    script.on(Event::LinkDown);
    let text = script.log(Event::Signal);
    assert!(text.starts_with("INFO stopping tasks=1 backlog=0 drain_s=0 budget_s=130\n"), "{text}");
    assert_eq!(script.finish(0, "a"), []);
    assert_eq!(script.after(89), []);
    assert_eq!(script.after(1), [undelivered(0)]);
    assert_eq!(script.after(39), []);
    assert_eq!(script.after(1), [Effect::Exit(Exit::Failure)]);
}

#[test]
fn the_status_has_the_link_the_tasks_and_the_stop() {
    let mut script = Script::with(Rules { slots: 2, drain_timeout: Duration::from_secs(100), ..RULES });
    let seen = |script: &Script| {
        let Status { link, tasks, stop, .. } = script.coordinator.status();
        (link, tasks, stop.map(|stop| (stop.draining, stop.budget.as_secs())))
    };
    assert_eq!(seen(&script), (LinkState::Connecting, 0, None));
    script.on(Event::LinkFailed);
    assert_eq!(seen(&script), (LinkState::Away, 0, None));
    script.on(Event::LinkUp);
    script.assign("a");
    assert_eq!(seen(&script), (LinkState::Up, 1, None));
    script.on(confirmed(1));
    script.on(Event::LinkDown);
    assert_eq!(seen(&script), (LinkState::Away, 1, None));
    script.on(Event::Signal);
    assert_eq!(seen(&script), (LinkState::Away, 1, Some((true, 180))));
    script.after(100);
    assert_eq!(seen(&script), (LinkState::Away, 1, Some((false, 180))));
}
