//! Faults put in on purpose, many of them and at random moments: nothing is lost, run twice or left behind.
//!
//! Each test says what it counts.

mod cuts;
mod cutter;
mod engine;
mod fleet;
mod kills;
mod outage;
mod signals;

use std::collections::BTreeMap;

use crate::support::control_plane::Received;
use crate::support::control_plane::Run;

/// How often each task has been started, by what the tasks themselves have told: a line with the id for each start.
pub(crate) fn starts(told: &[String]) -> BTreeMap<&str, usize> {
    let mut starts = BTreeMap::new();
    told.iter().for_each(|id| *starts.entry(id.as_str()).or_default() += 1);
    starts
}

/// The reports that came for a run, also those that changed nothing there because it had been given up.
pub(crate) fn reports(run: &Run) -> Vec<&Received> {
    let terminal = |kind: &str| matches!(kind, "task_completed" | "task_failed");
    run.history.iter().filter(|received| terminal(&received.kind)).collect()
}
