//! Assignments and cancels: what is held, claimed, answered and given back.
//!
//! Owns admission and the backlog. It must not know how a task that was admitted goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Answer, Job};
use super::{Coordinator, info, warn};
use crate::job::Work;
use crate::logging::value;
use crate::protocol::{Assignment, FailureReason, Invalid, Outgoing, Report};
use crate::sys::cancel::CancelReason;

/// How many assignments wait for a slot at most; one more is given back at once.
pub const BACKLOG: usize = 64;

/// How long an assignment waits for a slot before it is given back: below the 120 s after which the control plane
/// takes it back by itself, so that both never hold it.
pub const CLAIM_HOLD: Duration = Duration::from_secs(60);

pub(super) struct PendingAssignment {
    pub(super) assignment: Arc<Assignment>,
    since: Instant,
}

impl PendingAssignment {
    /// Until when it is held.
    pub(super) fn until(&self) -> Instant {
        self.since + CLAIM_HOLD
    }
}

impl Coordinator {
    pub(super) fn assigned(&mut self, assignment: Arc<Assignment>, disk_full: Option<String>, now: Instant) {
        let task_id = &assignment.task_id;
        let repeated = self.backlog.iter().any(|waiting| waiting.assignment.task_id == *task_id);
        match self.job_of(task_id).map(|(_, job)| job.answer()) {
            Some(Answer::Say(answer)) => self.repeated(task_id, Some(answer)),
            Some(Answer::Said) => self.repeated(task_id, None),
            Some(Answer::Void) | None if repeated => self.repeated(task_id, None),
            Some(Answer::Void) | None => match self.refusal().or(disk_full) {
                Some(reason) => self.reject(task_id, &reason),
                None if self.link_is_there() => {
                    self.effects.push(info(format!("assignment received {}", identity(&assignment))));
                    self.backlog.push_back(PendingAssignment { assignment, since: now });
                }
                // What came on a connection that has ended meanwhile belongs to the control plane again.
                None => {}
            },
        }
    }

    fn repeated(&mut self, task_id: &str, answer: Option<Outgoing>) {
        self.effects.push(info(format!("assignment repeated task={}", value(task_id))));
        if let Some(answer) = answer {
            self.send(None, answer);
        }
    }

    /// Why no new task can be taken now.
    fn refusal(&self) -> Option<String> {
        if self.stop.is_some() {
            Some("the worker is stopping".to_owned())
        } else if !self.away.is_empty() {
            Some("the docker engine does not answer".to_owned())
        } else {
            (self.backlog.len() >= BACKLOG).then(|| "the worker's backlog is full".to_owned())
        }
    }

    pub(super) fn cancelled(&mut self, task_id: &str) {
        let place = self.backlog.iter().position(|waiting| waiting.assignment.task_id == task_id);
        let working = self.jobs.iter().find(|(_, job)| job.task_id == task_id && job.is_working());
        let working = working.map(|(id, _)| *id);
        if place.and_then(|place| self.backlog.remove(place)).is_some() {
            self.effects.push(info(format!("task cancelled task={} phase=backlog", value(task_id))));
            self.fail(task_id, FailureReason::TaskCancelled, "cancelled before it was started");
        } else if let Some(id) = working {
            self.effects.push(info(format!("task cancelled task={} phase=active", value(task_id))));
            self.end_job(id, CancelReason::Requested);
        } else {
            self.effects.push(info(format!("cancel ignored task={} reason=\"not here\"", value(task_id))));
        }
    }

    /// A wrong assignment for a task that is here must not end that task.
    pub(super) fn invalid(&mut self, invalid: Invalid) {
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

    /// Oldest first; one whose former execution is still being cleaned up waits for that.
    pub(super) fn admit(&mut self) {
        while self.link_is_there() && self.stop.is_none() && self.jobs.len() < self.rules.slots {
            let free = |waiting: &PendingAssignment| self.job_of(&waiting.assignment.task_id).is_none();
            let Some(place) = self.backlog.iter().position(free) else { return };
            let Some(PendingAssignment { assignment, .. }) = self.backlog.remove(place) else { return };
            self.claim(assignment);
        }
    }

    fn claim(&mut self, assignment: Arc<Assignment>) {
        let seq = self.next_seq();
        self.send(Some(seq), Outgoing::Claimed { task_id: assignment.task_id.clone() });
        self.effects.push(info(format!("task claimed task={}", value(&assignment.task_id))));
        self.add_job(Job::new(&assignment.task_id, Some(seq)), Work::Run(assignment));
    }

    /// Gives back everything that waits.
    pub(super) fn give_back(&mut self, reason: &str) {
        for waiting in std::mem::take(&mut self.backlog) {
            self.reject(&waiting.assignment.task_id, reason);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self.backlog.front().is_some_and(|waiting| now >= waiting.until()) {
            let Some(waiting) = self.backlog.pop_front() else { return };
            self.reject(&waiting.assignment.task_id, "no slot was free in time");
        }
    }

    pub(super) fn reject(&mut self, task_id: &str, reason: &str) {
        self.effects.push(info(format!("task rejected task={} reason={}", value(task_id), value(reason))));
        self.send(None, Outgoing::Rejected { task_id: task_id.to_owned(), reason: reason.to_owned() });
    }

    /// Tells the end of a task that never was a job: not confirmed, since the control plane takes it back when it is lost.
    pub(super) fn fail(&mut self, task_id: &str, reason: FailureReason, message: &str) {
        self.send(None, Outgoing::Report(Arc::new(Report::failed(task_id, reason, message))));
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
