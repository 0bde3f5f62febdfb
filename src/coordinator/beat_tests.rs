//! The regular check of the engine and its disk, and outages.

use std::time::Duration;

use super::super::tests::*;
use super::super::{Effect, Event, JobEvent, JobId, LinkState, Rules};

const EVERY: Duration = Duration::from_secs(60);

fn script() -> Script {
    let mut script = Script::with(Rules { slots: 2, beat_every: EVERY, ..RULES });
    script.on(Event::LinkUp);
    script
}

fn found(engine: Option<&str>, disk: Option<&str>) -> Event {
    Event::Checked { engine: engine.map(str::to_owned), disk: disk.map(str::to_owned) }
}

#[test]
fn an_engine_that_answers_is_asked_once_a_minute() {
    let mut script = script();
    assert_eq!(script.coordinator.deadline(), Some(script.now + EVERY));
    assert_eq!(script.after(59), []);
    assert_eq!(script.after(1), [Effect::Beat { tell: false }]);
    // The answer does not come: nothing has changed.
    assert_eq!(script.coordinator.deadline(), Some(script.now + EVERY));
    assert_eq!(script.after(60), [Effect::Beat { tell: false }]);
}

/// The link pings half a minute and a minute after it is up, so that all of it comes at once.
#[test]
fn the_check_comes_with_a_ping_of_the_link() {
    let mut script = script();
    script.after(40);
    script.on(Event::LinkDown);
    script.on(Event::LinkUp);
    assert_eq!(script.after(59), []);
    assert_eq!(script.after(1), [Effect::Beat { tell: false }]);
}

#[test]
fn an_engine_that_is_away_is_asked_more_often_and_its_outage_is_counted() {
    let mut script = script();
    script.after(60);
    assert_eq!(script.log(found(Some("no socket"), None)), "WARN engine away tasks=0 error=\"no socket\"");
    assert_eq!(script.coordinator.status().engine_away.as_deref(), Some("no socket"));
    assert_eq!(script.after(5), [Effect::Beat { tell: true }]);
    assert_eq!(script.log(found(Some("no socket"), None)), "", "it is logged once");
    assert_eq!(script.after(5), [Effect::Beat { tell: true }]);
    assert_eq!(script.coordinator.view(script.now).outage, Some(Duration::from_secs(10)));
    assert_eq!(script.log(found(None, None)), "INFO engine back");
    assert_eq!(script.coordinator.status().engine_away, None);
    let view = script.coordinator.view(script.now + EVERY);
    assert_eq!((view.outage, view.tally.outages()), (None, (1, Duration::from_secs(10))));
    script.after(5);
    assert_eq!(script.after(59), []);
}

/// A task waits for an engine that is away, and new runs are given back. A check alone does not refuse a run: its answer may be
/// old.
#[test]
fn an_outage_that_a_task_has_found_is_one_outage() {
    let mut script = script();
    script.assign("a");
    script.now += Duration::from_secs(1);
    let away = |away: Option<&str>| JobEvent::Engine { away: away.map(str::to_owned) };
    script.on(Event::Job(JobId(0), away(Some("gone"))));
    script.on(found(Some("gone too"), None));
    script.now += Duration::from_secs(7);
    assert_eq!(script.coordinator.status().engine_away.as_deref(), Some("gone"));
    script.on(Event::Job(JobId(0), away(None)));
    assert_eq!(script.coordinator.status().engine_away, None, "the task has used it");
    assert_eq!(script.coordinator.view(script.now).tally.outages(), (1, Duration::from_secs(7)));
    script.on(found(Some("gone"), None));
    assert_eq!(script.assign("b").len(), 2, "it is claimed");
}

#[test]
fn a_disk_that_has_become_too_full_is_a_warning_and_part_of_the_status() {
    let mut script = script();
    assert_eq!(script.log(found(None, Some("1 KiB free"))), "WARN disk low reason=\"1 KiB free\"");
    assert_eq!(script.coordinator.status().disk_low.as_deref(), Some("1 KiB free"));
    assert_eq!(script.after(60), [Effect::Beat { tell: true }], "the end of it is to be told");
    assert_eq!(script.log(found(None, None)), "INFO disk has space again");
    assert_eq!(script.coordinator.status().disk_low, None);
}

#[test]
fn tasks_and_connections_are_counted() {
    let mut script = Script::new(1);
    script.on(Event::LinkFailed);
    script.on(Event::LinkUp);
    script.assign("a");
    script.assign("b");
    script.on(confirmed(1));
    script.now += Duration::from_secs(30);
    script.finish(0, "a");
    script.on(confirmed(2));
    let view = script.coordinator.view(script.now);
    assert_eq!((view.backlog, view.unsettled, view.status.tasks, view.status.slots), (1, 0, 1, 1));
    assert_eq!(view.jobs[0].phase, "cleaning_up");
    script.on(freed(0));
    script.on(Event::LinkDown);
    script.on(Event::LinkDown);
    let view = script.coordinator.view(script.now);
    assert_eq!(view.status.link, LinkState::Away);
    let counts = view.tally.counts();
    assert!(counts.contains(&("claimed", 2)) && counts.contains(&("succeeded", 1)), "{counts:?}");
    assert!(counts.contains(&("dials_failed", 1)) && counts.contains(&("connections_lost", 1)), "{counts:?}");
    // The connection that came back gives `b` to nobody here: it was dropped, and is no failure.
    assert!(!counts.iter().any(|(name, _)| *name == "failed"), "{counts:?}");
}

#[test]
fn each_rejection_has_its_reason() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.assign("waits");
    script.after(60);
    script.on(Event::Job(JobId(0), JobEvent::Engine { away: Some("gone".to_owned()) }));
    script.assign("b");
    script.on(Event::Job(JobId(0), JobEvent::Engine { away: None }));
    script.on(Event::Signal);
    script.assign("c");
    let counts = script.coordinator.view(script.now).tally.counts();
    for reason in ["hold_expired", "engine_unavailable", "stopping"] {
        assert!(counts.contains(&(reason, 1)), "{reason}: {counts:?}");
    }
}
