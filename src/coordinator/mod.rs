//! Every decision of the worker: what it admits, claims, cancels, reports and gives back, and when it ends.
//!
//! Pure: events and the time come in, effects go out, and the same events always give the same effects.
//!
//! The rules:
//! - A run is claimed only when a slot is free for it and its job has a thread. An unclaimed run stays with the control plane.
//!   One that has waited long is looked up before.
//! - A claim that was not confirmed when its connection ended may not have arrived, and the run may go to another worker: the
//!   task is dropped, unstarted and unreported. If the run waits for it nevertheless, it is failed after the next connection.
//! - A confirmation proves receipt only. The look-up after it decides: a claim or a report that is not stored is sent again, and a
//!   task whose run was taken back is dropped, unstarted.
//! - While no look-up has ever succeeded nothing waits for one, and the confirmation decides.
//! - A report holds its slot until it is confirmed, and its container until it is stored.
//! - What the operator does not admit is failed before anything is done for it, and without a claim.
//! - Nothing is started twice: an assignment of an execution that the worker already holds is answered with its state.

mod assign;
mod beat;
mod claims;
mod closing;
mod event;
mod failed;
mod job;
mod late_sweep;
mod log_limit;
mod lookups;
mod lost_claims;
mod refusal;
mod settle;
mod state;
mod stop;
mod sweep;
mod view;
mod watch;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::job::{AdoptedTask, JobEvent, JobId, Leftover, Removal, Settlement, Work};
use crate::logging::value;
use crate::metrics::{Phase, Tally};
use crate::policy::{Admission, LostRuns};
use crate::protocol::{EncodedReport, ExecutionKey, FailureReason, Incoming, Outgoing};
use crate::sys::cancel::CancelReason;

use assign::PendingAssignment;
pub use assign::{BACKLOG, CLAIM_HOLD};
use beat::Beat;
use closing::EndedExecutions;
pub use event::{Effect, Event, LinkState, Status, Stopping};
use failed::FailedSweep;
use job::{JobState, Lost};
use late_sweep::LateSweep;
use log_limit::LogLimit;
use lookups::Lookups;
use lost_claims::LostClaims;
pub use refusal::Refusal;
use refusal::Refusals;
use settle::Settlements;
use stop::Stop;
use sweep::NotRemoved;
pub use view::{JobView, View};

/// The operator's choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The most tasks that run at the same time.
    pub slots: usize,
    /// How long a task may run; zero: without a limit.
    pub task_timeout: Duration,
    /// How long running tasks may continue after the first signal.
    pub drain_timeout: Duration,
    /// From TERM to KILL for the container of a task that is ended.
    pub stop_grace: Duration,
    /// How often the runs of running tasks are looked up; zero: never. Claims and reports are looked up in any case.
    pub reconcile_interval: Duration,
    /// What to do with a task whose run failed at the control plane.
    pub lost_runs: LostRuns,
    /// Whether the engine's disk is checked before a task is claimed.
    pub check_disk: bool,
    /// When the late sweep is due, from the first event; zero: never.
    pub late_sweep_after: Duration,
    /// Whether several workers have this worker's id.
    pub shared_id: bool,
    /// How often an engine that answers is asked again; zero: never.
    pub beat_every: Duration,
}

/// The state that all decisions are made from.
pub struct Coordinator {
    rules: Rules,
    /// `None` admits everything.
    admission: Option<Admission>,
    link: LinkState,
    link_is_gone: bool,
    refusals: Refusals,
    next_job: u64,
    last_seq: u64,
    backlog: VecDeque<PendingAssignment>,
    jobs: BTreeMap<JobId, JobState>,
    /// The jobs whose last call to the engine got no answer.
    engine_away: BTreeMap<JobId, String>,
    beat: Beat,
    tally: Tally,
    checking_disk: bool,
    /// When the last check of the disk ended, if it found space.
    had_space_at: Option<Instant>,
    pinging: bool,
    lookups: Lookups,
    lost_claims: LostClaims,
    settling: Settlements,
    ended: EndedExecutions,
    /// When the next poll of the runs is due; `None` while there are none.
    poll_at: Option<Instant>,
    late_sweep: LateSweep,
    failed_sweep: FailedSweep,
    not_removed: NotRemoved,
    stop: Option<Stop>,
    /// The warning about an unclear dialect was logged.
    warned_of_dialect: bool,
    log_limit: LogLimit,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// Returns a coordinator without tasks.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            admission: None,
            link: LinkState::Connecting,
            link_is_gone: false,
            refusals: Refusals::default(),
            next_job: 0,
            last_seq: 0,
            backlog: VecDeque::new(),
            jobs: BTreeMap::new(),
            engine_away: BTreeMap::new(),
            beat: Beat::default(),
            tally: Tally::default(),
            checking_disk: false,
            had_space_at: None,
            pinging: false,
            lookups: Lookups::new(),
            lost_claims: LostClaims::default(),
            settling: Settlements::new(),
            ended: EndedExecutions::default(),
            poll_at: None,
            late_sweep: LateSweep::Unplanned,
            failed_sweep: FailedSweep::default(),
            not_removed: NotRemoved::default(),
            stop: None,
            warned_of_dialect: false,
            log_limit: LogLimit::default(),
            effects: Vec::new(),
        }
    }

    /// Returns the same coordinator, which refuses assignments that are not admitted.
    pub fn with_admission(self, admission: Admission) -> Self {
        Self { admission: Some(admission), ..self }
    }

    /// Handles an event and returns its effects. `now` must not decrease.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Adopted(adopted) => adopted.into_iter().for_each(|task| self.adopt(task, now)),
            Event::Unstarted(found) => self.remember_unstarted(found, now),
            Event::LateSwept { unstarted, again } => self.late_swept(unstarted, again, now),
            Event::LinkFailed => self.link_failed(),
            Event::LinkRefused(refusal) => self.link_refused(refusal, now),
            Event::LinkUp => self.link_up(now),
            Event::LinkDown => self.link_down(now),
            Event::LinkGone { exit, reason } => self.link_gone(exit, reason, now),
            Event::Message(Incoming::Assignment(assignment)) => self.assigned(assignment, now),
            Event::Message(Incoming::Cancel { task_id, execution_id }) => {
                self.cancelled(&task_id, execution_id.as_deref(), now);
            }
            Event::Message(Incoming::Unknown { kind }) => {
                self.effects.push(warn(format!("message ignored type={}", value(&kind))));
            }
            Event::Invalid(invalid) => self.invalid(&invalid),
            Event::Binary { bytes } => {
                self.effects.push(warn(format!("message invalid error=\"a binary frame\" bytes={bytes}")));
            }
            Event::Confirmed { seq } => self.confirmed(seq, now),
            Event::ThreadStarted { job, error: None } => self.thread_started(job, now),
            Event::ThreadStarted { job, error: Some(error) } => self.no_thread(job, &error),
            Event::NoDescriptors { job, error } => self.no_descriptors(job, &error),
            Event::DiskChecked { low } => self.disk_checked(low.as_deref(), now),
            Event::LookedUp(answer) => self.looked_up(answer, now),
            Event::Job(id, JobEvent::Started { ran }) => self.started(id, ran, now),
            Event::Job(id, JobEvent::Engine { away }) => self.engine(id, away),
            Event::Job(id, JobEvent::Finished { report, left }) => self.finished(id, report, left, now),
            Event::Job(id, JobEvent::Done(removal)) => self.done(id, removal, now),
            Event::Job(id, JobEvent::Exited) => self.exited(id),
            Event::Job(_, JobEvent::Kept) => self.failed_sweep.kept(now),
            Event::Job(id, JobEvent::NotRemoved { left }) => self.remove_later(id, left, now),
            Event::Job(_, JobEvent::HelperLeft { left }) => self.remove_helper_later(left, now),
            Event::Job(id, JobEvent::CleanedUp(removal)) => self.cleaned_up(id, removal, now),
            Event::Signal => self.signal(now),
            Event::LogState => self.log_state(now),
            Event::EnginePinged { error } => self.engine_pinged(error.as_deref()),
            Event::FailedSwept { due } => self.failed_sweep.swept(due, now),
            Event::Checked { engine, disk } => self.checked(engine, disk.as_deref(), now),
            Event::Tick => {}
        }
        self.expire(now);
        self.start_unanswered(now);
        self.settle_silent(now);
        self.sweep(now);
        self.fail_lost_claims(now);
        self.remove_leftovers();
        self.admit(now);
        self.time_out(now);
        self.poll_runs(now);
        self.late_sweep(now);
        self.sweep_failed(now);
        self.beat(now);
        self.continue_stop(now);
        self.look_up(now);
        self.limited_effects(now)
    }

    /// Returns the effects without the log lines that are too many.
    fn limited_effects(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = std::mem::take(&mut self.effects);
        let limit = &mut self.log_limit;
        effects.retain(|effect| !matches!(effect, Effect::Log(_, line) if !limit.allows(line, now)));
        let left_out = limit.take_left_out(now).into_iter();
        effects.extend(
            left_out
                .map(|(line, count)| warn(format!("log lines left out line={} count={count}", value(line)))),
        );
        effects
    }

    /// Returns when [`Event::Tick`] is due if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let stop = self.stop.as_ref().map(Stop::deadline);
        let poll = self.poll_at.filter(|_| self.link_is_up() && !self.lookups.are_polling());
        let due = [
            self.next_expiry(),
            self.next_timeout(),
            self.next_unanswered(),
            self.next_silent(),
            self.next_lost_claim(),
            self.lookups.deadline(),
            self.late_sweep.deadline(),
            self.failed_sweep.deadline().filter(|_| self.stop.is_none()),
            self.not_removed.deadline(),
            self.beat.deadline(),
            self.log_limit.deadline(),
        ];
        due.into_iter().chain([stop, poll]).flatten().min()
    }

    fn link_is_up(&self) -> bool {
        self.link == LinkState::Up
    }

    fn link_failed(&mut self) {
        self.link = LinkState::Away;
        self.tally.dial_failed();
        self.refusals.failed_otherwise();
    }

    fn link_up(&mut self, now: Instant) {
        self.link = LinkState::Up;
        self.refusals.connected();
        self.align_beat(now);
        // The control plane does not repeat a cancel that it sent without a connection. Polling the runs finds it.
        self.poll_at = Some(now);
        let unsent: Vec<JobId> =
            self.jobs.iter().filter(|(_, job)| job.has_unsent_report()).map(|(id, _)| *id).collect();
        // The control plane may have received a claim and not stored it.
        let repeats = |job: &JobState| job.dialect.repeats_claims() && job.is_claimed() && job.is_working();
        let claimed = self.jobs.iter().filter(|(_, job)| repeats(job));
        let claimed: Vec<JobId> = claimed.map(|(id, _)| *id).collect();
        claimed.into_iter().for_each(|id| self.claim_again(id));
        for id in unsent {
            self.send_report(id);
        }
        self.send_missing();
        self.look_up_lost_claims(now);
    }

    /// The control plane takes back the unclaimed runs when the connection ends, and those whose claim did not arrive.
    fn link_down(&mut self, now: Instant) {
        if self.link_is_up() {
            self.tally.connection_lost();
        }
        self.link = LinkState::Away;
        for pending in std::mem::take(&mut self.backlog) {
            let key = &pending.assignment.key;
            self.effects.push(info(format!("assignment dropped {key} reason=\"connection lost\"")));
        }
        let mut sent = Vec::new();
        for (id, job) in &mut self.jobs {
            let is_sent = job.is_claim_sent();
            let effect = match job.connection_lost() {
                Lost::Nothing => continue,
                Lost::Work => Effect::Cancel { job: *id, reason: CancelReason::ClaimLost },
                Lost::Report => Effect::Settle { job: *id, settlement: Settlement::Unwanted },
            };
            self.effects.push(warn(format!("claim lost {}", job.key)));
            self.effects.push(effect);
            sent.extend(is_sent.then(|| (job.key.clone(), job.dialect, job.assigned_at)));
        }
        for (key, dialect, assigned_at) in sent {
            self.remember_claim(key, dialect, assigned_at, now);
        }
    }

    fn confirmed(&mut self, seq: u64, now: Instant) {
        let confirmed = |(id, job): (&JobId, &mut JobState)| {
            let (claim, report) = (job.confirm_claim(seq), job.confirm_report(seq));
            (claim || report.is_some()).then_some((*id, claim, report))
        };
        let confirmed: Vec<_> = self.jobs.iter_mut().filter_map(confirmed).collect();
        for (id, claim, report) in confirmed {
            if claim {
                self.check_claim(id, now);
            }
            let Some(received) = report else { continue };
            self.effects.push(info(format!("report confirmed {}", received.key)));
            let by_state = self.jobs.get(&id).is_some_and(|job| job.dialect.state_decides_for(&job.key));
            let settlement = if !by_state || self.lookups.are_absent() {
                Settlement::Delivered
            } else {
                // The slot is free.
                self.jobs.remove(&id);
                self.keep_report(id, received, now);
                Settlement::Received
            };
            self.effects.push(Effect::Settle { job: id, settlement });
        }
    }

    fn finished(&mut self, id: JobId, report: Arc<EncodedReport>, left: Arc<Leftover>, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.is_working() {
            self.tally.end(report.end(), now.saturating_duration_since(job.began()));
        }
        if !job.finished(report, left) {
            self.effects.push(Effect::Settle { job: id, settlement: Settlement::Unwanted });
        } else if self.link_is_up() {
            self.send_report(id);
        }
    }

    /// A job that ends without a report has panicked.
    fn done(&mut self, id: JobId, removal: Removal, now: Instant) {
        self.remember_ended(id, removal, now);
        self.engine_away.remove(&id);
        let Some(job) = self.jobs.remove(&id) else { return };
        if job.is_working() {
            self.effects.push(error(format!("task ended without a report {}", job.key)));
            self.tally.fail(Phase::Backend, FailureReason::Internal.name());
            self.fail(
                &job.key,
                job.dialect,
                FailureReason::Internal,
                "the worker failed while it ran the task",
            );
        }
    }

    /// The task's container runs already, so it gets a slot even if none is free.
    fn adopt(&mut self, task: Arc<AdoptedTask>, now: Instant) {
        self.tally.adopt();
        self.add_job(JobState::adopted(&task, now), Work::Adopt(task));
    }

    fn add_job(&mut self, job: JobState, work: Work) {
        let id = self.new_id();
        self.jobs.insert(id, job);
        self.effects.push(Effect::Start { job: id, work });
    }

    fn new_id(&mut self) -> JobId {
        let id = JobId(self.next_job);
        self.next_job += 1;
        id
    }

    /// Ends a job's task; the job still reports and cleans up.
    fn end_job(&mut self, id: JobId, reason: CancelReason) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let is_second = *job.ending.get_or_insert(reason) != reason;
            let effect =
                if is_second { Effect::Interrupt { job: id } } else { Effect::Cancel { job: id, reason } };
            self.effects.push(effect);
        }
    }

    fn send_report(&mut self, id: JobId) {
        let seq = self.next_seq();
        if let Some(message) = self.jobs.get_mut(&id).and_then(|job| job.send_report(seq)) {
            self.send(Some(seq), message);
        }
    }

    fn send(&mut self, seq: Option<u64>, message: Outgoing) {
        if self.link_is_up() {
            self.effects.push(Effect::Send { seq, message });
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    fn job_of(&self, key: &ExecutionKey) -> Option<&JobState> {
        self.jobs.values().find(|job| job.key == *key)
    }
}

fn debug(text: String) -> Effect {
    Effect::Log(Level::Debug, text)
}

fn info(text: String) -> Effect {
    Effect::Log(Level::Info, text)
}

fn warn(text: String) -> Effect {
    Effect::Log(Level::Warn, text)
}

fn error(text: String) -> Effect {
    Effect::Log(Level::Error, text)
}

#[cfg(test)]
mod admission_tests;
#[cfg(test)]
mod dialect_tests;
#[cfg(test)]
mod execution_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod recorded_tests;
#[cfg(test)]
#[path = "script_tests.rs"]
mod script;
#[cfg(test)]
mod tests;
