//! Executions that have ended, in the dialect that names them: none is started again, and a cancel of one is confirmed.
//!
//! A confirmation says that the execution has ended and that its container is removed. It is sent only after a cancel that names
//! the execution, within [`CLOSE_WITHIN`]; after that the next cancel gets it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Coordinator, info};
use crate::job::{JobId, Removal};
use crate::protocol::{Dialect, EncodedReport, ExecutionKey, Outgoing};

/// How long after a cancel its confirmation is sent.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The most executions that are remembered, of those that were confirmed and of the others.
const MAX_ENDED: usize = 4096;

/// An execution that has ended.
pub(super) struct Ended {
    pub(super) dialect: Dialect,
    /// Its job; `None` if it had none.
    job: Option<JobId>,
    /// `None` if it had no slot.
    report: Option<Arc<EncodedReport>>,
    removal: Removal,
    /// Until when a cancel is confirmed; `None` if it is not cancelled or is confirmed.
    close_by: Option<Instant>,
    is_closed: bool,
}

/// The executions that have ended. The oldest are forgotten.
#[derive(Default)]
pub(super) struct EndedExecutions {
    by_key: BTreeMap<Arc<ExecutionKey>, Ended>,
    /// In the order of their ends or confirmations.
    open: VecDeque<Arc<ExecutionKey>>,
    closed: VecDeque<Arc<ExecutionKey>>,
    /// Those whose containers are not removed.
    left: BTreeMap<JobId, Arc<ExecutionKey>>,
}

impl EndedExecutions {
    fn insert(&mut self, key: &ExecutionKey, ended: Ended) {
        let key = Arc::new(key.clone());
        if self.by_key.insert(Arc::clone(&key), ended).is_none() {
            self.open.push_back(key);
        }
        if self.open.len() > MAX_ENDED
            && let Some(oldest) = self.open.pop_front()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &ExecutionKey) {
        if let Some(job) = self.by_key.remove(key).and_then(|ended| ended.job) {
            self.left.remove(&job);
        }
    }

    /// Moves an execution to those that are confirmed.
    fn close(&mut self, key: &ExecutionKey) {
        let Some(key) = self.by_key.get_key_value(key).map(|(key, _)| Arc::clone(key)) else { return };
        let Some(ended) = self.by_key.get_mut(&key) else { return };
        ended.close_by = None;
        if std::mem::replace(&mut ended.is_closed, true) {
            return;
        }
        self.open.retain(|open| *open != key);
        self.closed.push_back(key);
        if self.closed.len() > MAX_ENDED
            && let Some(oldest) = self.closed.pop_front()
        {
            self.forget(&oldest);
        }
    }
}

impl Coordinator {
    /// Remembers an execution that had a job and was reported.
    pub(super) fn remember_ended(&mut self, id: JobId, removal: Removal, now: Instant) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(report) = job.settled_report().filter(|_| job.dialect.remembers_ended(&job.key)) else {
            return;
        };
        let key = job.key.clone();
        let ended = Ended {
            dialect: job.dialect,
            job: Some(id),
            report: Some(report),
            removal,
            close_by: job.close_by,
            is_closed: false,
        };
        if removal == Removal::Left {
            self.ended.left.insert(id, Arc::new(key.clone()));
        }
        self.ended.insert(&key, ended);
        self.confirm_closing(&key, now);
    }

    /// Remembers an execution that was cancelled before it had a slot, and confirms that.
    pub(super) fn close_unstarted(&mut self, key: &ExecutionKey, dialect: Dialect, now: Instant) {
        if dialect.remembers_ended(key) {
            let (removal, close_by) = (Removal::Gone, Some(now + CLOSE_WITHIN));
            let ended = Ended { dialect, job: None, report: None, removal, close_by, is_closed: false };
            self.ended.insert(key, ended);
            self.confirm_closing(key, now);
        }
    }

    /// A cancel names this execution. Returns whether it has ended.
    pub(super) fn confirm_cancel(&mut self, key: &ExecutionKey, now: Instant) -> bool {
        let close_by = Some(now + CLOSE_WITHIN);
        let named = self.jobs.values_mut().filter(|job| job.key == *key && job.dialect.remembers_ended(key));
        named.for_each(|job| job.close_by = close_by);
        let Some(ended) = self.ended.by_key.get_mut(key) else { return false };
        ended.close_by = close_by;
        if let Some(job) = ended.job.filter(|_| ended.removal == Removal::Left) {
            self.sweep_now(job);
        }
        self.confirm_closing(key, now);
        true
    }

    /// The removal of a container was tried again.
    pub(super) fn removed_again(&mut self, id: JobId, removal: Removal, now: Instant) {
        let Some(key) = self.ended.left.remove(&id) else { return };
        if removal == Removal::Left {
            self.ended.left.insert(id, Arc::clone(&key));
        }
        if let Some(ended) = self.ended.by_key.get_mut(&key) {
            ended.removal = removal;
            self.confirm_closing(&key, now);
        }
    }

    fn confirm_closing(&mut self, key: &ExecutionKey, now: Instant) {
        let Some(ended) = self.ended.by_key.get(key) else { return };
        let is_due = ended.close_by.is_some_and(|close_by| now <= close_by);
        if !is_due || ended.removal != Removal::Gone || !self.link_is_up() {
            return;
        }
        let dialect = ended.dialect;
        self.ended.close(key);
        self.effects.push(info(format!("execution closed {key}")));
        self.send(None, Outgoing::Closed { key: key.clone(), dialect });
    }

    /// Answers an assignment of an execution that has ended with its report. Returns whether it has ended.
    pub(super) fn answer_ended(&mut self, key: &ExecutionKey) -> bool {
        let Some(ended) = self.ended.by_key.get(key) else { return false };
        let report = ended.report.clone();
        self.effects.push(info(format!("assignment ignored {key} reason=\"the execution has ended\"")));
        if let Some(report) = report {
            self.send(None, Outgoing::Report(report));
        }
        true
    }
}

#[cfg(test)]
#[path = "closing_tests.rs"]
mod tests;
