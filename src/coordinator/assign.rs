//! Assignments and cancels: holds, claims, answers and gives back assignments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Answer, JobState};
use super::{Coordinator, Effect, error, info, warn};
use crate::exit::Exit;
use crate::job::{JobId, Work};
use crate::logging::value;
use crate::protocol::{Assignment, FailureReason, Invalid, Outgoing};
use crate::sys::cancel::CancelReason;

/// The most assignments that wait for a slot; further ones are given back at once.
pub const BACKLOG: usize = 64;

/// The most memory that waiting assignments take, in bytes; further ones are given back at once.
pub(super) const BACKLOG_BYTES: usize = 32 << 20;

/// How long an assignment waits for a slot before it is given back. Shorter than the 120 s after which the control plane
/// takes it back, so that a run is never held by both.
pub const CLAIM_HOLD: Duration = Duration::from_secs(60);

pub(super) struct PendingAssignment {
    pub(super) assignment: Arc<Assignment>,
    /// [`Assignment::size`], which looks at every variable.
    bytes: usize,
    since: Instant,
    /// Whether the disk had space for it.
    disk_checked: bool,
}

impl PendingAssignment {
    pub(super) fn until(&self) -> Instant {
        self.since + CLAIM_HOLD
    }
}

impl Coordinator {
    pub(super) fn assigned(&mut self, assignment: Arc<Assignment>, now: Instant) {
        let task_id = &assignment.task_id;
        let pending = self.is_pending(task_id);
        match self.job_of(task_id).map(JobState::answer) {
            Some(Answer::Send(answer)) => self.repeated(task_id, Some(answer)),
            Some(Answer::AlreadySent) => self.repeated(task_id, None),
            Some(Answer::StartAgain) | None if pending => self.repeated(task_id, None),
            Some(Answer::StartAgain) | None => {
                let bytes = assignment.size();
                match self.refusal(bytes) {
                    Some(reason) => self.reject(task_id, reason),
                    None if self.link_is_up() => self.hold(assignment, bytes, now),
                    // The connection on which it came ended, so the control plane took it back.
                    None => {}
                }
            }
        }
    }

    fn repeated(&mut self, task_id: &str, answer: Option<Outgoing>) {
        self.effects.push(info(format!("assignment repeated task={}", value(task_id))));
        if let Some(answer) = answer {
            self.send(None, answer);
        }
    }

    fn hold(&mut self, assignment: Arc<Assignment>, bytes: usize, now: Instant) {
        self.effects.push(info(format!("assignment received {}", identity(&assignment))));
        let disk_checked = !self.rules.check_disk;
        self.backlog.push_back(PendingAssignment { assignment, bytes, since: now, disk_checked });
        if !disk_checked && !std::mem::replace(&mut self.checking_disk, true) {
            self.effects.push(Effect::CheckDisk);
        }
    }

    /// A running check also covers the assignments that arrive before its result.
    pub(super) fn disk_checked(&mut self, low: Option<&str>) {
        self.checking_disk = false;
        let Some(reason) = low else {
            self.backlog.iter_mut().for_each(|pending| pending.disk_checked = true);
            return;
        };
        for pending in std::mem::take(&mut self.backlog) {
            if pending.disk_checked {
                self.backlog.push_back(pending);
            } else {
                self.reject(&pending.assignment.task_id, reason);
            }
        }
    }

    /// Why a new task of this size cannot be taken now.
    fn refusal(&self, bytes: usize) -> Option<&'static str> {
        if self.stop.is_some() {
            Some("the worker is stopping")
        } else if !self.engine_away.is_empty() {
            Some("the docker engine does not answer")
        } else {
            // A run with a free slot waits only for the check of the disk, and takes no place in the backlog.
            let free_slots = self.rules.slots.saturating_sub(self.jobs.len());
            let held: usize = self.backlog.iter().map(|pending| pending.bytes).sum();
            let is_full = self.backlog.len() >= BACKLOG + free_slots || held + bytes > BACKLOG_BYTES;
            is_full.then_some("the worker's backlog is full")
        }
    }

    pub(super) fn cancelled(&mut self, task_id: &str) {
        let task = value(task_id).to_string();
        let place = self.backlog.iter().position(|pending| pending.assignment.task_id == task_id);
        let working = self.jobs.iter().find(|(_, job)| job.task_id == task_id && job.is_working());
        let working = working.map(|(id, _)| *id);
        if place.and_then(|place| self.backlog.remove(place)).is_some() {
            self.effects.push(info(format!("task cancelled task={task} phase=backlog")));
            self.fail(task_id, FailureReason::TaskCancelled, "cancelled before it was started");
        } else if let Some(id) = working {
            self.effects.push(info(format!("task cancelled task={task} phase=active")));
            self.end_job(id, CancelReason::Requested);
        } else {
            self.effects.push(info(format!("cancel ignored task={task} reason=\"no such task\"")));
        }
    }

    /// An invalid assignment does not end a task that the worker already holds.
    pub(super) fn invalid(&mut self, invalid: &Invalid) {
        let error = value(&invalid.message).to_string();
        let Some(task_id) = &invalid.task_id else {
            self.effects.push(warn(format!("message invalid error={error}")));
            return;
        };
        self.effects.push(warn(format!("assignment invalid task={} error={error}", value(task_id))));
        if self.job_of(task_id).is_none() && !self.is_pending(task_id) {
            self.fail(task_id, FailureReason::InvalidAssignment, &invalid.message);
        }
    }

    fn is_pending(&self, task_id: &str) -> bool {
        self.backlog.iter().any(|pending| pending.assignment.task_id == task_id)
    }

    /// Starts the oldest assignments first. A task waits while an earlier execution of it is being cleaned up.
    pub(super) fn admit(&mut self) {
        while self.link_is_up() && self.stop.is_none() && self.jobs.len() < self.rules.slots {
            let can_start = |pending: &PendingAssignment| {
                pending.disk_checked && self.job_of(&pending.assignment.task_id).is_none()
            };
            let place = self.backlog.iter().position(can_start);
            let Some(pending) = place.and_then(|place| self.backlog.remove(place)) else { return };
            let job = JobState::new(&pending.assignment.task_id);
            self.add_job(job, Work::Run(pending.assignment));
        }
    }

    /// Claims a run whose job now has a thread.
    pub(super) fn thread_started(&mut self, id: JobId) {
        let seq = self.last_seq + 1;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(claim) = job.send_claim(seq) {
            self.last_seq = seq;
            self.effects.push(info(format!("task claimed task={}", value(&job.task_id))));
            self.send(Some(seq), claim);
        }
    }

    /// Gives back a run for which there is no thread. For an adopted task, ends the process: its container goes on, and the next
    /// process adopts it.
    pub(super) fn no_thread(&mut self, id: JobId, reason: &str) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if job.is_claimed() {
            let task = value(&job.task_id);
            self.effects.push(error(format!("no thread task={task} error={}", value(reason))));
            self.effects.push(Effect::Exit(Exit::Failure));
        } else if job.is_working() {
            self.reject(&job.task_id, &format!("no thread for the task: {reason}"));
        }
    }

    /// Gives back everything in the backlog.
    pub(super) fn give_back(&mut self, reason: &str) {
        for pending in std::mem::take(&mut self.backlog) {
            self.reject(&pending.assignment.task_id, reason);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.backlog.front().is_some_and(|pending| now >= pending.until()) {
            let Some(pending) = self.backlog.pop_front() else { return };
            let reason = if pending.disk_checked {
                "no slot was free in time"
            } else {
                "the check of the engine's disk got no answer in time"
            };
            self.reject(&pending.assignment.task_id, reason);
        }
    }

    fn reject(&mut self, task_id: &str, reason: &str) {
        self.effects.push(info(format!("task rejected task={} reason={}", value(task_id), value(reason))));
        self.send(None, Outgoing::Rejected { task_id: task_id.to_owned(), reason: reason.to_owned() });
    }

    /// Reports a task that never had a slot, without a confirmation: if the report is lost, the control plane takes the run back.
    pub(super) fn fail(&mut self, task_id: &str, reason: FailureReason, message: &str) {
        self.send(
            None,
            Outgoing::Failed { task_id: task_id.to_owned(), reason, message: message.to_owned() },
        );
    }
}

/// The log keys that identify an assignment.
fn identity(assignment: &Assignment) -> String {
    let mut text = format!("task={} image={}", value(&assignment.task_id), value(&assignment.docker_image));
    for (name, id) in [("execution", &assignment.execution_id), ("trace", &assignment.trace_id)] {
        if let Some(id) = id {
            text.push_str(&format!(" {name}={}", value(id)));
        }
    }
    text
}
