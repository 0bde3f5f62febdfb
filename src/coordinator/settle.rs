//! Reports that the control plane has received: each is kept, with its container, until the run's state shows that it is stored.
//!
//! ```text
//!                 +------+ not stored: sent again
//!                 v      |
//! (received) ---> Settling ---> Waiting ---> Removing ---> (gone)
//!                        stored,      the engine has time
//!                        given up
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::claims::{Standing, standing};
use super::event::Effect;
use super::lookups::{Backoff, Priority, Query};
use super::{Coordinator, debug, error, info, warn};
use crate::job::{JobId, Leftover, Removal};
use crate::protocol::{EncodedReport, ExecutionKey, Outgoing, RunView};

/// The most reports that are kept after they were received.
pub(super) const MAX_REPORTS: usize = 256;

/// The most bytes that these reports have.
pub(super) const MAX_BYTES: usize = 64 << 20;

/// The most containers that wait for their removal before no new task starts.
pub(super) const MAX_REMOVALS: usize = 256;

/// How long a report is kept without an answer.
const MAX_SILENCE: Duration = Duration::from_secs(600);

/// How long a report without an answer is kept while the worker stops.
const SILENCE_AT_END: Duration = Duration::from_secs(2);

/// The delay of a report's first look-up while the worker stops.
const FIRST_AT_END: Duration = Duration::from_millis(100);

/// The delay of its further look-ups.
const DELAY_AT_END: Duration = Duration::from_millis(500);

/// A report that was received.
pub(super) struct Received {
    pub(super) key: ExecutionKey,
    pub(super) report: Arc<EncodedReport>,
    pub(super) assigned_at: Option<OffsetDateTime>,
    pub(super) left: Arc<Leftover>,
}

struct Settling {
    received: Received,
    backoff: Backoff,
    /// When it is settled by its confirmation if no look-up is answered.
    silent_until: Instant,
    /// The last look-up has shown that it is not stored.
    is_missing: bool,
}

/// The reports that were received and are not known to be stored, and the containers of those that are.
pub(super) struct Settlements {
    /// The oldest first.
    settling: BTreeMap<JobId, Settling>,
    /// The bytes of their reports.
    bytes: usize,
    max_bytes: usize,
    waiting: VecDeque<(JobId, Arc<Leftover>)>,
    removing: BTreeMap<JobId, Arc<Leftover>>,
}

impl Settlements {
    pub(super) fn new() -> Self {
        Self {
            settling: BTreeMap::new(),
            bytes: 0,
            max_bytes: MAX_BYTES,
            waiting: VecDeque::new(),
            removing: BTreeMap::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.settling.is_empty() && self.waiting.is_empty() && self.removing.is_empty()
    }

    /// The number of reports that are not known to be stored.
    pub(super) fn unsettled(&self) -> usize {
        self.settling.len()
    }

    /// Whether too many containers wait for their removal.
    pub(super) fn are_behind(&self) -> bool {
        self.waiting.len() >= MAX_REMOVALS
    }

    /// Whether something of this execution is left.
    pub(super) fn contains(&self, key: &ExecutionKey) -> bool {
        self.keys().any(|own| own == key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ExecutionKey> {
        let removals = self.waiting.iter().map(|(_, left)| left).chain(self.removing.values());
        let settling = self.settling.values().map(|settling| &settling.received.key);
        settling.chain(removals.map(|left| &left.key))
    }

    /// Returns the execution of a report that is not settled.
    pub(super) fn key(&self, id: JobId) -> Option<&ExecutionKey> {
        self.settling.get(&id).map(|settling| &settling.received.key)
    }

    pub(super) fn is_removing(&self, id: JobId) -> bool {
        self.removing.contains_key(&id)
    }

    fn remove(&mut self, id: JobId) -> Option<Received> {
        let received = self.settling.remove(&id)?.received;
        self.bytes -= received.report.bytes();
        Some(received)
    }
}

impl Coordinator {
    /// Keeps a report that was received until it is stored.
    pub(super) fn keep_report(&mut self, id: JobId, received: Received, now: Instant) {
        let ending = self.is_ending();
        let mut backoff = Backoff::new(id.0);
        let (delay, silence) =
            if ending { (FIRST_AT_END, SILENCE_AT_END) } else { (backoff.delay(), MAX_SILENCE) };
        self.settling.bytes += received.report.bytes();
        self.settling
            .settling
            .insert(id, Settling { received, backoff, silent_until: now + silence, is_missing: false });
        self.lookups.add_limited(Priority::Report, now + delay, Query::Report(id), self.report_limit());
        while self.settling.settling.len() > MAX_REPORTS || self.settling.bytes > self.settling.max_bytes {
            let Some(oldest) = self.settling.settling.keys().next().copied() else { return };
            self.settle_unanswered(oldest, "too many reports are kept");
        }
    }

    fn report_limit(&self) -> Duration {
        if self.is_ending() { SILENCE_AT_END } else { Duration::from_secs(10) }
    }

    pub(super) fn report_looked_up(&mut self, id: JobId, run: Option<&RunView>, now: Instant) {
        let ending = self.is_ending();
        let Some(settling) = self.settling.settling.get_mut(&id) else { return };
        let key = settling.received.key.clone();
        let standing = run.map(|run| standing(run, settling.received.assigned_at));
        match standing {
            Some(Standing::Over) => {
                let state = run.map_or("unknown", |run| run.state.word());
                self.effects.push(debug(format!("report stored {key} state={state}")));
                return self.settled(id);
            }
            Some(Standing::TakenBack) => {
                let state = run.map_or("unknown", |run| run.state.word());
                let reason = "the run was taken back";
                self.effects.push(warn(format!("report not wanted {key} reason=\"{reason}\" state={state}")));
                return self.settled(id);
            }
            Some(Standing::Running | Standing::Ours | Standing::Unclear) => {
                if standing != Some(Standing::Unclear) {
                    let silence = if ending { DELAY_AT_END + SILENCE_AT_END } else { MAX_SILENCE };
                    settling.silent_until = now + silence;
                    settling.is_missing = true;
                }
                let report = Outgoing::Report(Arc::clone(&settling.received.report));
                self.effects.push(info(format!("report not stored, sending it again {key}")));
                self.send(None, report);
            }
            None if self.lookups.are_absent() => return self.settled(id),
            None => {}
        }
        if let Some(settling) = self.settling.settling.get_mut(&id) {
            let at = now + if ending { DELAY_AT_END } else { settling.backoff.delay() };
            self.lookups.add_limited(Priority::Report, at, Query::Report(id), self.report_limit());
        }
    }

    /// Settles the reports that got no answer for too long. At a stop the next process asks again, if look-ups are known to work.
    pub(super) fn settle_silent(&mut self, now: Instant) {
        let is_late = |settling: &Settling| now >= settling.silent_until;
        let late = self.settling.settling.iter().filter(|(_, settling)| is_late(settling));
        let late: Vec<JobId> = late.map(|(id, _)| *id).collect();
        let are_left = self.is_ending() && self.lookups.have_succeeded();
        for id in late {
            if are_left {
                self.leave_report(id);
            } else {
                self.settle_unanswered(id, "the look-ups got no answer");
            }
        }
    }

    /// Leaves a report, and its container, to the next process.
    fn leave_report(&mut self, id: JobId) {
        if let Some(received) = self.settling.remove(id) {
            self.effects.push(error(format!("report not delivered {}", received.key)));
            self.fail_stop();
        }
    }

    pub(super) fn next_silent(&self) -> Option<Instant> {
        self.settling.settling.values().map(|settling| settling.silent_until).min()
    }

    /// Sends the reports that are known not to be stored, on a new connection.
    pub(super) fn send_missing(&mut self) {
        let missing = self.settling.settling.values().filter(|settling| settling.is_missing);
        let reports: Vec<_> = missing.map(|settling| Arc::clone(&settling.received.report)).collect();
        reports.into_iter().for_each(|report| self.send(None, Outgoing::Report(report)));
    }

    /// While the worker stops, a report is looked up at once and waits for the answer only shortly.
    pub(super) fn hurry_reports(&mut self, now: Instant) {
        self.lookups.hurry(now, SILENCE_AT_END);
        for settling in self.settling.settling.values_mut() {
            settling.silent_until = settling.silent_until.min(now + SILENCE_AT_END);
        }
    }

    fn settle_unanswered(&mut self, id: JobId, reason: &str) {
        if let Some(key) = self.settling.key(id) {
            self.effects.push(warn(format!("report settled by its receipt {key} reason=\"{reason}\"")));
        }
        self.settled(id);
    }

    fn settled(&mut self, id: JobId) {
        let Some(received) = self.settling.remove(id) else { return };
        if !received.left.is_empty() {
            self.settling.waiting.push_back((id, received.left));
        }
    }

    /// Removes what is still left of a job, as soon as there is a slot for it.
    pub(super) fn remove_again(&mut self, id: JobId, left: Arc<Leftover>) {
        self.settling.waiting.push_back((id, left));
    }

    /// Removes what tasks have left whose reports are settled, as many at once as there are slots.
    pub(super) fn remove_leftovers(&mut self) {
        while self.settling.removing.len() < self.rules.slots {
            let Some((id, left)) = self.settling.waiting.pop_front() else { return };
            self.effects.push(Effect::CleanUp { job: id, left: Arc::clone(&left) });
            self.settling.removing.insert(id, left);
        }
    }

    pub(super) fn cleaned_up(&mut self, id: JobId, removal: Removal, now: Instant) {
        self.engine_away.remove(&id);
        self.removed_again(id, removal, now);
        self.settling.removing.remove(&id);
    }

    /// Gives up the reports that are known not to be stored; the next process delivers them.
    pub(super) fn give_up_missing(&mut self) {
        let missing = self.settling.settling.iter().filter(|(_, settling)| settling.is_missing);
        let ids: Vec<JobId> = missing.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.leave_report(id));
    }

    /// Sends the report of a task that has ended again, because its run was assigned again. Returns whether there is one.
    pub(super) fn answer_with_report(
        &mut self,
        key: &ExecutionKey,
        assigned_at: Option<OffsetDateTime>,
    ) -> bool {
        let mut settling = self.settling.settling.values_mut();
        let Some(settling) = settling.find(|settling| settling.received.key == *key) else { return false };
        settling.received.assigned_at = assigned_at;
        let report = Outgoing::Report(Arc::clone(&settling.received.report));
        self.send(None, report);
        true
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
