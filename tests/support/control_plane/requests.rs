//! What users and agents do with runs: launch, restart and cancel them, and set their state.

use std::time::Instant;

use serde_json::json;

use super::dialect::Dialect;
use super::model::{Connection, Model};
use super::outbox::Command;
use super::run::{Run, State, new_id};

impl Model {
    /// Adds another execution of a run, with the same assignment, and returns its id. `None` if there is no such run.
    pub(super) fn launch_again(&mut self, id: &str, now: Instant) -> Option<String> {
        let mut assignment = self.run(id)?.assignment.clone();
        let execution = new_id();
        assignment["execution_id"] = json!(execution);
        self.runs.push(Run::new(id.to_owned(), assignment, now));
        self.deliver_promptly(now);
        Some(execution)
    }

    /// Sets the state that the REST part shows, as an agent does whose conversation has ended. Changes nothing else.
    pub(super) fn set_agent_state(&mut self, id: &str, state: State) {
        if let Some(run) = self.run_mut(id) {
            run.agent_state = Some(state);
        }
    }

    /// Makes an ended run pending again.
    pub(super) fn restart(&mut self, id: &str, now: Instant) {
        if let Some(run) = self.run_mut(id).filter(|run| run.state.ended()) {
            run.enter(State::Pending, now);
        }
        self.deliver_promptly(now);
    }

    /// Cancels a run: sets the state, then sends the message to the newest connection of its worker, if there is one. Returns
    /// `false` if there is no such run.
    ///
    /// The public control plane sends it to the connection on which the run was sent, if that is open, and the worker's answer sets
    /// the state (inferred).
    pub(super) fn cancel(&mut self, id: &str, execution: Option<&str>, now: Instant) -> bool {
        let dialect = self.dialect();
        let named = execution.and_then(|one| self.execution(id, one)).or_else(|| self.run(id));
        let Some(run) = named else { return false };
        let (state, worker, connection) = (run.state, run.worker.clone(), run.connection);
        if dialect == Dialect::Old && state.ended() {
            return true;
        }
        let of_worker = |one: &&Connection| Some(&one.worker) == worker.as_ref();
        let own = self.open().find(|one| dialect == Dialect::Upstream && Some(one.number) == connection);
        let number = own.or_else(|| self.open().rfind(of_worker)).map(|one| one.number);
        let of_cancel = |run: &&mut Run| {
            run.id == id && execution.is_none_or(|one| run.execution.as_deref() == Some(one))
        };
        for run in self.runs.iter_mut().filter(of_cancel).filter(|run| !run.state.ended()) {
            match dialect {
                Dialect::Upstream if run.state != State::Pending => run.agent_state = Some(State::Cancelled),
                _ => run.enter(State::Cancelled, now),
            }
        }
        if let (true, Some(number)) = (state != State::Pending, number) {
            let (kind, data) = dialect.cancel(id, execution);
            let text = json!({"type": kind, "data": data}).to_string();
            self.connections[number - 1].outbox.push(Command::Text(text));
            let named = self.runs.iter_mut().filter(of_cancel).filter(|_| execution.is_some());
            named.for_each(|run| run.cancels.push(number));
        }
        true
    }

    /// Cancels a run without a message to the worker.
    pub(super) fn cancel_silently(&mut self, id: &str, now: Instant) {
        if let Some(run) = self.run_mut(id).filter(|run| !run.state.ended()) {
            run.enter(State::Cancelled, now);
        }
    }
}
