//! The decisions as scripts: events in, effects out, with a clock that the script turns.

use std::collections::BTreeSet;

use super::*;
use crate::exit::Exit;
use crate::protocol::{Assignment, Invalid, RunResult};

/// A coordinator, its clock, and everything it asked for.
struct Script {
    coordinator: Coordinator,
    now: Instant,
}

impl Script {
    fn new(slots: usize) -> Self {
        Self::with(Rules { slots, ..RULES })
    }

    fn with(rules: Rules) -> Self {
        Self { coordinator: Coordinator::new(rules), now: Instant::now() }
    }

    fn connected(slots: usize) -> Self {
        let mut script = Self::new(slots);
        assert_eq!(script.on(Event::LinkUp), []);
        script
    }

    /// The effects of an event, without the log.
    fn on(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.coordinator.handle(event, self.now);
        effects.into_iter().filter(|effect| !matches!(effect, Effect::Log(..))).collect()
    }

    fn log(&mut self, event: Event) -> String {
        let effects = self.coordinator.handle(event, self.now);
        let lines = effects.into_iter().filter_map(|effect| match effect {
            Effect::Log(level, text) => Some(format!("{level} {text}")),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn assign(&mut self, id: &str) -> Vec<Effect> {
        self.on(assignment(id))
    }

    fn after(&mut self, seconds: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(seconds);
        self.on(Event::Tick)
    }

    fn finish(&mut self, job: u64, id: &str) -> Vec<Effect> {
        self.on(Event::Finished { job: JobId(job), report: done(id) })
    }
}

const RULES: Rules = Rules {
    slots: 1,
    task_timeout: Duration::ZERO,
    drain_timeout: Duration::ZERO,
    reconcile_interval: Duration::ZERO,
    lost_runs: LostRuns::Stop,
};

fn assignment(id: &str) -> Event {
    Event::Incoming(Incoming::Assignment(Arc::new(Assignment {
        task_id: id.into(),
        ..Assignment::default()
    })))
}

fn cancel(id: &str) -> Event {
    Event::Incoming(Incoming::Cancel { task_id: id.into() })
}

fn done(id: &str) -> Arc<Report> {
    let result = RunResult::Completed { exit_code: 0, out_of_memory: false };
    Arc::new(Report { result, ..Report::failed(id, FailureReason::Internal, "") })
}

fn claimed(seq: Option<u64>, id: &str) -> Effect {
    Effect::Send { seq, message: Outgoing::Claimed { task_id: id.into() } }
}

fn started(job: u64, id: &str) -> Effect {
    let assignment = Arc::new(Assignment { task_id: id.into(), ..Assignment::default() });
    Effect::Start { job: JobId(job), work: Work::Run(assignment) }
}

fn reported(seq: Option<u64>, id: &str) -> Effect {
    Effect::Send { seq, message: Outgoing::Report(done(id)) }
}

fn rejected(id: &str, reason: &str) -> Effect {
    Effect::Send { seq: None, message: Outgoing::Rejected { task_id: id.into(), reason: reason.into() } }
}

fn failed(id: &str, reason: FailureReason, message: &str) -> Effect {
    Effect::Send { seq: None, message: Outgoing::Report(Arc::new(Report::failed(id, reason, message))) }
}

fn release(job: u64) -> Effect {
    Effect::Release { job: JobId(job) }
}

fn settle(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Delivered }
}

fn dropped(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Unwanted }
}

fn left(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Undelivered }
}

fn left_over(id: &str) -> Arc<LeftOver> {
    Arc::new(LeftOver {
        task_id: id.into(),
        container: format!("container-of-{id}"),
        volumes: Vec::new(),
        ran: Duration::ZERO,
        ended_for: None,
    })
}

fn adopted(job: u64, id: &str) -> Effect {
    Effect::Start { job: JobId(job), work: Work::Adopt(left_over(id)) }
}

fn runs(job: u64, ran: u64) -> Event {
    Event::Started { job: JobId(job), ran: Duration::from_secs(ran) }
}

fn ask(jobs: &[(u64, &str)]) -> Effect {
    Effect::Ask(jobs.iter().map(|(job, id)| (JobId(*job), (*id).to_owned())).collect())
}

fn over(job: u64, end: RunEnd) -> Event {
    Event::Asked { over: vec![(JobId(job), end)] }
}

fn cancelled(job: u64, reason: CancelReason) -> Effect {
    Effect::Cancel { job: JobId(job), reason }
}

fn confirmed(seq: u64) -> Event {
    Event::Confirmed { seq }
}

fn freed(job: u64) -> Event {
    Event::Done { job: JobId(job) }
}

#[test]
fn one_task_from_assignment_to_a_free_slot() {
    let mut script = Script::connected(1);
    assert_eq!(script.assign("a"), [claimed(Some(1), "a"), started(0, "a")]);
    assert_eq!(script.on(confirmed(1)), [release(0)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    assert_eq!(script.on(confirmed(1)), []);
    assert_eq!(script.on(confirmed(2)), [settle(0)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.coordinator.deadline(), None);
    assert_eq!(script.assign("a"), [claimed(Some(3), "a"), started(1, "a")]);
}

#[test]
fn a_task_is_claimed_only_when_a_slot_is_free_for_it() {
    let mut script = Script::connected(2);
    assert_eq!(script.assign("a").len(), 2);
    assert_eq!(script.assign("b").len(), 2);
    assert_eq!(script.assign("c"), []);
    assert_eq!(script.assign("d"), []);
    // A report that is not confirmed still holds the slot: the number of reports that wait is bounded by it.
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.on(confirmed(3)), [settle(0), release(1)]);
    assert_eq!(script.on(freed(0)), [claimed(Some(4), "c"), started(2, "c")]);
}

#[test]
fn one_confirmation_covers_all_that_was_sent_before() {
    let mut script = Script::connected(3);
    for id in ["a", "b", "c"] {
        script.assign(id);
    }
    assert_eq!(script.finish(1, "b"), [reported(Some(4), "b")]);
    assert_eq!(script.on(confirmed(2)), [release(0)]);
    assert_eq!(script.on(confirmed(4)), [settle(1), release(2)]);
    assert_eq!(script.on(confirmed(4)), []);
}

#[test]
fn the_backlog_is_bounded_and_held_for_so_long() {
    let mut script = Script::connected(1);
    script.assign("running");
    for waiting in 0..BACKLOG {
        assert_eq!(script.assign(&waiting.to_string()), []);
    }
    assert_eq!(script.assign("more"), [rejected("more", "the worker's backlog is full")]);
    assert_eq!(script.coordinator.deadline(), Some(script.now + CLAIM_HOLD));
    assert_eq!(script.after(59), []);
    let given_back = script.after(1);
    assert_eq!(given_back.len(), BACKLOG);
    assert_eq!(given_back[0], rejected("0", "no slot was free in time"));
    assert_eq!(script.coordinator.deadline(), None);
    // Given back is forgotten: the same task may come again.
    script.finish(0, "running");
    script.on(confirmed(2));
    script.on(freed(0));
    assert_eq!(script.assign("0"), [claimed(Some(3), "0"), started(1, "0")]);
}

#[test]
fn an_assignment_for_a_task_that_is_here_is_answered_and_not_started_again() {
    let mut script = Script::connected(1);
    script.assign("a");
    assert_eq!(script.assign("a"), [claimed(None, "a")]);
    script.assign("b");
    assert_eq!(script.assign("b"), []);
    script.finish(0, "a");
    assert_eq!(script.assign("a"), [], "the report is on its way, and once is enough");
    script.on(confirmed(2));
    assert_eq!(script.assign("a"), [reported(None, "a")]);
    assert_eq!(script.on(freed(0)), [claimed(Some(3), "b"), started(1, "b")]);
    assert_eq!(script.on(freed(1)).len(), 1, "the failure of a job that could not report");
    assert_eq!(script.coordinator.jobs.len(), 0);
}

#[test]
fn a_lost_connection_drops_the_backlog_and_what_may_not_have_been_claimed() {
    let mut script = Script::connected(2);
    script.assign("confirmed");
    script.on(confirmed(1));
    script.assign("unconfirmed");
    script.assign("waiting");
    assert_eq!(script.on(Event::LinkDown), [cancelled(1, CancelReason::ClaimLost)]);
    assert_eq!(script.coordinator.deadline(), None);
    // Nothing is sent while there is no connection; the dropped one is never reported.
    assert_eq!(script.finish(0, "confirmed"), []);
    assert_eq!(script.finish(1, "unconfirmed"), [dropped(1)]);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(3), "confirmed")]);
    // Its run comes back before the former execution is cleaned up: it waits for that.
    assert_eq!(script.assign("unconfirmed"), []);
    assert_eq!(script.on(freed(1)), [claimed(Some(4), "unconfirmed"), started(2, "unconfirmed")]);
    assert_eq!(script.on(confirmed(4)), [settle(0), release(2)]);
}

#[test]
fn a_report_is_sent_again_until_it_is_confirmed() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(confirmed(1));
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    for round in 0..5 {
        assert_eq!(script.on(Event::LinkDown), []);
        assert_eq!(script.on(Event::LinkUp), [reported(Some(3 + round), "a")]);
    }
    // What an earlier connection numbered cannot confirm what this one sent.
    assert_eq!(script.on(confirmed(6)), []);
    assert_eq!(script.on(confirmed(7)), [settle(0)]);
}

#[test]
fn a_report_whose_claim_was_not_confirmed_is_not_sent_on_another_connection() {
    let mut script = Script::connected(1);
    script.assign("a");
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    assert_eq!(script.on(Event::LinkDown), [dropped(0)]);
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.assign("a"), []);
    assert_eq!(script.on(freed(0)), [claimed(Some(3), "a"), started(1, "a")]);
}

#[test]
fn a_cancel_in_every_phase() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.assign("b");
    let answer = failed("b", FailureReason::TaskCancelled, "cancelled before it was started");
    assert_eq!(script.on(cancel("b")), [answer]);
    assert_eq!(script.on(cancel("a")), [cancelled(0, CancelReason::Requested)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(2), "a")]);
    assert_eq!(script.on(cancel("a")), []);
    script.on(confirmed(2));
    assert_eq!(script.on(cancel("a")), []);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(cancel("a")), []);
    assert_eq!(script.on(cancel("nobody")), []);
}

#[test]
fn a_wrong_assignment_is_answered_unless_it_names_a_task_that_is_here() {
    let invalid = |id: Option<&str>| {
        Event::Invalid(Invalid { task_id: id.map(str::to_owned), message: "data.task: is missing".into() })
    };
    let mut script = Script::connected(1);
    assert_eq!(script.on(invalid(None)), []);
    let answer = failed("x", FailureReason::InvalidAssignment, "data.task: is missing");
    assert_eq!(script.on(invalid(Some("x"))), [answer]);
    script.assign("a");
    script.assign("b");
    assert_eq!(script.on(invalid(Some("a"))), []);
    assert_eq!(script.on(invalid(Some("b"))), []);
    assert_eq!(script.on(Event::Incoming(Incoming::Unknown { kind: "news".into() })), []);
}

#[test]
fn every_line_about_a_task_names_it_and_no_id_can_forge_a_line() {
    let mut script = Script::connected(1);
    let log = script.log(assignment("a b\nERROR forged"));
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.lines().all(|line| line.contains(r#"task="a b\nERROR forged""#)), "{log}");
    assert!(script.log(cancel("gone")).contains("task=gone"));
}

#[test]
fn the_first_signal_stops_in_order() {
    let mut script = Script::connected(2);
    script.assign("a");
    script.on(confirmed(1));
    script.assign("b");
    script.assign("waiting");
    let expected = [
        rejected("waiting", "the worker is stopping"),
        cancelled(0, CancelReason::Shutdown),
        cancelled(1, CancelReason::Shutdown),
        Effect::Hurry,
    ];
    assert_eq!(script.on(Event::Signal), expected);
    assert_eq!(script.assign("late"), [rejected("late", "the worker is stopping")]);
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.finish(1, "b"), [reported(Some(4), "b")]);
    assert_eq!(script.on(confirmed(4)), [settle(0), settle(1)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(freed(1)), [Effect::CloseLink]);
    assert_eq!(script.assign("later"), [rejected("later", "the worker is stopping")]);
    assert_eq!(script.on(Event::LinkGone { exit: Exit::Failure }), [Effect::Exit(Exit::Success)]);
}

#[test]
fn an_idle_worker_stops_at_once_and_a_second_signal_ends_it() {
    let mut script = Script::connected(2);
    assert_eq!(script.on(Event::Signal), [Effect::Hurry, Effect::CloseLink]);
    assert_eq!(script.on(Event::Signal), [Effect::Exit(Exit::Interrupted)]);
}

#[test]
fn a_stop_without_a_connection_waits_for_one_but_not_for_ever() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(confirmed(1));
    script.on(Event::LinkDown);
    assert_eq!(script.on(Event::Signal), [cancelled(0, CancelReason::Shutdown), Effect::Hurry]);
    assert_eq!(script.finish(0, "a"), []);
    assert_eq!(script.after(39), []);
    assert_eq!(script.coordinator.deadline(), Some(script.now + Duration::from_secs(1)));
    assert_eq!(script.after(1), [left(0)]);
    assert_eq!(script.on(freed(0)), [Effect::CloseLink]);
    let end = script.on(Event::LinkGone { exit: Exit::Failure });
    assert_eq!(end, [Effect::Exit(Exit::Failure)], "a lost report is not a success");
}

#[test]
fn a_stop_ends_even_when_a_job_does_not() {
    let mut script = Script::connected(1);
    script.assign("a");
    script.on(Event::Signal);
    assert_eq!(script.after(79), []);
    assert_eq!(script.after(1), [Effect::Exit(Exit::Failure)]);
}

#[test]
fn a_link_that_cannot_go_on_ends_the_worker_with_its_code() {
    let mut script = Script::connected(2);
    script.assign("a");
    script.on(confirmed(1));
    script.assign("b");
    script.on(Event::LinkDown);
    let gone = script.on(Event::LinkGone { exit: Exit::Refused });
    assert_eq!(gone, [cancelled(0, CancelReason::Shutdown), Effect::Hurry]);
    assert_eq!(script.finish(0, "a"), [left(0)]);
    assert_eq!(script.on(Event::LinkGone { exit: Exit::Failure }), [], "the first reason stays");
    assert_eq!(script.finish(1, "b"), [dropped(1)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.on(freed(1)), [Effect::Exit(Exit::Refused)]);
}

#[test]
fn a_job_that_ends_without_a_report_is_reported_as_a_defect() {
    let mut script = Script::connected(1);
    script.assign("a");
    let answer = failed("a", FailureReason::Internal, "the worker failed while it ran the task");
    assert_eq!(script.on(freed(0)), [answer]);
}

#[test]
fn what_an_earlier_process_left_is_worked_on_before_anything_new() {
    let mut script = Script::new(1);
    let found = Event::Adopted(vec![left_over("a"), left_over("b")]);
    assert_eq!(script.on(found), [adopted(0, "a"), adopted(1, "b")], "even beyond the slots");
    assert_eq!(script.on(Event::LinkUp), []);
    assert_eq!(script.assign("a"), [claimed(None, "a")], "it is here already");
    assert_eq!(script.assign("c"), []);
    assert_eq!(script.on(cancel("b")), [cancelled(1, CancelReason::Requested)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(1), "a")]);
    assert_eq!(script.on(confirmed(1)), [settle(0)]);
    assert_eq!(script.on(freed(0)), [], "the other one still has the only slot");
    assert_eq!(script.on(Event::LinkDown), [], "its claim was another process's");
    assert_eq!(script.finish(1, "b"), []);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(2), "b")]);
}

#[test]
fn a_task_has_its_time_from_the_start_of_its_container() {
    let mut script = Script::with(Rules { slots: 2, task_timeout: Duration::from_secs(100), ..RULES });
    script.on(Event::Adopted(vec![left_over("old")]));
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
    script.on(Event::Disk { full: Some("full".into()) });
    assert_eq!(script.assign("d"), [rejected("d", "full")]);
    script.on(Event::Disk { full: None });
    assert_eq!(script.assign("d"), []);
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
        "INFO stopping tasks=2 backlog=1 drain_s=600 budget_s=680\n\
        INFO task rejected task=waiting reason=\"the worker is stopping\""
    );
    assert_eq!(script.assign("late"), [rejected("late", "the worker is stopping")]);
    script.now += Duration::from_secs(10);
    assert_eq!(script.log(Event::Tick), "INFO draining tasks=2 working=2 left_s=590");
    // It is still connected, reports, and reconnects.
    assert_eq!(script.on(confirmed(2)), [release(0), release(1)]);
    assert_eq!(script.finish(0, "a"), [reported(Some(3), "a")]);
    assert_eq!(script.on(Event::LinkDown), []);
    assert_eq!(script.on(Event::LinkUp), [reported(Some(4), "a")]);
    assert_eq!(script.on(confirmed(4)), [settle(0)]);
    assert_eq!(script.on(freed(0)), []);
    assert_eq!(script.finish(1, "b"), [reported(Some(5), "b")]);
    assert_eq!(script.on(confirmed(5)), [settle(1)]);
    assert_eq!(script.on(freed(1)), [Effect::CloseLink]);
    assert_eq!(script.on(Event::LinkGone { exit: Exit::Failure }), [Effect::Exit(Exit::Success)]);
}

#[test]
fn a_drain_ends_with_its_time_or_the_next_signal_and_a_further_one_ends_the_process() {
    let rules = Rules { drain_timeout: Duration::from_secs(600), ..RULES };
    let ending = [cancelled(0, CancelReason::Shutdown), Effect::Hurry];
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

/// Seeded random histories: whatever the order of events, no run is started twice while it is here, no more than the
/// slots are in use, every number is new, and all slots come free.
#[test]
fn random_histories_keep_the_rules() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut script = Script::with(Rules {
            slots: 3,
            task_timeout: Duration::from_secs(200),
            drain_timeout: Duration::from_secs(100),
            reconcile_interval: Duration::from_secs(60),
            lost_runs: LostRuns::Stop,
        });
        let mut here: BTreeMap<JobId, String> = BTreeMap::new();
        let mut working: BTreeSet<JobId> = BTreeSet::new();
        let mut last_seq = 0;
        for _ in 0..200 {
            script.now += Duration::from_secs(random.below(20));
            let event = random.event(&here, &working, last_seq);
            if let Event::Finished { job, .. } = &event {
                working.remove(job);
            }
            if let Event::Done { job } = &event {
                here.remove(job);
            }
            for effect in script.on(event) {
                match effect {
                    Effect::Start { job, work } => {
                        assert!(!here.values().any(|id| *id == work.task_id()), "seed {seed}: started twice");
                        assert!(here.insert(job, work.task_id().to_owned()).is_none());
                        working.insert(job);
                    }
                    Effect::Send { seq: Some(seq), .. } => {
                        assert!(seq > last_seq, "seed {seed}: number used again");
                        last_seq = seq;
                    }
                    _ => {}
                }
            }
            assert!(here.len() <= 3, "seed {seed}: more jobs than slots");
            assert!(script.coordinator.backlog.len() <= BACKLOG);
        }
    }
}

struct Random(u64);

impl Random {
    /// A multiplicative generator is all that picking an event needs.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn event(&mut self, here: &BTreeMap<JobId, String>, working: &BTreeSet<JobId>, seq: u64) -> Event {
        let id = self.below(8).to_string();
        let nth = self.below(3) as usize;
        let job = JobId(self.below(12));
        match self.below(12) {
            0 => Event::LinkDown,
            1 | 2 => Event::LinkUp,
            3 => cancel(&id),
            4 => confirmed(self.below(seq + 1)),
            5 => match working.iter().nth(nth) {
                Some(job) => Event::Finished { job: *job, report: done(&here[job]) },
                None => Event::Tick,
            },
            6 => match here.keys().filter(|job| !working.contains(*job)).nth(nth) {
                Some(job) => freed(job.0),
                None => Event::Tick,
            },
            7 => Event::Started { job, ran: Duration::from_secs(self.below(300)) },
            8 => Event::Engine { job, away: self.below(3) == 0 },
            9 => Event::Asked { over: vec![(job, RunEnd::Failed)] },
            _ => assignment(&id),
        }
    }
}
