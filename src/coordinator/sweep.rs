//! The sweep: what a clean-up could not remove is tried again from time to time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::{Coordinator, info, warn};
use crate::job::{JobId, Leftover, REMOVE_AGAIN_AFTER};

/// The most leftovers that are remembered. The next start removes the others.
const MAX_LEFTOVERS: usize = 1000;

/// What clean-ups could not remove, with the time of the next attempt, the earliest first.
#[derive(Default)]
pub(super) struct NotRemoved(VecDeque<(Instant, JobId, Arc<Leftover>)>);

impl NotRemoved {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.front().map(|(at, ..)| *at)
    }
}

impl Coordinator {
    pub(super) fn remove_later(&mut self, id: JobId, left: Arc<Leftover>, now: Instant) {
        // A worker that stops leaves it to the next process.
        if self.stop.is_some() {
            return;
        }
        if self.not_removed.0.len() >= MAX_LEFTOVERS {
            self.effects.push(warn(format!("clean-up left for the next start {}", left.key)));
            return;
        }
        self.not_removed.0.push_back((now + REMOVE_AGAIN_AFTER, id, left));
    }

    /// As [`Coordinator::remove_later`], apart from the job that used the helper: that may have a leftover of its own.
    pub(super) fn remove_helper_later(&mut self, left: Arc<Leftover>, now: Instant) {
        let id = self.new_id();
        self.remove_later(id, left, now);
    }

    /// Tries a removal again that has failed, now. Does nothing if it is under way.
    pub(super) fn sweep_now(&mut self, id: JobId) {
        let found = self.not_removed.0.iter().position(|(_, job, _)| *job == id);
        if let Some((_, id, left)) = found.and_then(|place| self.not_removed.0.remove(place)) {
            self.remove_again(id, left);
        }
    }

    pub(super) fn sweep(&mut self, now: Instant) {
        if self.stop.is_some() {
            self.not_removed.0.clear();
        }
        while self.not_removed.deadline().is_some_and(|at| now >= at) {
            let Some((_, id, left)) = self.not_removed.0.pop_front() else { return };
            self.effects.push(info(format!("clean-up tried again {}", left.key)));
            self.remove_again(id, left);
        }
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
