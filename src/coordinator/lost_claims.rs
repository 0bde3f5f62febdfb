//! Claims whose task was dropped unstarted. If the control plane has stored one, its run would wait for ever, so it is failed.
//!
//! Where the state of the run does not tell, the run is failed some seconds after the reconnect, unless it is assigned again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use super::claims::{Standing, standing};
use super::lookups::{Backoff, Lookups, Priority, Query};
use super::{Coordinator, LinkState, warn};
use crate::metrics::Phase;
use crate::protocol::{Dialect, ExecutionKey, FailureReason, RunView};

/// The most claims that are remembered; further ones replace the oldest.
const MAX_CLAIMS: usize = 1024;

/// How long a claim is remembered.
const MAX_AGE: Duration = Duration::from_secs(600);

/// How long after a reconnect a run may be assigned again before it is failed without a look-up.
const ASSIGNED_AGAIN: Duration = Duration::from_secs(3);

/// How long such a failure is remembered: it is sent again if the connection ends meanwhile.
const FAILED: Duration = Duration::from_secs(60);

/// Told to the people who wait for the run.
const MESSAGE: &str = "the worker lost the claim of this run and did not start its task";

struct LostClaim {
    key: ExecutionKey,
    dialect: Dialect,
    assigned_at: Option<OffsetDateTime>,
    until: Instant,
    backoff: Backoff,
    /// A look-up waits or is under way.
    is_looked_up: bool,
    /// When the run is failed without a look-up.
    fail_at: Option<Instant>,
    /// The last look-up has shown that the run waits for it.
    is_awaited: bool,
}

impl LostClaim {
    /// Looks it up on a new connection, or plans that its run is failed without a look-up.
    fn look_up(&mut self, lookups: &mut Lookups, now: Instant) {
        self.is_awaited = false;
        if !self.dialect.state_decides_for(&self.key) {
            self.fail_at = Some(now + ASSIGNED_AGAIN);
        } else if !std::mem::replace(&mut self.is_looked_up, true) {
            lookups.add(Priority::Report, now, Query::LostClaim(self.key.clone()));
        }
    }
}

/// The claims that were lost, the oldest first.
#[derive(Default)]
pub(super) struct LostClaims {
    claims: VecDeque<LostClaim>,
}

impl LostClaims {
    pub(super) fn contains(&self, key: &ExecutionKey) -> bool {
        self.claims.iter().any(|claim| claim.key == *key)
    }

    pub(super) fn forget(&mut self, key: &ExecutionKey) {
        self.claims.retain(|claim| claim.key != *key);
    }

    fn get_mut(&mut self, key: &ExecutionKey) -> Option<&mut LostClaim> {
        self.claims.iter_mut().find(|claim| claim.key == *key)
    }
}

impl Coordinator {
    /// Remembers the claims of an earlier process whose containers were never started.
    pub(super) fn remember_unstarted(&mut self, found: Vec<(ExecutionKey, Dialect)>, now: Instant) {
        for (key, dialect) in found {
            // After the start this process may have the run, with a claim of its own, or have ended it: only a look-up tells.
            let is_late = self.link != LinkState::Connecting;
            if self.has(&key) || is_late && !dialect.state_decides_for(&key) {
                continue;
            }
            self.remember_claim(key.clone(), dialect, None, now);
            if self.link_is_up()
                && let Some(claim) = self.lost_claims.get_mut(&key)
            {
                claim.look_up(&mut self.lookups, now);
            }
        }
    }

    /// Remembers a claim whose task was dropped unstarted.
    pub(super) fn remember_claim(
        &mut self,
        key: ExecutionKey,
        dialect: Dialect,
        assigned_at: Option<OffsetDateTime>,
        now: Instant,
    ) {
        // Another worker with this id may run it.
        if self.rules.shared_id {
            return;
        }
        let claims = &mut self.lost_claims.claims;
        claims.retain(|claim| now < claim.until && claim.key != key);
        if claims.len() >= MAX_CLAIMS {
            claims.pop_front();
        }
        let (until, backoff) = (now + MAX_AGE, Backoff::new(0));
        let (is_looked_up, is_awaited, fail_at) = (false, false, None);
        claims.push_back(LostClaim {
            key,
            dialect,
            assigned_at,
            until,
            backoff,
            is_looked_up,
            is_awaited,
            fail_at,
        });
    }

    /// Fails the runs whose time has come.
    pub(super) fn fail_lost_claims(&mut self, now: Instant) {
        if !self.link_is_up() || self.stop.is_some() {
            return;
        }
        let due = self.lost_claims.claims.iter().filter(|claim| claim.fail_at.is_some_and(|at| at <= now));
        let due: Vec<_> = due.map(|claim| (claim.key.clone(), claim.dialect)).collect();
        for (key, dialect) in due {
            // The dropped job may still be cleaning up.
            let is_here = self.has(&key);
            let Some(claim) = self.lost_claims.get_mut(&key) else { continue };
            claim.fail_at = is_here.then(|| now + ASSIGNED_AGAIN);
            if !is_here {
                claim.until = now + FAILED;
                self.effects.push(warn(format!("run failed {key} reason=\"its claim was lost\"")));
                self.fail(&key, dialect, FailureReason::Internal, MESSAGE);
            }
        }
    }

    /// Returns when the next run is failed without a look-up.
    pub(super) fn next_lost_claim(&self) -> Option<Instant> {
        let due = self.lost_claims.claims.iter().filter_map(|claim| claim.fail_at);
        due.min().filter(|_| self.link_is_up() && self.stop.is_none())
    }

    /// Looks up all remembered claims after a reconnect.
    pub(super) fn look_up_lost_claims(&mut self, now: Instant) {
        self.lost_claims.claims.retain(|claim| now < claim.until);
        for claim in &mut self.lost_claims.claims {
            claim.look_up(&mut self.lookups, now);
        }
    }

    pub(super) fn lost_claim_looked_up(&mut self, key: &ExecutionKey, run: Option<&RunView>, now: Instant) {
        let is_up = self.link_is_up();
        let Some(claim) = self.lost_claims.get_mut(key) else { return };
        claim.is_looked_up = false;
        // Without a connection it is looked up after the next one.
        if !is_up || self.stop.is_some() {
            return;
        }
        let dialect = claim.dialect;
        let standing = run.map(|run| standing(run, claim.assigned_at));
        let goes_on = match standing {
            // The claim may still be on its way to the store.
            None | Some(Standing::Ours | Standing::Unclear | Standing::Running) => {
                now < claim.until && !self.lookups.are_absent()
            }
            Some(Standing::Over | Standing::TakenBack) => false,
        };
        let delay = claim.backoff.delay();
        claim.is_looked_up = goes_on;
        let is_running = standing == Some(Standing::Running);
        let was_awaited = claim.is_awaited;
        claim.is_awaited = is_running || was_awaited && standing.is_none();
        // The claim may have been stored only after the run was assigned again. That assignment was sent before, and makes this
        // claim forgotten: it has come by the second answer. The dropped job may still be cleaning up.
        if is_running && was_awaited && !self.has(key) {
            // This message may be lost as well, so the run is looked up again.
            self.effects.push(warn(format!("run failed {key} reason=\"its claim was lost\"")));
            self.tally.fail(Phase::Assignment, FailureReason::Internal.name());
            self.fail(key, dialect, FailureReason::Internal, MESSAGE);
        }
        if goes_on {
            self.lookups.add(Priority::Report, now + delay, Query::LostClaim(key.clone()));
        } else {
            self.lost_claims.forget(key);
        }
    }
}

#[cfg(test)]
#[path = "lost_claims_tests.rs"]
mod tests;
