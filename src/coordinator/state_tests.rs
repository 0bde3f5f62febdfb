//! The log of the state.

use std::time::Duration;

use super::super::tests::*;
use super::super::{Effect, Event, JobEvent, JobId, Rules};

#[test]
fn the_state_has_a_line_for_the_link_each_job_and_the_engine() {
    let mut script = Script::new(4);
    assert_eq!(script.log(Event::LogState), "INFO link state state=connecting tasks=0 backlog=0");
    let engine = script.log(Event::EnginePinged { error: None });
    assert_eq!(engine, "INFO engine state state=answers");
    script.on(Event::LinkUp);
    for id in ["a", "b", "c", "d", "e"] {
        script.assign(id);
    }
    script.on(confirmed(2));
    script.on(runs(1, 5));
    script.on(confirmed(4));
    script.on(runs(2, 0));
    script.on(Event::Job(JobId(2), JobEvent::Exited));
    script.on(runs(3, 0));
    script.on(Event::Job(JobId(3), JobEvent::Engine { away: Some("gone".to_owned()) }));
    script.finish(0, "a");
    let text = script.log(cancel("d"));
    assert!(text.contains("task cancelled task=d phase=running"), "{text}");
    script.now += Duration::from_secs(7);
    let expected = "\
        INFO link state state=connected tasks=4 backlog=0\n\
        INFO job state task=a phase=reporting report=sent claim=confirmed engine=answers\n\
        INFO job state task=b phase=running running_s=12 claim=confirmed engine=answers\n\
        INFO job state task=c phase=collecting claim=confirmed engine=answers\n\
        INFO job state task=d phase=running running_s=7 claim=confirmed ending=cancelled engine=away";
    assert_eq!(script.log(Event::LogState), expected);
    let away = script.log(Event::EnginePinged { error: Some("no answer".to_owned()) });
    assert_eq!(away, "WARN engine state state=away error=\"no answer\"");
}

#[test]
fn a_job_that_prepares_drops_or_cleans_up_says_so() {
    let mut script = Script::connected(2);
    script.assign("a");
    assert!(script.log(Event::LogState).contains("task=a phase=preparing claim=unconfirmed engine=answers"));
    script.on(Event::LinkDown);
    let text = script.log(Event::LogState);
    assert!(text.contains("state=waiting") && text.contains("task=a phase=dropped"), "{text}");
    script.on(Event::LinkUp);
    script.assign("b");
    script.on(confirmed(2));
    script.finish(1, "b");
    script.on(confirmed(3));
    assert!(script.log(Event::LogState).contains("task=b phase=cleaning_up"));
}

#[test]
fn the_engine_is_asked_once_at_a_time_and_a_stop_is_shown() {
    let mut script = Script::with(Rules { drain_timeout: Duration::from_secs(600), ..RULES });
    script.on(Event::LinkUp);
    script.assign("a");
    assert_eq!(script.on(Event::LogState), [Effect::PingEngine]);
    assert_eq!(script.on(Event::LogState), []);
    script.on(Event::EnginePinged { error: None });
    assert_eq!(script.on(Event::LogState), [Effect::PingEngine]);
    script.on(Event::Signal);
    let text = script.log(Event::LogState);
    assert!(text.ends_with("INFO draining tasks=1 working=1 left_s=600"), "{text}");
}
