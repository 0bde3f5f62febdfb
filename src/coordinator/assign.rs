//! Assignments and cancels: holds, claims, answers and gives back assignments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::claims::{BEFORE_CLAIM, CLAIM_UNSEEN, ClaimCheck};
use super::job::{Answer, JobState};
use super::lookups::{Priority, Query};
use super::view::{JobView, job_view};
use super::{Coordinator, Effect, error, info, warn};
use crate::exit::Exit;
use crate::job::{JobId, Work};
use crate::logging::{message, value};
use crate::metrics::{Phase, Rejection};
use crate::protocol::{Assignment, Dialect, ExecutionKey, FailureReason, Invalid, Outgoing};
use crate::sys::cancel::CancelReason;

/// The most assignments that wait for a slot; further ones are given back at once.
pub const BACKLOG: usize = 64;

/// The most memory that waiting assignments take, in bytes; further ones are given back at once.
pub(super) const BACKLOG_BYTES: usize = 32 << 20;

/// How long an assignment waits for a slot before it is given back, without look-ups. Shorter than the 120 s after which the
/// control plane takes it back, so that a run is never held by both.
pub const CLAIM_HOLD: Duration = Duration::from_secs(60);

/// How long the result of a check that found space on the disk counts, so that most claims do not wait for one.
pub(super) const SPACE_COUNTS: Duration = Duration::from_secs(10);

/// How old that result is when a claim is followed by a new check.
pub(super) const SPACE_RENEWED: Duration = Duration::from_secs(1);

/// As [`CLAIM_HOLD`], when the run is looked up before its claim.
const LONG_CLAIM_HOLD: Duration = Duration::from_secs(110);

/// When the claim of a job whose run was assigned again is looked up.
const AFTER_REPEAT: Duration = Duration::from_millis(500);

/// Why an assignment is given back that does not wait for a slot. Control planes may know these words.
const FULL: &str = "worker at maximum concurrency";

/// Why a run is not looked up.
const NO_PAGE: &str =
    "its id cannot be part of a URL; its claim and its report count as stored once they are received";

/// Why an invalid assignment is not failed.
const NO_ANSWER: &str = "a message would repeat its id, which is too long; the control plane keeps the run";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// The run was not looked up.
    None,
    /// The run is looked up, and a slot is kept for it. At this time it counts as unanswered.
    UnderWay(Instant),
    /// The run is this worker's, or its look-up was not answered: it is to be claimed.
    Over,
}

pub(super) struct PendingAssignment {
    pub(super) assignment: Arc<Assignment>,
    /// [`Assignment::size`], which looks at every variable.
    bytes: usize,
    since: Instant,
    /// Whether the disk had space for it.
    disk_checked: bool,
    check: Check,
}

impl PendingAssignment {
    /// Returns when it is given back, or when its look-up counts as unanswered.
    fn until(&self, has_look_ups: bool) -> Instant {
        let is_looked_up = has_look_ups && self.assignment.dialect.state_decides_for(&self.assignment.key);
        match self.check {
            Check::UnderWay(until) => until,
            Check::None | Check::Over if is_looked_up => self.since + LONG_CLAIM_HOLD,
            Check::None | Check::Over => self.since + CLAIM_HOLD,
        }
    }

    pub(super) fn is_looked_up(&self) -> bool {
        matches!(self.check, Check::UnderWay(_))
    }

    /// The look-up has shown that the run is still this worker's.
    pub(super) fn answered(&mut self) {
        self.check = Check::Over;
    }
}

impl Coordinator {
    pub(super) fn assigned(&mut self, assignment: Arc<Assignment>, now: Instant) {
        let key = &assignment.key;
        self.lost_claims.forget(key);
        let pending = self.is_pending(key);
        match self.job_of(key).map(JobState::answer) {
            Some(Answer::Send(answer)) => {
                self.repeated(key, Some(answer));
                self.assigned_again(&assignment, now);
            }
            Some(Answer::AlreadySent) => {
                self.repeated(key, None);
                self.assigned_again(&assignment, now);
            }
            Some(Answer::StartAgain) | None if pending => {
                self.repeated(key, None);
                if self.refuses(&assignment) {
                    self.remove_pending(&assignment.key);
                } else {
                    self.renew(assignment, now);
                }
            }
            None if self.answer_with_report(key, assignment.updated_at) => self.repeated(key, None),
            None if self.answer_ended(key) => {}
            Some(Answer::StartAgain) | None if self.refuses(&assignment) => {}
            Some(Answer::StartAgain) | None => {
                let bytes = assignment.size();
                match self.refusal(assignment.dialect, bytes) {
                    Some((why, reason)) => self.reject(key, assignment.dialect, why, &reason),
                    None if self.link_is_up() => self.hold(assignment, bytes, now),
                    // The connection on which it came ended, so the control plane took it back.
                    None => {}
                }
            }
        }
    }

    /// Fails the run if the operator does not admit its assignment: it would be refused again and again if it was given back. Returns
    /// whether it does.
    fn refuses(&mut self, assignment: &Assignment) -> bool {
        let Some(reason) = self.admission.as_ref().and_then(|admission| admission.refusal(assignment)) else {
            return false;
        };
        let Assignment { key, dialect, .. } = assignment;
        self.tally.reject(Rejection::Policy);
        self.effects.push(warn(format!("task refused {key} reason={}", value(&reason))));
        self.fail(key, *dialect, FailureReason::InvalidAssignment, &reason);
        true
    }

    fn repeated(&mut self, key: &ExecutionKey, answer: Option<Outgoing>) {
        self.effects.push(info(format!("assignment repeated {key}")));
        if let Some(answer) = answer {
            self.send(None, answer);
        }
    }

    /// Replaces a waiting assignment by the one that came again, which waits from now.
    fn renew(&mut self, assignment: Arc<Assignment>, now: Instant) {
        let bytes = assignment.size();
        let Some(pending) = self.pending_mut(&assignment.key) else { return };
        (pending.assignment, pending.bytes, pending.since) = (assignment, bytes, now);
    }

    /// The control plane assigns a run again whose claim it has not stored.
    fn assigned_again(&mut self, assignment: &Assignment, now: Instant) {
        let job = self.jobs.iter_mut().find(|(_, job)| job.key == assignment.key);
        if let Some((id, job)) = job {
            job.assigned_at = assignment.updated_at;
            if job.dialect.state_decides_for(&job.key)
                && job.is_working()
                && job.is_claimed()
                && job.check.is_none()
            {
                job.check = Some(ClaimCheck::new(now));
                self.lookups.add(Priority::Report, now + AFTER_REPEAT, Query::Claim(*id));
            }
        }
    }

    fn hold(&mut self, assignment: Arc<Assignment>, bytes: usize, now: Instant) {
        self.effects.push(info(format!("assignment received {}", identity(&assignment))));
        self.warn_of_guess(&assignment);
        if assignment.dialect.lacks_state_of(&assignment.key) {
            let (key, reason) = (&assignment.key, message(NO_PAGE));
            self.effects.push(warn(format!("run not looked up {key} reason={reason}")));
        }
        let had_space = self.had_space_at.is_some_and(|at| now < at + SPACE_COUNTS);
        let disk_checked = had_space || !self.rules.check_disk;
        let check = Check::None;
        self.backlog.push_back(PendingAssignment { assignment, bytes, since: now, disk_checked, check });
        if !disk_checked {
            self.check_disk();
        }
    }

    fn check_disk(&mut self) {
        if !std::mem::replace(&mut self.checking_disk, true) {
            self.effects.push(Effect::CheckDisk);
        }
    }

    /// Warns once if the dialect of an assignment is a guess.
    fn warn_of_guess(&mut self, assignment: &Assignment) {
        let Some(reason) = assignment.guess else { return };
        if !std::mem::replace(&mut self.warned_of_dialect, true) {
            let (key, name) = (&assignment.key, assignment.dialect.name());
            self.effects.push(warn(format!("dialect assumed {key} dialect={name} reason={}", value(reason))));
        }
    }

    /// A running check also covers the assignments that arrive before its result.
    pub(super) fn disk_checked(&mut self, low: Option<&str>, now: Instant) {
        self.checking_disk = false;
        self.record_disk(low);
        self.had_space_at = low.is_none().then_some(now);
        let Some(reason) = low else {
            self.backlog.iter_mut().for_each(|pending| pending.disk_checked = true);
            return;
        };
        for pending in std::mem::take(&mut self.backlog) {
            if pending.disk_checked {
                self.backlog.push_back(pending);
            } else {
                self.reject(&pending.assignment.key, pending.assignment.dialect, Rejection::DiskFull, reason);
            }
        }
    }

    /// Why a new task of this size cannot be taken now.
    fn refusal(&self, dialect: Dialect, bytes: usize) -> Option<(Rejection, String)> {
        if self.stop.is_some() {
            Some((Rejection::Stopping, "the worker is stopping".to_owned()))
        } else if let Some(reason) = self.engine_away.values().next() {
            Some((Rejection::EngineUnavailable, reason.clone()))
        } else if !dialect.waits_for_slot() {
            let is_full = self.jobs.len() + self.backlog.len() >= self.rules.slots;
            is_full.then(|| (Rejection::AtCapacity, FULL.to_owned()))
        } else {
            // A run with a free slot waits only for the check of the disk, and takes no place in the backlog.
            let free_slots = self.rules.slots.saturating_sub(self.jobs.len());
            let held: usize = self.backlog.iter().map(|pending| pending.bytes).sum();
            let is_full = self.backlog.len() >= BACKLOG + free_slots || held + bytes > BACKLOG_BYTES;
            is_full.then(|| (Rejection::BacklogFull, "the worker's backlog is full".to_owned()))
        }
    }

    /// Ends one execution of a task, or all of them if the cancel names none.
    pub(super) fn cancelled(&mut self, task_id: &str, execution_id: Option<&str>, now: Instant) {
        let is_named = |key: &ExecutionKey| key.is_named_by(task_id, execution_id);
        let (waiting, others): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.backlog)
            .into_iter()
            .partition(|pending: &PendingAssignment| is_named(&pending.assignment.key));
        self.backlog = others;
        let working = self.jobs.iter().filter(|(_, job)| is_named(&job.key) && job.is_working());
        let working: Vec<_> = working.map(|(id, job)| (*id, job_view(job, false, now))).collect();
        let key = ExecutionKey::new(task_id, execution_id);
        let has_ended = execution_id.is_some() && self.confirm_cancel(&key, now);
        if waiting.is_empty() && working.is_empty() && !has_ended {
            self.effects.push(info(format!("cancel ignored {key} reason=\"no such task\"")));
        }
        for pending in waiting {
            let key = &pending.assignment.key;
            self.effects.push(info(format!("task cancelled {key} phase=backlog")));
            let dialect = pending.assignment.dialect;
            self.fail(key, dialect, FailureReason::TaskCancelled, "cancelled before it was started");
            if execution_id.is_some() {
                self.close_unstarted(key, dialect, now);
            }
        }
        for (id, JobView { key, phase, .. }) in working {
            self.effects.push(info(format!("task cancelled {key} phase={phase}")));
            self.end_job(id, CancelReason::Requested);
        }
    }

    /// An invalid assignment does not end a task that the worker already holds.
    pub(super) fn invalid(&mut self, invalid: &Invalid) {
        let error = value(&invalid.message).to_string();
        let Some(key) = &invalid.key else {
            self.effects.push(warn(format!("message invalid error={error}")));
            return;
        };
        if !key.can_be_answered() {
            let reason = message(NO_ANSWER);
            self.effects.push(warn(format!("assignment not answered {key} error={error} reason={reason}")));
            return;
        }
        self.effects.push(warn(format!("assignment invalid {key} error={error}")));
        if !self.holds(key) {
            self.tally.fail(Phase::Assignment, FailureReason::InvalidAssignment.name());
            self.fail(key, invalid.dialect, FailureReason::InvalidAssignment, &invalid.message);
        }
    }

    pub(super) fn is_pending(&self, key: &ExecutionKey) -> bool {
        self.backlog.iter().any(|pending| pending.assignment.key == *key)
    }

    pub(super) fn pending_mut(&mut self, key: &ExecutionKey) -> Option<&mut PendingAssignment> {
        self.backlog.iter_mut().find(|pending| pending.assignment.key == *key)
    }

    pub(super) fn remove_pending(&mut self, key: &ExecutionKey) {
        self.backlog.retain(|pending| pending.assignment.key != *key);
    }

    /// Whether the worker has this execution, in any form.
    pub(super) fn has(&self, key: &ExecutionKey) -> bool {
        self.is_pending(key) || self.job_of(key).is_some() || self.settling.contains(key)
    }

    /// Whether the worker has the execution, or any of the task if `key` has no execution id.
    fn holds(&self, key: &ExecutionKey) -> bool {
        let is_named = |own: &ExecutionKey| own.is_named_by(&key.task_id, key.execution_id.as_deref());
        let mut waiting = self.backlog.iter();
        self.jobs.values().any(|job| is_named(&job.key))
            || self.settling.keys().any(is_named)
            || waiting.any(|pending| is_named(&pending.assignment.key))
    }

    /// Starts the oldest assignments first. One that was dropped, or ended, waits until that is cleaned up.
    pub(super) fn admit(&mut self, now: Instant) {
        while self.link_is_up() && self.stop.is_none() && !self.settling.are_behind() {
            let kept = self.backlog.iter().filter(|pending| pending.is_looked_up()).count();
            let is_free = self.jobs.len() + kept < self.rules.slots;
            let is_kept = self.jobs.len() < self.rules.slots;
            let can_start = |pending: &PendingAssignment| {
                let key = &pending.assignment.key;
                let may = pending.check == Check::None && is_free || pending.check == Check::Over && is_kept;
                may && pending.disk_checked && self.job_of(key).is_none() && !self.settling.contains(key)
            };
            let Some(place) = self.backlog.iter().position(can_start) else { return };
            if self.must_look_up(place, now) {
                continue;
            }
            let Some(pending) = self.backlog.remove(place) else { return };
            let job = JobState::new(&pending.assignment, now);
            self.add_job(job, Work::Run(pending.assignment));
        }
    }

    /// Looks up the run of an assignment that has waited long. Returns whether it does.
    fn must_look_up(&mut self, place: usize, now: Instant) -> bool {
        let have_succeeded = self.lookups.have_succeeded();
        let Some(pending) = self.backlog.get_mut(place) else { return false };
        let by_state = pending.assignment.dialect.state_decides_for(&pending.assignment.key);
        let is_unseen = pending.check == Check::None && now > pending.since + CLAIM_UNSEEN;
        if !is_unseen || !have_succeeded || !by_state {
            return false;
        }
        pending.check = Check::UnderWay(now + BEFORE_CLAIM);
        let key = pending.assignment.key.clone();
        self.check_assignment(&key, now);
        true
    }

    /// Claims an assignment whose look-up was not answered, unless it has waited too long for that.
    pub(super) fn assignment_unanswered(&mut self, key: &ExecutionKey, now: Instant) {
        let Some(pending) = self.pending_mut(key) else { return };
        if now < pending.since + CLAIM_HOLD {
            pending.check = Check::Over;
        } else {
            let dialect = pending.assignment.dialect;
            self.remove_pending(key);
            self.reject(key, dialect, Rejection::HoldExpired, "no slot was free in time");
        }
    }

    /// Claims a run whose job now has a thread.
    pub(super) fn thread_started(&mut self, id: JobId, now: Instant) {
        let seq = self.last_seq + 1;
        let limit = self.rules.task_timeout;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if let Some(claim) = job.send_claim(seq) {
            job.ends_at = (!limit.is_zero()).then(|| now + limit);
            self.last_seq = seq;
            self.tally.claim();
            self.effects.push(info(format!("task claimed {}", job.key)));
            self.send(Some(seq), claim);
            if self.had_space_at.is_some_and(|at| now >= at + SPACE_RENEWED) {
                self.check_disk();
            }
        }
    }

    /// Gives back a run for which there is no thread. For an adopted task, ends the process: its container goes on, and the next
    /// process adopts it.
    pub(super) fn no_thread(&mut self, id: JobId, reason: &str) {
        let Some(job) = self.jobs.remove(&id) else { return };
        if job.is_claimed() {
            let key = &job.key;
            self.effects.push(error(format!("no thread {key} error={}", value(reason))));
            self.effects.push(Effect::Exit(Exit::Failure));
        } else if job.is_working() {
            let reason = format!("no thread for the task: {reason}");
            self.reject(&job.key, job.dialect, Rejection::AtCapacity, &reason);
        }
    }

    /// Gives back a run for which there are too few file descriptors.
    pub(super) fn no_descriptors(&mut self, id: JobId, error: &str) {
        if let Some(job) = self.jobs.remove(&id).filter(JobState::is_working) {
            let reason = format!("no file descriptors for the task: {error}");
            self.reject(&job.key, job.dialect, Rejection::AtCapacity, &reason);
        }
    }

    /// Gives back everything in the backlog.
    pub(super) fn give_back(&mut self, why: Rejection, reason: &str) {
        for pending in std::mem::take(&mut self.backlog) {
            self.reject(&pending.assignment.key, pending.assignment.dialect, why, reason);
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let has_look_ups = self.lookups.have_succeeded();
        self.backlog.iter().map(|pending| pending.until(has_look_ups)).min()
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let has_look_ups = self.lookups.have_succeeded();
        // One that came again waits longer than those behind it.
        let late = self.backlog.iter().filter(|pending| now >= pending.until(has_look_ups));
        let late = late.map(|pending| (Arc::clone(&pending.assignment), pending.is_looked_up()));
        for (assignment, is_looked_up) in late.collect::<Vec<_>>() {
            let Assignment { key, dialect, .. } = &*assignment;
            if is_looked_up {
                self.assignment_unanswered(key, now);
            } else {
                let disk_checked = self.pending_mut(key).is_some_and(|pending| pending.disk_checked);
                self.remove_pending(key);
                let reason = if disk_checked {
                    "no slot was free in time"
                } else {
                    "the check of the engine's disk got no answer in time"
                };
                self.reject(key, *dialect, Rejection::HoldExpired, reason);
            }
        }
    }

    fn reject(&mut self, key: &ExecutionKey, dialect: Dialect, why: Rejection, reason: &str) {
        self.tally.reject(why);
        self.effects.push(info(format!("task rejected {key} reason={}", value(reason))));
        self.send(None, Outgoing::Rejected { key: key.clone(), dialect, reason: reason.to_owned() });
    }

    /// Reports a task that never had a slot, without a confirmation: if the report is lost, the control plane takes the run back.
    pub(super) fn fail(
        &mut self,
        key: &ExecutionKey,
        dialect: Dialect,
        reason: FailureReason,
        message: &str,
    ) {
        let message = message.to_owned();
        self.send(None, Outgoing::Failed { key: key.clone(), dialect, reason, message });
    }
}

/// The log keys that identify an assignment.
fn identity(assignment: &Assignment) -> String {
    let image = value(assignment.docker_image.as_deref().unwrap_or("default"));
    let mut text = format!("{} image={image} dialect={}", assignment.key, assignment.dialect.name());
    if let Some(id) = &assignment.trace_id {
        text.push_str(&format!(" trace={}", value(id)));
    }
    text
}
