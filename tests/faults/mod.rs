//! Many injected faults at random moments: no task is lost or run twice, and nothing is left behind.

mod connection_faults;

mod control_plane_outage;
mod engine_change;
mod engine_outage;
mod executions;
mod fleet;
mod signals;
mod store_faults;
mod worker_kills;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::control_plane::{Dialect, Model, Received, Run};

/// The kinds of control planes.
pub(crate) const DIALECTS: [Dialect; 2] = [Dialect::Old, Dialect::Upstream];

/// Runs a test at both kinds of control planes at the same time.
pub(crate) fn in_both_dialects(test: impl Fn(Dialect) + Sync) {
    std::thread::scope(|scope| {
        for dialect in DIALECTS {
            let test = &test;
            let thread = std::thread::Builder::new().name(format!("{dialect:?}"));
            thread.spawn_scoped(scope, move || test(dialect)).expect("a thread");
        }
    });
}

/// The type, `failure_reason` and `exit_code` of a report.
pub(crate) type End = (String, Value, Value);

/// Returns the end in the report of a container that has exited with this code.
pub(crate) fn exited(dialect: Dialect, code: i64) -> End {
    let (kind, reason, code) = match dialect {
        Dialect::Old => ("task_completed", Value::Null, json!(code)),
        Dialect::Upstream if code == 0 => ("task_completed", Value::Null, Value::Null),
        Dialect::Upstream => ("task_failed", json!("container_exit"), json!(code)),
    };
    (kind.to_owned(), reason, code)
}

/// Returns the end in the report of a container that the worker's stop has ended with this code.
pub(crate) fn shut_down(dialect: Dialect, code: i64) -> End {
    let code = if dialect == Dialect::Old { json!(code) } else { Value::Null };
    ("task_failed".to_owned(), json!("graceful_shutdown"), code)
}

/// Returns the output in the report of a task that has printed this.
pub(crate) fn output(dialect: Dialect, text: &str) -> Value {
    if dialect == Dialect::Old { json!(text) } else { Value::Null }
}

/// Returns the end in a report.
pub(crate) fn end_of(report: &Received) -> End {
    (report.kind.clone(), report.data["failure_reason"].clone(), report.data["exit_code"].clone())
}

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
    let message = report.data["message"].as_str();
    report.kind == "task_failed" && message.is_some_and(|message| message.ends_with(LOST_CLAIM))
}

/// Returns all reports for a run, including those that came after the control plane had failed it.
pub(crate) fn reports(run: &Run) -> Vec<&Received> {
    let terminal = |kind: &str| matches!(kind, "task_completed" | "task_failed");
    run.history.iter().filter(|received| terminal(&received.kind)).collect()
}
