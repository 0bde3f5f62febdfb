//! How the two kinds of control planes differ. Everything else is the same for both.
//!
//! Of the public one only its worker, the agent and the documentation are known. What is inferred from them is marked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::run::{Received, Run, State};

/// How long a run waits that every connected worker has rejected.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// The capability of workers that send `execution_closed`.
pub const CLOSES_EXECUTIONS: &str = "execution-scoped-cancellation-v1";

/// A kind of control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// The one that the worker was made for first.
    #[default]
    Old,
    /// The public one.
    Upstream,
}

impl Dialect {
    /// Returns the `data` of a message that cancels a run, or one execution of it, and the message's type.
    pub(super) fn cancel(self, id: &str, execution: Option<&str>) -> (&'static str, Value) {
        let kind = if self == Self::Old { "task_cancel" } else { "task_cancellation" };
        (kind, execution.map_or(json!({"task_id": id}), |one| json!({"task_id": id, "execution_id": one})))
    }

    /// Changes a run by a message of its worker.
    pub(super) fn change(self, run: &mut Run, received: &Received, now: Instant) {
        let data = &received.data;
        match (received.kind.as_str(), self) {
            ("task_claimed", _) => run.enter(State::InProgress, now),
            ("task_completed", _) => {
                run.take_result(data);
                run.enter(self.completed(run, data), now);
            }
            ("task_failed", _) => {
                run.take_result(data);
                run.enter(State::Failed, now);
            }
            // Inferred: another worker gets it, and this one again once all have rejected it.
            ("task_rejected", Self::Upstream) => {
                run.rejected_by.push(received.connection);
                run.retry_at = Some(now + RETRY);
                run.enter(State::Pending, now);
            }
            // The old one does not know `task_rejected`: the run becomes pending after the claim time-out.
            _ => {}
        }
    }

    fn completed(self, run: &Run, data: &Value) -> State {
        match self {
            Self::Old if run.exit_code == Some(0) => State::Succeeded,
            Self::Old => State::Failed,
            Self::Upstream if data["task_state"] == "CANCELLED" => State::Cancelled,
            Self::Upstream => State::Succeeded,
        }
    }

    /// Changes a run when its worker's connection has ended. `is_own` if the run was sent on that connection.
    pub(super) fn disconnected(self, run: &mut Run, is_own: bool, now: Instant) {
        match (self, run.state) {
            (Self::Old, State::InProgress) => {
                run.enter(State::Failed, now);
                run.message = Some("the worker disconnected".to_owned());
            }
            // Inferred of the public one: several workers may have this id, and each keeps what it has claimed.
            (Self::Old, State::Claimed) => run.enter(State::Pending, now),
            (Self::Upstream, State::Claimed) if is_own => run.enter(State::Pending, now),
            _ => {}
        }
    }

    /// Returns what a worker of the public control plane would never send about this run. `capabilities` are those of its
    /// connection.
    pub(super) fn misplaced(self, run: &Run, received: &Received, capabilities: &str) -> Vec<&'static str> {
        if self == Self::Old {
            return Vec::new();
        }
        let execution = received.data["execution_id"].as_str();
        let ended = run.history.iter().any(|one| is_terminal(&one.kind));
        let rejected = run.history.last().is_some_and(|one| one.kind == "task_rejected");
        let wrong = match received.kind.as_str() {
            "execution_closed" => vec![
                (
                    !capabilities.split(',').any(|one| one.trim() == CLOSES_EXECUTIONS),
                    "the capability was not announced",
                ),
                (run.cancels.is_empty(), "the execution was not cancelled by its id"),
                (!ended, "the execution has not ended"),
            ],
            "task_rejected" => vec![(run.claims > 0, "the execution is claimed")],
            _ => vec![
                (execution != run.execution.as_deref(), "execution_id is not that of the assignment"),
                (rejected && run.state != State::Claimed, "the execution is rejected"),
            ],
        };
        wrong.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, what)| what).collect()
    }
}

/// Whether a message of this type ends an execution.
pub(super) fn is_terminal(kind: &str) -> bool {
    matches!(kind, "task_completed" | "task_failed")
}
