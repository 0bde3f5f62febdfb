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

mod event;
mod job;
mod stop;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::cancel::CancelReason;
use crate::exit::Exit;
use crate::logging::value;
use crate::protocol::{Assignment, FailureReason, Incoming, Invalid, Outgoing, Report};

pub use event::{Effect, Event, JobId, LeftOver, Settlement, Work};
use job::{Job, Phase};
use stop::Stop;

/// How many assignments wait for a slot at most; one more is given back at once.
pub const BACKLOG: usize = 64;

/// How long an assignment waits for a slot before it is given back: below the 120 s after which the control plane
/// takes it back by itself, so that both never hold it.
pub const CLAIM_HOLD: Duration = Duration::from_secs(60);

/// The state that all decisions are made from.
pub struct Coordinator {
    slots: usize,
    link_up: bool,
    link_gone: bool,
    next_job: u64,
    next_seq: u64,
    backlog: VecDeque<Waiting>,
    jobs: BTreeMap<JobId, Job>,
    stop: Option<Stop>,
    effects: Vec<Effect>,
}

struct Waiting {
    assignment: Arc<Assignment>,
    since: Instant,
}

impl Coordinator {
    /// A coordinator for so many tasks at a time.
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            link_up: false,
            link_gone: false,
            next_job: 0,
            next_seq: 0,
            backlog: VecDeque::new(),
            jobs: BTreeMap::new(),
            stop: None,
            effects: Vec::new(),
        }
    }

    /// Decides what an event calls for. `now` never goes back.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Effect> {
        match event {
            Event::LinkUp => self.link_is_up(),
            Event::LinkDown => self.link_is_down(),
            Event::LinkGone { exit } => self.link_is_gone(exit, now),
            Event::Incoming(message) => self.incoming(message, now),
            Event::Invalid(invalid) => self.invalid(invalid),
            Event::Confirmed { seq } => self.confirmed(seq),
            Event::Finished { job, report } => self.finished(job, report),
            Event::Done { job } => self.done(job),
            Event::Signal => self.signal(now),
            Event::Started { .. } | Event::Engine { .. } | Event::Tick => {}
        }
        self.expire(now);
        self.admit();
        self.go_on_stopping(now);
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due, if nothing happens before.
    pub fn deadline(&self) -> Option<Instant> {
        let held = self.backlog.front().map(|waiting| waiting.since + CLAIM_HOLD);
        let stop = self.stop.as_ref().map(Stop::deadline);
        held.into_iter().chain(stop).min()
    }

    fn link_is_up(&mut self) {
        self.link_up = true;
        let waiting: Vec<JobId> =
            self.jobs.iter().filter(|(_, job)| job.unsent()).map(|(id, _)| *id).collect();
        for id in waiting {
            self.send_report(id);
        }
    }

    /// What waited goes back to the control plane by itself when the connection ends, and so does a run whose claim never
    /// arrived.
    fn link_is_down(&mut self) {
        self.link_up = false;
        for waiting in std::mem::take(&mut self.backlog) {
            let task = value(&waiting.assignment.task_id);
            self.effects.push(info(format!("assignment dropped task={task} reason=\"connection lost\"")));
        }
        for (id, job) in &mut self.jobs {
            match job.connection_lost() {
                job::Lost::Nothing => {}
                job::Lost::Work => {
                    self.effects.push(warn(format!("claim lost task={}", value(&job.assignment.task_id))));
                    self.effects.push(Effect::Cancel { job: *id, reason: CancelReason::ClaimLost });
                }
                job::Lost::Report => {
                    self.effects.push(warn(format!("claim lost task={}", value(&job.assignment.task_id))));
                    self.effects.push(Effect::Settle { job: *id, settlement: Settlement::Unwanted });
                }
            }
        }
    }

    fn incoming(&mut self, message: Incoming, now: Instant) {
        match message {
            Incoming::Assignment(assignment) => self.assigned(assignment, now),
            Incoming::Cancel { task_id } => self.cancelled(&task_id),
            Incoming::Unknown { kind } => {
                self.effects.push(warn(format!("message ignored type={}", value(&kind))));
            }
        }
    }

    fn assigned(&mut self, assignment: Arc<Assignment>, now: Instant) {
        let task_id = &assignment.task_id;
        if let Some(answer) = self.job_of(task_id).and_then(|(_, job)| job.answer()) {
            self.effects.push(info(format!("assignment repeated task={}", value(task_id))));
            self.send(None, answer);
        } else if self.backlog.iter().any(|waiting| waiting.assignment.task_id == *task_id) {
            self.effects.push(info(format!("assignment repeated task={}", value(task_id))));
        } else if self.stop.is_some() {
            self.reject(task_id, "the worker is stopping");
        } else if self.backlog.len() >= BACKLOG {
            self.reject(task_id, "the worker's backlog is full");
        } else if self.link_up {
            self.effects.push(info(format!("assignment received {}", identity(&assignment))));
            self.backlog.push_back(Waiting { assignment, since: now });
        }
    }

    fn cancelled(&mut self, task_id: &str) {
        let place = self.backlog.iter().position(|waiting| waiting.assignment.task_id == task_id);
        if place.and_then(|place| self.backlog.remove(place)).is_some() {
            self.effects.push(info(format!("task cancelled task={} phase=backlog", value(task_id))));
            self.fail(task_id, FailureReason::TaskCancelled, "cancelled before it was started");
        } else if let Some((job, Phase::Working)) = self.job_of(task_id).map(|(id, job)| (id, &job.phase)) {
            self.effects.push(info(format!("task cancelled task={} phase=active", value(task_id))));
            self.effects.push(Effect::Cancel { job, reason: CancelReason::Requested });
        } else {
            self.effects.push(info(format!("cancel ignored task={} reason=\"not here\"", value(task_id))));
        }
    }

    /// A wrong assignment for a task that is here must not end that task.
    fn invalid(&mut self, invalid: Invalid) {
        let what = value(&invalid.message).to_string();
        let Some(task_id) = invalid.task_id else {
            self.effects.push(warn(format!("message invalid error={what}")));
            return;
        };
        let known = self.job_of(&task_id).is_some()
            || self.backlog.iter().any(|waiting| waiting.assignment.task_id == task_id);
        self.effects.push(warn(format!("assignment invalid task={} error={what}", value(&task_id))));
        if !known {
            self.fail(&task_id, FailureReason::InvalidAssignment, &invalid.message);
        }
    }

    fn confirmed(&mut self, seq: u64) {
        for (id, job) in &mut self.jobs {
            if job.claim_confirmed(seq) {
                self.effects.push(Effect::Release { job: *id });
            }
            if job.report_confirmed(seq) {
                self.effects.push(info(format!("report confirmed task={}", value(&job.assignment.task_id))));
                self.effects.push(Effect::Settle { job: *id, settlement: Settlement::Delivered });
            }
        }
    }

    fn finished(&mut self, id: JobId, report: Arc<Report>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if !job.finished(report) {
            self.effects.push(Effect::Settle { job: id, settlement: Settlement::Unwanted });
        } else if self.link_up {
            self.send_report(id);
        }
    }

    /// A job that is done without having reported has failed in a way it could not tell.
    fn done(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if matches!(job.phase, Phase::Working) {
            self.effects
                .push(error(format!("task ended without a report task={}", value(&job.assignment.task_id))));
            self.fail(
                &job.assignment.task_id,
                FailureReason::Internal,
                "the worker failed while it ran the task",
            );
        }
    }

    /// Oldest first; one whose former execution is still being cleaned up waits for that.
    fn admit(&mut self) {
        while self.link_up && self.stop.is_none() && self.jobs.len() < self.slots {
            let free = |waiting: &Waiting| self.job_of(&waiting.assignment.task_id).is_none();
            let Some(place) = self.backlog.iter().position(free) else { return };
            let Some(Waiting { assignment, .. }) = self.backlog.remove(place) else { return };
            self.claim(assignment);
        }
    }

    fn claim(&mut self, assignment: Arc<Assignment>) {
        let job = JobId(self.next_job);
        self.next_job += 1;
        let seq = self.next_seq();
        self.send(Some(seq), Outgoing::Claimed { task_id: assignment.task_id.clone() });
        self.effects.push(info(format!("task claimed task={}", value(&assignment.task_id))));
        self.jobs.insert(job, Job::new(Arc::clone(&assignment), seq));
        self.effects.push(Effect::Start { job, work: Work::Run(assignment) });
    }

    fn expire(&mut self, now: Instant) {
        while self.backlog.front().is_some_and(|waiting| now >= waiting.since + CLAIM_HOLD) {
            let Some(waiting) = self.backlog.pop_front() else { return };
            self.reject(&waiting.assignment.task_id, "no slot was free in time");
        }
    }

    fn send_report(&mut self, id: JobId) {
        let seq = self.next_seq();
        if let Some(message) = self.jobs.get_mut(&id).and_then(|job| job.send_report(seq)) {
            self.send(Some(seq), message);
        }
    }

    fn reject(&mut self, task_id: &str, reason: &str) {
        self.effects.push(info(format!("task rejected task={} reason={}", value(task_id), value(reason))));
        self.send(None, Outgoing::Rejected { task_id: task_id.to_owned(), reason: reason.to_owned() });
    }

    /// Tells the end of a task that never was a job: not confirmed, since the control plane takes it back when it is lost.
    fn fail(&mut self, task_id: &str, reason: FailureReason, message: &str) {
        self.send(None, Outgoing::Report(Arc::new(Report::failed(task_id, reason, message))));
    }

    fn send(&mut self, seq: Option<u64>, message: Outgoing) {
        if self.link_up {
            self.effects.push(Effect::Send { seq, message });
        }
    }

    fn next_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    fn job_of(&self, task_id: &str) -> Option<(JobId, &Job)> {
        let mut jobs = self.jobs.iter();
        jobs.find(|(_, job)| job.assignment.task_id == task_id).map(|(id, job)| (*id, job))
    }
}

/// What tells one assignment from another in a log.
fn identity(assignment: &Assignment) -> String {
    let mut text = format!("task={} image={}", value(&assignment.task_id), value(&assignment.docker_image));
    for (name, id) in [("execution", &assignment.execution_id), ("trace", &assignment.trace_id)] {
        if let Some(id) = id {
            text.push_str(&format!(" {name}={}", value(id)));
        }
    }
    text
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
mod tests;
