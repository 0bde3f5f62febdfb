//! The two dialects of the protocol, and every decision that depends on them. No other module compares dialects.

use super::{ExecutionKey, FailureReason, RunResult};

/// The hosts of control planes whose dialect is known to be [`Dialect::Upstream`].
const UPSTREAM_HOSTS: [&str; 1] = ["oz.warp.dev"];

/// The `model_id` of a run that was created at the old control plane without a model.
const NO_MODEL: &str = "pending";

/// The agent's own harness.
const OWN_HARNESS: &str = "oz";

/// The `task.owner.Type` of a run that belongs to a team.
const TEAM: &str = "TEAM";

/// The header of the handshake that tells what the worker can do beyond the recorded protocol, and its value: it confirms a cancel
/// that names an execution. It is sent to every control plane, because the dialect belongs to an assignment and comes later; the
/// old one ignores it, and names no execution.
pub const CAPABILITIES: (&str, &str) = ("x-warp-worker-capabilities", "execution-scoped-cancellation-v1");

/// The exit code of a process that got KILL.
const KILLED: u8 = 137;

/// What a control plane expects for an assignment. It belongs to the assignment, because one connection may carry both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// Of the control plane that this worker was made for first.
    #[default]
    Old,
    /// Of the public Oz control plane.
    Upstream,
}

/// The fields of an assignment by which the dialects differ.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    pub(super) execution_id: Mark,
    pub(super) owner: Mark,
    /// `trace_id` is not blank.
    pub(super) trace_id: bool,
}

/// A field that is the mark of a dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mark {
    #[default]
    Absent,
    Present,
    /// Present, with a value that the dialect does not have.
    Odd,
}

/// The fields of a terminal message that depend on the result, without `task_id` and the output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// The type of the message.
    pub(super) kind: &'static str,
    pub(super) task_state: Option<&'static str>,
    pub(super) failure_reason: Option<&'static str>,
    pub(super) exit_code: Option<u8>,
    pub(super) message: Option<String>,
    /// The message has an output, even if that is empty.
    pub(super) needs_output: bool,
}

impl Dialect {
    /// Returns the dialect of a control plane by its host; `None` for an unknown host.
    pub fn of_host(host: &str) -> Option<Self> {
        let host = host.trim_end_matches('.');
        UPSTREAM_HOSTS.iter().any(|known| known.eq_ignore_ascii_case(host)).then_some(Self::Upstream)
    }

    /// Returns the dialect of an assignment, and why that is a guess, if it is one. Only the old control plane sends `trace_id`, so
    /// with it an execution id alone is no mark of the other.
    pub(super) fn of(host: Option<Self>, marks: Marks) -> (Self, Option<&'static str>) {
        let Marks { execution_id, owner, trace_id } = marks;
        let (has_id, has_owner) = (execution_id != Mark::Absent, owner != Mark::Absent);
        let dialect = match host {
            Some(dialect) => dialect,
            None if has_owner || has_id && !trace_id => Self::Upstream,
            None => Self::Old,
        };
        let guess = match (execution_id, owner) {
            (Mark::Odd, _) => Some("execution_id is not a string"),
            (_, Mark::Odd) => Some("task.owner has no Type"),
            _ if dialect == Self::Old && has_id => Some("trace_id and execution_id without task.owner"),
            _ => None,
        };
        (dialect, guess)
    }

    /// Returns its name, for labels and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Upstream => "upstream",
        }
    }

    /// Returns the dialect with this name; the old one for any other text.
    pub fn of_name(name: &str) -> Self {
        if name == Self::Upstream.name() { Self::Upstream } else { Self::Old }
    }
}

/// Claims, reports and cancels.
impl Dialect {
    /// Whether the state of a run that REST shows decides about its claim and report. In the upstream dialect the agent sets the
    /// state and goes on after that, so the confirmation decides.
    fn state_decides(self) -> bool {
        self == Self::Old
    }

    /// Whether the state of this run decides: not if it cannot be looked up.
    pub fn state_decides_for(self, key: &ExecutionKey) -> bool {
        self.state_decides() && key.has_page()
    }

    /// Whether the state of this run would decide, but cannot be looked up.
    pub fn lacks_state_of(self, key: &ExecutionKey) -> bool {
        self.state_decides() && !key.has_page()
    }

    /// Whether an assignment waits while no slot is free. The old control plane ignores a rejection; the other one gives the run to
    /// another worker.
    pub fn waits_for_slot(self) -> bool {
        self == Self::Old
    }

    /// Whether the control plane expects several workers with one id. The old one fails the runs of all when one disconnects.
    pub fn shares_ids(self) -> bool {
        self == Self::Upstream
    }

    /// Whether a claim is sent again: on a new connection, and for an assignment of an execution that runs here.
    pub fn repeats_claims(self) -> bool {
        self == Self::Old
    }

    /// Whether an assignment of an execution whose report was received starts it again. In the upstream dialect a task without
    /// execution ids is assigned again for a follow-up. In the other, such an assignment means that the report is not stored.
    pub fn starts_ended_again(self, key: &ExecutionKey) -> bool {
        self == Self::Upstream && key.execution_id.is_none()
    }

    /// Whether an execution is remembered after its end: it is not started again, and a cancel of it is answered.
    pub fn remembers_ended(self, key: &ExecutionKey) -> bool {
        self == Self::Upstream && key.execution_id.is_some()
    }

    /// Whether a message of this type names the execution.
    pub fn names_executions(self, kind: &str) -> bool {
        self == Self::Upstream && kind != "task_rejected"
    }

    /// Whether a message of this type names the worker.
    pub(super) fn names_worker(self, kind: &str) -> bool {
        kind == "task_claimed" || self == Self::Old && kind == "task_completed"
    }

    /// Whether a report has the output and what was found in it. At the public control plane the agent itself reports these, and
    /// the limit of its messages is not known.
    pub(super) fn reports_output(self) -> bool {
        self == Self::Old
    }

    /// Whether a task with this result that was cancelled meanwhile is reported as cancelled.
    pub fn cancel_wins(self, result: &RunResult) -> bool {
        self == Self::Upstream && !matches!(result, RunResult::Completed { exit_code: 0, .. })
    }

    /// Returns the type of the message about a task that failed for this reason.
    pub(super) fn failed_kind(self, reason: FailureReason) -> &'static str {
        match (self, reason) {
            (Self::Upstream, FailureReason::TaskCancelled) => "task_completed",
            _ => "task_failed",
        }
    }

    /// Returns how a result is reported.
    pub(super) fn ending(self, result: RunResult) -> Ending {
        match self {
            Self::Old => old_ending(result),
            Self::Upstream => upstream_ending(result),
        }
    }
}

/// What the agent gets.
impl Dialect {
    /// Whether an assignment must name a sidecar image. Without one, the task's own image has the agent.
    pub fn needs_sidecar(self) -> bool {
        self == Self::Old
    }

    /// Returns the image that is named by this text; `None` if that counts as absent. In the upstream dialect a blank name that is
    /// not empty is a wrong name.
    pub(super) fn image(self, text: &str) -> Option<String> {
        let name = text.trim();
        match self {
            _ if !name.is_empty() => Some(name.to_owned()),
            Self::Old => None,
            Self::Upstream => Some(text.to_owned()).filter(|text| !text.is_empty()),
        }
    }

    /// Whether the agent's script is executed if it can be, so that the task's image needs no shell. Otherwise `/bin/sh` runs it.
    pub fn executes_script(self) -> bool {
        self == Self::Upstream
    }

    /// Whether the session is shared with the owner's team.
    pub(super) fn shares_with_team(self, owner: Option<&str>) -> bool {
        self == Self::Old || owner == Some(TEAM)
    }

    /// Whether the agent's configuration has a harness, and what came with that.
    pub(super) fn has_harness(self) -> bool {
        self == Self::Upstream
    }

    /// Returns the model for the agent. `harness` is as sent: another harness than the agent's own has models of its own.
    pub(super) fn model(self, model: Option<String>, harness: Option<&str>) -> Option<String> {
        match self {
            Self::Old => model.filter(|model| model != NO_MODEL),
            Self::Upstream => model.filter(|_| is_own(harness)),
        }
    }

    /// Returns whether an agent with a configuration may use the computer; `None` leaves it to the agent. `explicit` is what the
    /// configuration says.
    pub(super) fn computer_use(self, explicit: Option<bool>, harness: Option<&str>) -> Option<bool> {
        match self {
            Self::Old => explicit,
            Self::Upstream => explicit.or_else(|| Some(is_own(harness))),
        }
    }

    /// Returns the model with which the agent uses the computer.
    pub(super) fn computer_use_model(
        self,
        model: Option<String>,
        computer_use: Option<bool>,
        harness: Option<&str>,
    ) -> Option<String> {
        model.filter(|_| self == Self::Upstream && computer_use == Some(true) && is_own(harness))
    }

    /// Whether the names of the MCP servers are sorted, as Go writes a map.
    pub(super) fn sorts_servers(self) -> bool {
        self == Self::Upstream
    }

    /// Returns the value of `--idle-on-complete`, if it has one. `minutes` is from the assignment, `setting` the operator's.
    pub fn idle_time(self, minutes: Option<u64>, setting: Option<&str>) -> Option<String> {
        match self {
            Self::Old => None,
            Self::Upstream => minutes.map(|minutes| format!("{minutes}m")).or(setting.map(str::to_owned)),
        }
    }

    /// Returns the variable that holds the root URL, beside the argument.
    pub fn root_variable(self) -> Option<&'static str> {
        match self {
            Self::Old => None,
            Self::Upstream => Some("WARP_SERVER_ROOT_URL"),
        }
    }
}

/// Whether a harness is the agent's own; compared as it was sent.
fn is_own(harness: Option<&str>) -> bool {
    matches!(harness, None | Some("" | OWN_HARNESS))
}

fn old_ending(result: RunResult) -> Ending {
    match result {
        RunResult::Completed { exit_code, out_of_memory, note } => Ending {
            kind: "task_completed",
            task_state: None,
            failure_reason: out_of_memory.then(|| FailureReason::ContainerOom.name()),
            exit_code: Some(exit_code),
            message: note,
            needs_output: true,
        },
        RunResult::Failed { reason, message, exit_code, .. } => Ending {
            kind: "task_failed",
            task_state: None,
            failure_reason: Some(reason.name()),
            exit_code,
            message: Some(message),
            needs_output: false,
        },
    }
}

/// `task_completed` means success. Every message is for people; a reason that the control plane does not know becomes part of it.
fn upstream_ending(result: RunResult) -> Ending {
    let ending = |kind, failure_reason, exit_code, message| Ending {
        kind,
        task_state: None,
        failure_reason,
        exit_code,
        message: Some(message),
        needs_output: false,
    };
    match result {
        RunResult::Completed { exit_code: 0, note, .. } => {
            let message = note.unwrap_or_else(|| "the task succeeded".to_owned());
            ending("task_completed", None, None, message)
        }
        RunResult::Completed { exit_code, out_of_memory, note } => {
            let is_killed = out_of_memory && exit_code == KILLED;
            let reason = if is_killed { "container_oom" } else { "container_exit" };
            let message = match note {
                Some(note) => note,
                None if out_of_memory => {
                    format!("the task exceeded its memory limit and exited with code {exit_code}")
                }
                None => format!("the task exited with code {exit_code}"),
            };
            ending("task_failed", Some(reason), Some(exit_code), message)
        }
        RunResult::Failed { reason: FailureReason::TaskCancelled, message, .. } => {
            Ending { task_state: Some("CANCELLED"), ..ending("task_completed", None, None, message) }
        }
        RunResult::Failed { reason, step, message, .. } => {
            let known = upstream_reason(reason);
            let message = if known.is_some() { message } else { format!("{}: {message}", reason.name()) };
            let sent = known.or_else(|| upstream_reason(step)).unwrap_or("unknown");
            ending("task_failed", Some(sent), None, message)
        }
    }
}

/// Returns the name of a reason in the list of the public control plane; `None` if it has none.
fn upstream_reason(reason: FailureReason) -> Option<&'static str> {
    match reason {
        FailureReason::InvalidAssignment | FailureReason::DockerUnreachable | FailureReason::Internal => None,
        FailureReason::ImagePull
        | FailureReason::SidecarPrep
        | FailureReason::ContainerCreate
        | FailureReason::ContainerStart
        | FailureReason::ContainerWait
        | FailureReason::ContainerOom
        | FailureReason::TaskTimeout
        | FailureReason::TaskCancelled
        | FailureReason::GracefulShutdown => Some(reason.name()),
    }
}

#[cfg(test)]
#[path = "dialect_tests.rs"]
mod tests;
