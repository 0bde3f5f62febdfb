//! Every decision of the worker: what is admitted, claimed, cancelled, reported again, given back, and when to end.
//!
//! Owns the backlog, the state of each task that holds a slot, and the order of stopping. It must not know a socket,
//! a thread, the engine or the clock: events and the time come in, effects go out, and the same events always give
//! the same effects.
//!
//! The rules it keeps:
//! - A run is claimed when a slot is free for it, and only then; whatever is not claimed belongs to the control plane.
//! - A claim that was not confirmed when its connection ended may never have arrived: the run may be given to another
//!   worker, so it is dropped here, unstarted and unreported.
//! - A report is kept, and its slot with it, until the control plane is known to have it.
//! - Nothing is ever started twice: an assignment for a task that is here is answered with its present state.

mod assign;
mod event;
mod job;
mod late_sweep;
mod stop;
mod watch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::logging::value;
use crate::policy::LostRuns;
use crate::protocol::{FailureReason, Incoming, Outgoing, Report};
use crate::sys::cancel::CancelReason;

use crate::job::{AdoptedTask, JobId, Settlement, Work};
use assign::PendingAssignment;
pub use assign::{BACKLOG, CLAIM_HOLD};
pub use event::{Effect, Event, LinkState, RunEnd, Status, Stopping};
use job::Job;
use late_sweep::LateSweep;
use stop::Stop;

/// What the operator has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many tasks run at the same time.
    pub slots: usize,
    /// How long a task may run; zero: for ever.
    pub task_timeout: Duration,
    /// How long running tasks may go on after the first signal.
    pub drain_timeout: Duration,
    /// How often the control plane is asked for the state of the runs; zero: never.
    pub reconcile_interval: Duration,
    /// What becomes of a task whose run has failed there.
    pub lost_runs: LostRuns,
    /// How long after the start it is looked for a second time what an earlier process has left; zero: never.
    pub late_sweep_after: Duration,
}

/// The state that all decisions are made from.
pub struct Coordinator {
    rules: Rules,
    link: LinkState,
    link_gone: bool,
    next_job: u64,
    next_seq: u64,
    backlog: VecDeque<PendingAssignment>,
    jobs: BTreeMap<JobId, Job>,
    /// The jobs that the engine does not answer.
    away: BTreeSet<JobId>,
    /// When the runs are asked for next; `None` when there are none.
    ask_at: Option<Instant>,
    asking: bool,
    late_sweep: LateSweep,
    stop: Option<Stop>,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// A coordinator that has no tasks yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            link: LinkState::Connecting,
            link_gone: false,
            next_job: 0,
            next_seq: 0,
            backlog: VecDeque::new(),
            jobs: BTreeMap::new(),
            away: BTreeSet::new(),
            ask_at: None,
            asking: false,
            late_sweep: LateSweep::Unplanned,
            stop: None,
            effects: Vec::new(),
        }
    }

    /// Decides what an event calls for. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::Adopted(adopted) => adopted.into_iter().for_each(|adopted| self.adopt(adopted)),
            Event::LinkFailed => self.link = LinkState::Away,
            Event::LinkUp => self.link_is_up(now),
            Event::LinkDown => self.link_is_down(),
            Event::LinkGone { exit } => self.link_is_gone(exit, now),
            Event::Assigned { assignment, disk_full } => self.assigned(assignment, disk_full, now),
            Event::Asked { over } => self.asked(over, now),
            Event::Incoming(message) => self.incoming(message, now),
            Event::Invalid(invalid) => self.invalid(invalid),
            Event::Confirmed { seq } => self.confirmed(seq),
            Event::Started { job, ran } => self.started(job, ran, now),
            Event::Engine { job, away } => self.engine(job, away),
            Event::Finished { job, report } => self.finished(job, report),
            Event::Done { job } => self.done(job),
            Event::Signal => self.signal(now),
            Event::Tick => {}
        }
        self.expire(now);
        self.admit();
        self.time_out(now);
        self.ask(now);
        self.late_sweep(now);
        self.go_on_stopping(now);
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let held = self.backlog.front().map(PendingAssignment::until);
        let stop = self.stop.as_ref().map(Stop::deadline);
        let ask = self.ask_at.filter(|_| self.link_is_there() && !self.asking);
        [held, stop, ask, self.next_time_out(), self.late_sweep.deadline()].into_iter().flatten().min()
    }

    /// How the worker stands, for those who watch it.
    pub fn status(&self) -> Status {
        Status { link: self.link, tasks: self.jobs.len(), stop: self.stop.as_ref().map(Stop::status) }
    }

    fn link_is_there(&self) -> bool {
        self.link == LinkState::Up
    }

    fn link_is_up(&mut self, now: Instant) {
        self.link = LinkState::Up;
        // What was missed while away is asked for at once.
        self.ask_at = Some(now);
        let waiting: Vec<JobId> =
            self.jobs.iter().filter(|(_, job)| job.unsent()).map(|(id, _)| *id).collect();
        for id in waiting {
            self.send_report(id);
        }
    }

    /// What waited goes back to the control plane by itself when the connection ends, and so does a run whose claim never
    /// arrived.
    fn link_is_down(&mut self) {
        self.link = LinkState::Away;
        for waiting in std::mem::take(&mut self.backlog) {
            let task = value(&waiting.assignment.task_id);
            self.effects.push(info(format!("assignment dropped task={task} reason=\"connection lost\"")));
        }
        for (id, job) in &mut self.jobs {
            match job.connection_lost() {
                job::Lost::Nothing => {}
                job::Lost::Work => {
                    self.effects.push(warn(format!("claim lost task={}", value(&job.task_id))));
                    self.effects.push(Effect::Cancel { job: *id, reason: CancelReason::ClaimLost });
                }
                job::Lost::Report => {
                    self.effects.push(warn(format!("claim lost task={}", value(&job.task_id))));
                    self.effects.push(Effect::Settle { job: *id, settlement: Settlement::Unwanted });
                }
            }
        }
    }

    fn incoming(&mut self, message: Incoming, now: Instant) {
        match message {
            Incoming::Assignment(assignment) => self.assigned(assignment, None, now),
            Incoming::Cancel { task_id } => self.cancelled(&task_id),
            Incoming::Unknown { kind } => {
                self.effects.push(warn(format!("message ignored type={}", value(&kind))));
            }
        }
    }

    fn confirmed(&mut self, seq: u64) {
        for (id, job) in &mut self.jobs {
            if job.claim_confirmed(seq) {
                self.effects.push(Effect::Release { job: *id });
            }
            if job.report_confirmed(seq) {
                self.effects.push(info(format!("report confirmed task={}", value(&job.task_id))));
                self.effects.push(Effect::Settle { job: *id, settlement: Settlement::Delivered });
            }
        }
    }

    fn finished(&mut self, id: JobId, report: Arc<Report>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.finished(report) {
            self.effects.push(Effect::Settle { job: id, settlement: Settlement::Unwanted });
        } else if self.link_is_there() {
            self.send_report(id);
        }
    }

    /// A job that is done without having reported has failed in a way it could not tell.
    fn done(&mut self, id: JobId) {
        self.away.remove(&id);
        let Some(job) = self.jobs.remove(&id) else { return };
        if job.is_working() {
            self.effects.push(error(format!("task ended without a report task={}", value(&job.task_id))));
            self.fail(&job.task_id, FailureReason::Internal, "the worker failed while it ran the task");
        }
    }

    /// It holds a slot like any other, even when that makes more than there are: its container runs already.
    fn adopt(&mut self, adopted: Arc<AdoptedTask>) {
        let job = Job::new(&adopted.task_id, None);
        self.add_job(job, Work::Adopt(adopted));
    }

    fn add_job(&mut self, job: Job, work: Work) {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.jobs.insert(id, job);
        self.effects.push(Effect::Start { job: id, work });
    }

    /// Tells a job to end; it still finishes.
    fn end_job(&mut self, id: JobId, reason: CancelReason) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.ending.get_or_insert(reason);
            self.effects.push(Effect::Cancel { job: id, reason });
        }
    }

    fn send_report(&mut self, id: JobId) {
        let seq = self.next_seq();
        if let Some(message) = self.jobs.get_mut(&id).and_then(|job| job.send_report(seq)) {
            self.send(Some(seq), message);
        }
    }

    fn send(&mut self, seq: Option<u64>, message: Outgoing) {
        if self.link_is_there() {
            self.effects.push(Effect::Send { seq, message });
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    fn job_of(&self, task_id: &str) -> Option<(JobId, &Job)> {
        let mut jobs = self.jobs.iter();
        jobs.find(|(_, job)| job.task_id == task_id).map(|(id, job)| (*id, job))
    }
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
mod random_tests;
#[cfg(test)]
mod tests;
