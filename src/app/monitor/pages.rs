//! The monitoring pages, made of the worker's state at one moment.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Answer;
use crate::coordinator::{JobView, LinkState, Status, View};
use crate::metrics::{Snapshot, Steps, Tally, text};
use crate::sys::process::ProcessStats;

/// How long the link's thread may be late. It is late on a machine that was suspended or has no time.
pub(crate) const LINK_LATE: Duration = Duration::from_secs(30);

/// What does not come from the main thread.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) worker_id: String,
    pub(super) slots: usize,
    pub(super) steps: Arc<Steps>,
    /// When the process began, since 1970.
    pub(super) started: Duration,
    pub(super) uptime: Duration,
    pub(super) process: ProcessStats,
    /// Free bytes of the engine's disk at the last check; `None` if it is not watched.
    pub(super) disk_free: Option<u64>,
    pub(super) min_free_disk: u64,
    pub(super) dropped_lines: u64,
}

/// What the main thread tells.
#[derive(Debug, Clone)]
pub(super) enum State {
    /// It searches for the engine and for the tasks of an earlier process. The error, if it waits for the engine.
    Starting(Option<String>),
    /// The worker runs.
    Running(Box<Sample>),
    /// The main thread does not answer.
    Stuck,
    /// The worker has ended.
    Ended,
}

/// The answer of the main thread.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) view: View,
    /// How long the link's thread should have gone on before.
    pub(crate) link_overdue: Duration,
}

/// Why the worker takes no tasks: a short form, and one for the operator.
struct Reason {
    short: &'static str,
    detail: String,
}

/// Returns the page at `path`. `is_local` is whether the client may see more than counts.
pub(super) fn page(path: &str, is_local: bool, state: &State, facts: &Facts) -> Answer {
    match path {
        "/metrics" => metrics(state, facts),
        "/healthz" => match ill(state) {
            None => Answer::line(200, "ok"),
            Some(reason) => Answer::line(503, reason),
        },
        "/readyz" => {
            let reasons = reasons(state);
            let shown =
                |reason: &Reason| if is_local { reason.detail.clone() } else { reason.short.to_owned() };
            match reasons.as_slice() {
                [] => Answer::line(200, "ok"),
                reasons => Answer::line(503, &reasons.iter().map(shown).collect::<Vec<_>>().join("\n")),
            }
        }
        "/status" => {
            let body = format!("{:#}\n", status(is_local, state, facts));
            Answer { status: 200, content_type: "application/json", body }
        }
        "/" => Answer::line(200, "/metrics\n/healthz\n/readyz\n/status"),
        _ => Answer::line(404, "there are /metrics, /healthz, /readyz and /status"),
    }
}

/// Returns which thread does not go on, for people.
fn ill(state: &State) -> Option<&'static str> {
    match state {
        State::Stuck => Some("the main thread does not answer"),
        State::Running(sample) if sample.link_overdue > LINK_LATE => Some("the link's thread does not go on"),
        State::Starting(_) | State::Running(_) | State::Ended => None,
    }
}

fn reasons(state: &State) -> Vec<Reason> {
    let reason = |short: &'static str, detail: &str| Reason { short, detail: detail.to_owned() };
    let status = match state {
        State::Starting(None) => return vec![reason("starting", "starting")],
        State::Starting(Some(error)) => {
            return vec![reason("engine unavailable", &format!("waiting for the engine: {error}"))];
        }
        State::Stuck => return vec![reason("unhealthy", "the main thread does not answer")],
        State::Ended => return vec![reason("stopping", "the worker has ended")],
        State::Running(sample) => &sample.view.status,
    };
    let mut reasons = Vec::new();
    if let Some(ill) = ill(state) {
        reasons.push(reason("unhealthy", ill));
    }
    if let Some(stop) = &status.stop {
        let error = stop.reason.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        let step = if stop.draining { "draining" } else { "stopping" };
        reasons.push(Reason { short: "stopping", detail: format!("{step}{error}") });
    }
    if status.link != LinkState::Up {
        let refusal = status.refusal.as_ref().map(|refusal| format!(": {refusal}")).unwrap_or_default();
        let detail = format!("not connected to the control plane{refusal}");
        reasons.push(Reason { short: "not connected", detail });
    }
    let problems = [("engine unavailable", &status.engine_away), ("disk full", &status.disk_low)];
    for (short, problem) in problems {
        reasons.extend(problem.as_ref().map(|detail| reason(short, detail)));
    }
    reasons
}

/// Without the main thread's answer there are no numbers.
fn metrics(state: &State, facts: &Facts) -> Answer {
    let view = match state {
        State::Running(sample) => Some(&sample.view),
        State::Starting(_) => None,
        State::Stuck | State::Ended => return Answer::line(503, "the main thread does not answer"),
    };
    let none = Tally::default();
    let status = view.map(|view| &view.status);
    let count = |number: fn(&View) -> usize| view.map_or(0, number);
    let snapshot = Snapshot {
        worker_id: &facts.worker_id,
        connected: status.is_some_and(|status| status.link == LinkState::Up),
        slots: facts.slots,
        active: status.map_or(0, |status| status.tasks),
        backlog: count(|view| view.backlog),
        unsettled: count(|view| view.unsettled),
        engine_up: status.is_some_and(|status| status.engine_away.is_none()),
        outage: view.and_then(|view| view.outage).unwrap_or_default(),
        tally: view.map_or(&none, |view| &view.tally),
        steps: &facts.steps,
        disk_free: facts.disk_free,
        dropped_lines: facts.dropped_lines,
        process: facts.process,
        started: facts.started,
    };
    Answer { status: 200, content_type: "text/plain; version=0.0.4; charset=utf-8", body: text(&snapshot) }
}

/// The keys are an interface. A client that is not local gets no id and no text of others.
fn status(is_local: bool, state: &State, facts: &Facts) -> Value {
    let view = match state {
        State::Running(sample) => Some(&sample.view),
        _ => None,
    };
    let status = view.map(|view| &view.status);
    let reasons = reasons(state);
    let mut page = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "state": word(state, status),
        "healthy": ill(state).is_none(),
        "ready": reasons.is_empty(),
        "connected": status.is_some_and(|status| status.link == LinkState::Up),
        "uptime_s": facts.uptime.as_secs(),
        "slots": facts.slots,
        "tasks_active": status.map_or(0, |status| status.tasks),
        "backlog": view.map_or(0, |view| view.backlog),
        "reports_unsettled": view.map_or(0, |view| view.unsettled),
        "engine_up": status.is_some_and(|status| status.engine_away.is_none()),
        "disk_free_bytes": facts.disk_free,
        "disk_min_free_bytes": facts.min_free_disk,
    });
    if is_local && let Value::Object(page) = &mut page {
        page.insert("worker_id".to_owned(), json!(facts.worker_id));
        page.insert("pid".to_owned(), json!(std::process::id()));
        page.insert("reasons".to_owned(), reasons.iter().map(|reason| reason.detail.as_str()).collect());
        page.insert(
            "tasks".to_owned(),
            view.map(|view| view.jobs.iter().map(task).collect()).unwrap_or(json!([])),
        );
    }
    page
}

fn word(state: &State, status: Option<&Status>) -> &'static str {
    match (state, status.and_then(|status| status.stop.as_ref()), status.map(|status| status.link)) {
        (State::Starting(_), ..) => "starting",
        (State::Stuck, ..) => "unhealthy",
        (State::Ended, ..) => "ended",
        (_, Some(stop), _) if stop.draining => "draining",
        (_, Some(_), _) => "stopping",
        (_, None, Some(LinkState::Up)) => "connected",
        (_, None, Some(LinkState::Away)) => "waiting",
        (_, None, _) => "connecting",
    }
}

fn task(job: &JobView) -> Value {
    json!({
        "task_id": job.key.task_id,
        "execution_id": job.key.execution_id,
        "phase": job.phase,
        "running_s": job.running_s,
        "report": job.report,
        "claim_confirmed": job.claimed,
        "engine_away": job.engine_away,
        "ending": job.ending,
    })
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
