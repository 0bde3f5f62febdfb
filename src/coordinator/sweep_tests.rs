//! The sweep, as scripts.

use std::sync::Arc;
use std::time::Duration;

use super::super::tests::*;
use super::super::{Effect, Event, JobEvent, JobId, Rules};
use super::MAX_LEFTOVERS;
use crate::job::{Leftover, REMOVE_AGAIN_AFTER, Removal};
use crate::protocol::ExecutionKey;

fn left(id: &str) -> Arc<Leftover> {
    let key = ExecutionKey::new(id, None);
    Arc::new(Leftover {
        key,
        container: Some("c".into()),
        id: None,
        started: true,
        failed: false,
        second_look: false,
        volumes: vec![],
    })
}

fn not_removed(job: u64, id: &str) -> Event {
    Event::Job(JobId(job), JobEvent::NotRemoved { left: left(id) })
}

fn clean_up(job: u64, id: &str) -> Effect {
    Effect::CleanUp { job: JobId(job), left: left(id) }
}

#[test]
fn a_failed_removal_is_tried_again_until_it_succeeds() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.finish(0, "a");
    script.on(confirmed(2));
    assert_eq!(script.on(not_removed(0, "a")), []);
    script.on(freed(0));
    assert_eq!(script.coordinator.deadline(), Some(script.now + REMOVE_AGAIN_AFTER));
    for _ in 0..3 {
        assert_eq!(script.after(REMOVE_AGAIN_AFTER.as_secs() - 1), []);
        assert_eq!(script.after(1), [clean_up(0, "a")]);
        assert_eq!(script.after(3600), [], "it is under way");
        script.on(not_removed(0, "a"));
        script.on(Event::Job(JobId(0), JobEvent::CleanedUp(Removal::Gone)));
    }
    assert_eq!(script.after(REMOVE_AGAIN_AFTER.as_secs()), [clean_up(0, "a")]);
    script.on(Event::Job(JobId(0), JobEvent::CleanedUp(Removal::Gone)));
    assert_eq!((script.after(3600), script.coordinator.deadline()), (vec![], None), "it is removed");
}

#[test]
fn a_worker_that_stops_leaves_it_to_the_next_process() {
    let drain_timeout = Duration::from_secs(24 * 3600);
    for is_left_first in [true, false] {
        let mut script = Script::with(Rules { drain_timeout, ..RULES });
        script.on(Event::Adopted(vec![adopted_task("running")]));
        script.on(Event::LinkUp);
        if is_left_first {
            script.on(not_removed(7, "a"));
        }
        script.on(Event::Signal);
        script.on(not_removed(8, "b"));
        assert_eq!(script.after(3600), [], "{is_left_first}");
    }
}

/// A confirmation that the task's container is gone must not come from its helper.
#[test]
fn a_helper_that_is_left_is_removed_later_apart_from_its_task() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(Event::Job(JobId(0), JobEvent::HelperLeft { left: left("a") }));
    assert_eq!(script.after(REMOVE_AGAIN_AFTER.as_secs() - 1), []);
    assert_eq!(script.after(1), [clean_up(1, "a")]);
    script.on(Event::Job(JobId(1), JobEvent::CleanedUp(Removal::Gone)));
    assert_eq!(script.after(3600), []);
}

#[test]
fn leftovers_are_bounded() {
    let mut script = Script::connected(1);
    for job in 0..2 * MAX_LEFTOVERS as u64 {
        script.on(not_removed(job, "a"));
    }
    assert_eq!(script.coordinator.not_removed.0.len(), MAX_LEFTOVERS);
}
