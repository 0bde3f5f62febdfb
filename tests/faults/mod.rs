//! Many injected faults at random moments: no task is lost or run twice, and nothing is left behind.

mod connection_faults;

mod control_plane_outage;
mod engine_outage;
mod executions;
mod fleet;
mod signals;
mod store_faults;
mod worker_kills;

use std::collections::BTreeMap;

use crate::support::control_plane::{Model, Received, Run};

/// Returns how often each task was started. `lines` has the id of a task for each start.
pub(crate) fn starts(lines: &[String]) -> BTreeMap<&str, usize> {
    let mut starts = BTreeMap::new();
    lines.iter().for_each(|id| *starts.entry(id.as_str()).or_default() += 1);
    starts
}

/// Returns how many runs have not ended.
pub(crate) fn pending(model: &Model) -> usize {
    model.runs.iter().filter(|run| !run.state.ended()).count()
}

/// What a worker tells a run that waits for a claim that was lost.
const LOST_CLAIM: &str = "the worker lost the claim of this run and did not start its task";

/// Whether a worker has failed a run that it did not start. The control plane ignores that if another worker has the run.
pub(crate) fn is_lost_claim(report: &Received) -> bool {
    report.kind == "task_failed" && report.data["message"] == LOST_CLAIM
}

/// Returns all reports for a run, including those that came after the control plane had failed it.
pub(crate) fn reports(run: &Run) -> Vec<&Received> {
    let terminal = |kind: &str| matches!(kind, "task_completed" | "task_failed");
    run.history.iter().filter(|received| terminal(&received.kind)).collect()
}
