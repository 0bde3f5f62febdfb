//! For tests of the coordinator: a script, which has a clock, and the events and effects of scripts.

use super::*;
use crate::job::{LookupFailure, MAX_LOOKUPS, RunLookup};
use crate::protocol::{Assignment, Dialect, Report, RunResult, RunState, RunView};
use time::OffsetDateTime;

/// A coordinator, its clock, and everything it asked for.
pub(super) struct Script {
    pub(super) coordinator: Coordinator,
    pub(super) now: Instant,
    /// Whether look-ups wait for [`Script::answer`]; otherwise each fails at once, as without the REST API.
    pub(super) has_rest: bool,
    /// The look-ups that are under way.
    pub(super) asked: Vec<RunLookup>,
}

impl Script {
    pub(super) fn new(slots: usize) -> Self {
        Self::with(Rules { slots, ..RULES })
    }

    pub(super) fn with(rules: Rules) -> Self {
        let mut script = Self::untried(rules);
        script.coordinator.lookups = Lookups::failed();
        Self { has_rest: false, ..script }
    }

    /// A worker of whose look-ups none has ended.
    pub(super) fn untried(rules: Rules) -> Self {
        let coordinator = Coordinator::new(rules);
        Self { coordinator, now: Instant::now(), has_rest: true, asked: Vec::new() }
    }

    /// A connected worker whose look-ups have worked before: for job 0, whose claim and report had the numbers 1 and 2.
    pub(super) fn with_rest(rules: Rules) -> Self {
        let mut script = Self::untried(rules);
        script.on(Event::LinkUp);
        script.assign("first");
        assert_eq!(script.on(confirmed(1)), [release(0)], "nothing waits before a look-up has succeeded");
        script.answer("first", RunState::InProgress, 0);
        script.finish(0, "first");
        assert_eq!(script.on(confirmed(2)), [received(0)]);
        assert_eq!(script.on(freed(0)), []);
        assert_eq!(script.after_millis(500), []);
        assert_eq!(script.answer("first", RunState::Succeeded, 0), [clean_up(0, "first")]);
        assert_eq!(script.on(cleaned_up(0)), []);
        script
    }

    /// The effects of the answer to the oldest look-up of this run. `changed` is as in [`assignment_at`].
    pub(super) fn answer(&mut self, id: &str, state: RunState, changed: i64) -> Vec<Effect> {
        let number = self.take_look_up(id);
        let run = RunView { state, updated_at: Some(at(changed)) };
        self.on(Event::LookedUp((number, Ok(run))))
    }

    /// The effects of the failure of the oldest look-up of this run.
    pub(super) fn fail(&mut self, id: &str, systemic: bool) -> Vec<Effect> {
        let number = self.take_look_up(id);
        self.on(failure(number, systemic))
    }

    fn take_look_up(&mut self, id: &str) -> u64 {
        let place = self.asked.iter().position(|lookup| lookup.task_id == id);
        self.asked.remove(place.unwrap_or_else(|| panic!("{id} is not looked up: {:?}", self.asked))).number
    }

    /// The runs that are looked up now.
    pub(super) fn looked_up(&self) -> Vec<&str> {
        self.asked.iter().map(|lookup| lookup.task_id.as_str()).collect()
    }

    pub(super) fn connected(slots: usize) -> Self {
        let mut script = Self::new(slots);
        assert_eq!(script.on(Event::LinkUp), []);
        script
    }

    /// The effects of an event, without the log. Every job gets a thread.
    pub(super) fn on(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.handle(event);
        effects.into_iter().filter(|effect| !matches!(effect, Effect::Log(..))).collect()
    }

    /// The effects of an event but the look-ups, and those of the events that follow at once.
    fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.coordinator.handle(event, self.now);
        let mut follow = Vec::new();
        for effect in &effects {
            match effect {
                Effect::Start { job, .. } => follow.push(Event::ThreadStarted { job: *job, error: None }),
                Effect::LookUp(lookup) if self.has_rest => self.asked.push(lookup.clone()),
                Effect::LookUp(lookup) => follow.push(failure(lookup.number, true)),
                _ => {}
            }
        }
        effects.retain(|effect| !matches!(effect, Effect::LookUp(_)));
        assert!(self.asked.len() <= MAX_LOOKUPS, "{:?}", self.asked);
        follow.into_iter().for_each(|event| effects.extend(self.handle(event)));
        effects
    }

    pub(super) fn log(&mut self, event: Event) -> String {
        let effects = self.handle(event);
        let lines = effects.into_iter().filter_map(|effect| match effect {
            Effect::Log(level, text) => Some(format!("{level} {text}")),
            _ => None,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    pub(super) fn assign(&mut self, id: &str) -> Vec<Effect> {
        self.on(assignment(id))
    }

    pub(super) fn after(&mut self, seconds: u64) -> Vec<Effect> {
        self.now += Duration::from_secs(seconds);
        self.on(Event::Tick)
    }

    pub(super) fn after_millis(&mut self, millis: u64) -> Vec<Effect> {
        self.now += Duration::from_millis(millis);
        self.on(Event::Tick)
    }

    pub(super) fn finish(&mut self, job: u64, id: &str) -> Vec<Effect> {
        self.on(finished(job, completed(id)))
    }
}

pub(super) const RULES: Rules = Rules {
    slots: 1,
    task_timeout: Duration::ZERO,
    drain_timeout: Duration::ZERO,
    stop_grace: Duration::from_secs(10),
    reconcile_interval: Duration::ZERO,
    lost_runs: LostRuns::Stop,
    check_disk: false,
    late_sweep_after: Duration::ZERO,
    shared_id: false,
    beat_every: Duration::ZERO,
};

/// `TASK`, or `TASK/EXECUTION`.
pub(super) fn key(id: &str) -> ExecutionKey {
    match id.split_once('/') {
        Some((task_id, execution_id)) => ExecutionKey::new(task_id, Some(execution_id)),
        None => ExecutionKey::new(id, None),
    }
}

pub(super) fn assignment(id: &str) -> Event {
    Event::Message(Incoming::Assignment(Arc::new(Assignment { key: key(id), ..Assignment::default() })))
}

/// An assignment of the other dialect.
pub(super) fn upstream(id: &str) -> Event {
    let assignment = Assignment { key: key(id), dialect: Dialect::Upstream, ..Assignment::default() };
    Event::Message(Incoming::Assignment(Arc::new(assignment)))
}

pub(super) fn cancel(id: &str) -> Event {
    let ExecutionKey { task_id, execution_id } = key(id);
    Event::Message(Incoming::Cancel { task_id, execution_id })
}

pub(super) fn completed(id: &str) -> Arc<EncodedReport> {
    let result = RunResult::Completed { exit_code: 0, out_of_memory: false, note: None };
    let report = Report { result, ..Report::failed(&key(id), Dialect::Old, FailureReason::Internal, "") };
    Arc::new(EncodedReport::new(report, "w"))
}

pub(super) fn claimed(seq: Option<u64>, id: &str) -> Effect {
    Effect::Send { seq, message: Outgoing::Claimed { key: key(id), dialect: Dialect::Old } }
}

pub(super) fn started(job: u64, id: &str) -> Effect {
    let assignment = Arc::new(Assignment { key: key(id), ..Assignment::default() });
    Effect::Start { job: JobId(job), work: Work::Run(assignment) }
}

pub(super) fn reported(seq: Option<u64>, id: &str) -> Effect {
    Effect::Send { seq, message: Outgoing::Report(completed(id)) }
}

pub(super) fn rejected(id: &str, reason: &str) -> Effect {
    Effect::Send {
        seq: None,
        message: Outgoing::Rejected { key: key(id), dialect: Dialect::Old, reason: reason.into() },
    }
}

pub(super) fn failed(id: &str, reason: FailureReason, message: &str) -> Effect {
    let message = message.to_owned();
    Effect::Send {
        seq: None,
        message: Outgoing::Failed { key: key(id), dialect: Dialect::Old, reason, message },
    }
}

pub(super) fn release(job: u64) -> Effect {
    Effect::Release { job: JobId(job) }
}

pub(super) fn delivered(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Delivered }
}

pub(super) fn unwanted(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Unwanted }
}

pub(super) fn undelivered(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Undelivered }
}

pub(super) fn adopted_task(id: &str) -> Arc<AdoptedTask> {
    Arc::new(AdoptedTask {
        key: key(id),
        dialect: Dialect::Old,
        container: format!("container-of-{id}"),
        created_as: "oz-task".into(),
        volumes: Vec::new(),
        ran: None,
        reduced: None,
        ended_for: None,
    })
}

pub(super) fn adopted(job: u64, id: &str) -> Effect {
    Effect::Start { job: JobId(job), work: Work::Adopt(adopted_task(id)) }
}

pub(super) fn runs(job: u64, ran: u64) -> Event {
    Event::Job(JobId(job), JobEvent::Started { ran: Duration::from_secs(ran) })
}

/// A time of the control plane's clock, in seconds from some moment.
pub(super) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_767_000_000 + seconds).unwrap()
}

/// An assignment of a run that was assigned at [`at`] these seconds.
pub(super) fn assignment_at(id: &str, seconds: i64) -> Event {
    let updated_at = Some(at(seconds));
    let assignment = Assignment { key: key(id), updated_at, ..Assignment::default() };
    Event::Message(Incoming::Assignment(Arc::new(assignment)))
}

fn failure(number: u64, systemic: bool) -> Event {
    Event::LookedUp((number, Err(LookupFailure { systemic, absent: !systemic, error: "refused".into() })))
}

pub(super) fn left(id: &str) -> Arc<Leftover> {
    let container = Some(format!("container-of-{id}"));
    Arc::new(Leftover {
        key: key(id),
        container,
        id: None,
        started: true,
        failed: false,
        second_look: false,
        volumes: Vec::new(),
    })
}

pub(super) fn finished(job: u64, report: Arc<EncodedReport>) -> Event {
    let id = match Outgoing::Report(Arc::clone(&report)).key() {
        ExecutionKey { task_id, execution_id: Some(execution) } => format!("{task_id}/{execution}"),
        ExecutionKey { task_id, execution_id: None } => task_id.clone(),
    };
    Event::Job(JobId(job), JobEvent::Finished { report, left: left(&id) })
}

pub(super) fn received(job: u64) -> Effect {
    Effect::Settle { job: JobId(job), settlement: Settlement::Received }
}

pub(super) fn clean_up(job: u64, id: &str) -> Effect {
    Effect::CleanUp { job: JobId(job), left: left(id) }
}

pub(super) fn cleaned_up(job: u64) -> Event {
    Event::Job(JobId(job), JobEvent::CleanedUp(Removal::Gone))
}

pub(super) fn cancelled(job: u64, reason: CancelReason) -> Effect {
    Effect::Cancel { job: JobId(job), reason }
}

pub(super) fn interrupted(job: u64) -> Effect {
    Effect::Interrupt { job: JobId(job) }
}

pub(super) fn confirmed(seq: u64) -> Event {
    Event::Confirmed { seq }
}

pub(super) fn freed(job: u64) -> Event {
    Event::Job(JobId(job), JobEvent::Done(Removal::Gone))
}
