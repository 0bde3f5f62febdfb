//! Which look-up is next, and what failures do, as scripts.

use super::super::tests::*;
use super::super::{Event, Rules, Settlement};
use super::*;
use crate::protocol::{Dialect, RunState};

#[test]
fn claims_are_looked_up_first_then_reports_then_running_tasks() {
    let mut script =
        Script::with_rest(Rules { slots: 8, reconcile_interval: Duration::from_secs(60), ..RULES });
    for (job, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "f")] {
        script.on(assignment_at(id, 10));
        script.on(confirmed(job + 2));
        script.answer(id, RunState::InProgress, 11);
    }
    // The report is due when the poll is.
    script.after_millis(59_500);
    script.finish(6, "f");
    script.on(confirmed(9));
    script.after_millis(500);
    assert_eq!(script.looked_up(), ["f", "a", "b", "c"], "the report and three running tasks");
    script.on(assignment_at("new", 10));
    script.on(confirmed(10));
    assert_eq!(script.looked_up(), ["f", "a", "b", "c"], "four at a time");
    script.answer("f", RunState::InProgress, 11);
    assert_eq!(script.looked_up(), ["a", "b", "c", "new"], "the claim is before the other running tasks");
    script.answer("a", RunState::InProgress, 11);
    assert_eq!(script.looked_up(), ["b", "c", "new", "d"]);
}

#[test]
fn the_first_failure_is_logged_with_its_effect() {
    let mut script = Script::untried(Rules { slots: 4, ..RULES });
    script.on(Event::LinkUp);
    let fail = |script: &mut Script, id: &str, seq| {
        script.assign(id);
        script.on(confirmed(seq));
        let number = script.asked.pop().unwrap().number;
        script.log(failed_look_up(number))
    };
    let log = fail(&mut script, "a", 1);
    assert!(
        log.starts_with("WARN run look-up failed error=refused note=\"until look-ups succeed, "),
        "{log}"
    );
    assert_eq!(fail(&mut script, "b", 2), "", "once");
    script.assign("c");
    script.on(confirmed(3));
    script.answer("c", RunState::InProgress, 0);
    script.assign("d");
    script.on(confirmed(4));
    let number = script.asked.pop().unwrap().number;
    assert!(!script.log(failed_look_up(number)).contains("look-up failed"), "ten minutes have not passed");
}

/// Its id cannot be part of a URL. Nothing else fails for that.
#[test]
fn a_run_that_has_no_page_is_not_looked_up_and_its_confirmations_count() {
    for id in [".", ".."] {
        let mut script = Script::with_rest(Rules { reconcile_interval: Duration::from_secs(60), ..RULES });
        let log = script.log(assignment_at(id, 10));
        let warning = format!("WARN run not looked up task={id} reason=\"its id cannot be part of a URL;");
        assert!(log.contains(&warning), "{log}");
        let seq = script.coordinator.last_seq;
        let job = *script.coordinator.jobs.keys().next().unwrap();
        assert_eq!(script.on(confirmed(seq)), [Effect::Release { job }]);
        script.on(runs(job.0, 0));
        assert_eq!((script.after(61), script.looked_up()), (vec![], vec![]));
        script.finish(job.0, id);
        let settled = Effect::Settle { job, settlement: Settlement::Delivered };
        assert_eq!(script.on(confirmed(seq + 1)), [settled]);
        assert!(script.coordinator.lookups.have_succeeded() && script.looked_up().is_empty());
    }
    // A claim of an earlier process is failed without a look-up.
    let mut script = Script::untried(RULES);
    script.on(Event::Unstarted(vec![(key("."), Dialect::Old), (key("a"), Dialect::Old)]));
    script.on(Event::LinkUp);
    assert_eq!(script.looked_up(), ["a"]);
}

fn failed_look_up(number: u64) -> Event {
    Event::LookedUp((number, Err(LookupFailure { systemic: true, absent: false, error: "refused".into() })))
}

#[test]
fn later_failures_are_logged_once_after_ten_minutes() {
    let mut lookups = Lookups::new();
    let start = Instant::now();
    assert!(lookups.is_news(true, start));
    assert!(!lookups.is_news(true, start + WARN_EVERY), "it has failed since");
    assert!(!lookups.is_news(false, start));
    assert!(!lookups.is_news(true, start + WARN_EVERY / 2));
    assert!(!lookups.is_news(false, start));
    assert!(lookups.is_news(true, start + WARN_EVERY));
}

#[test]
fn a_systemic_failure_ends_a_poll() {
    let rules = Rules { slots: 8, reconcile_interval: Duration::from_secs(60), ..RULES };
    for (systemic, rest) in [(true, vec!["b", "c", "d"]), (false, vec!["b", "c", "d", "e"])] {
        let mut script = Script::with_rest(rules);
        for (job, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
            script.assign(id);
            script.on(confirmed(job + 2));
            script.answer(id, RunState::InProgress, 0);
        }
        script.after(60);
        assert_eq!(script.fail("a", systemic), []);
        assert_eq!(script.looked_up(), rest);
    }
}

#[test]
fn an_unknown_number_changes_nothing() {
    let mut script = Script::with_rest(RULES);
    assert_eq!(script.on(failed_look_up(7000)), []);
    assert!(script.coordinator.lookups.have_succeeded());
}
