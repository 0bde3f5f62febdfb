//! The late sweep, as scripts.

use std::time::Duration;

use super::super::tests::*;
use super::super::{CancelReason, Effect, Event, Rules};
use crate::job::REMOVE_AGAIN_AFTER;

fn script() -> Script {
    Script::with(Rules { late_sweep_after: Duration::from_secs(30), ..RULES })
}

#[test]
fn the_sweep_runs_once_30_seconds_after_the_start() {
    let mut script = script();
    assert_eq!(script.coordinator.deadline(), None);
    assert_eq!(script.on(Event::Adopted(vec![])), []);
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(30)));
    script.on(Event::LinkFailed);
    assert_eq!(script.after(20), []);
    script.on(Event::LinkUp);
    assert_eq!(script.assign("a"), [started(0, "a"), claimed(Some(1), "a")]);
    assert_eq!(script.after(9), []);
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(1)));
    assert_eq!(script.after(1), [Effect::LateSweep]);
    assert_eq!(script.coordinator.deadline(), None, "an idle worker has no deadline");
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.after(3600), []);
}

#[test]
fn a_sweep_that_left_something_is_repeated() {
    let mut script = script();
    script.on(Event::Adopted(vec![]));
    assert_eq!(script.after(30), [Effect::LateSweep]);
    let swept = |again| Event::LateSwept { unstarted: vec![], again };
    for _ in 0..2 {
        assert_eq!(script.on(swept(true)), []);
        assert_eq!(script.after(REMOVE_AGAIN_AFTER.as_secs() - 1), []);
        assert_eq!(script.after(1), [Effect::LateSweep]);
    }
    script.on(swept(false));
    assert_eq!(script.after(2 * REMOVE_AGAIN_AFTER.as_secs()), []);
    assert_eq!(script.coordinator.deadline(), None);
}

#[test]
fn a_stop_cancels_the_sweep() {
    let mut script = script();
    script.on(Event::Adopted(vec![adopted_task("a")]));
    script.on(Event::LinkUp);
    script.after(29);
    script.now += Duration::from_secs(1);
    assert_eq!(script.on(Event::Signal), [cancelled(0, CancelReason::Shutdown), Effect::StopWaiting]);
    assert_eq!(script.after(1), []);
}

#[test]
fn a_drain_cancels_the_sweep() {
    let hour = Duration::from_secs(3600);
    let late_sweep_after = Duration::from_secs(30);
    let mut script = Script::with(Rules { drain_timeout: hour, late_sweep_after, ..RULES });
    script.on(Event::Adopted(vec![adopted_task("a")]));
    assert_eq!(script.on(Event::Signal), []);
    assert_eq!(script.after(60), []);
}
