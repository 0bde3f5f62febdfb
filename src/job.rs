//! The types that cross between coordinator, runtime, task and look-ups.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Assignment, Dialect, EncodedReport, ExecutionKey, RunView};
use crate::sys::cancel::CancelReason;

/// From a removal that failed to the next attempt.
pub(crate) const REMOVE_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// The number of a job in this process; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// What a job works on.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A new container for an assignment.
    Run(Arc<Assignment>),
    /// A container that an earlier process started.
    Adopt(Arc<AdoptedTask>),
}

impl Work {
    /// The execution.
    pub fn key(&self) -> &ExecutionKey {
        match self {
            Self::Run(assignment) => &assignment.key,
            Self::Adopt(adopted) => &adopted.key,
        }
    }

    /// What the control plane expects for it.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Run(assignment) => assignment.dialect,
            Self::Adopt(adopted) => adopted.dialect,
        }
    }
}

/// A task container that an earlier process of this worker started and did not report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedTask {
    /// The execution.
    pub key: ExecutionKey,
    /// What the control plane expects for it.
    pub dialect: Dialect,
    /// The container's id on the engine.
    pub container: String,
    /// The name with which it was created.
    pub created_as: String,
    /// Volumes that only this task uses.
    pub volumes: Vec<String>,
    /// How long ago the container was started, if it still runs.
    pub ran: Option<Duration>,
    /// What to say of its shape, if that was reduced to the limits of the worker.
    pub reduced: Option<String>,
    /// Why the earlier process was stopping it, if it was.
    pub ended_for: Option<CancelReason>,
}

/// What an ended task left on the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// The execution.
    pub key: ExecutionKey,
    /// The name of its container, if it has one.
    pub container: Option<String>,
    /// The container's id, if it is known.
    pub id: Option<String>,
    /// Whether the container was started, or may have been.
    pub started: bool,
    /// Whether the task failed, rather than succeeding or being ended by the operator or the control plane.
    pub failed: bool,
    /// Volumes that only this task uses.
    pub volumes: Vec<String>,
    /// Whether this was removed by its name before: the engine may have created it after that.
    pub second_look: bool,
}

impl Leftover {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.container.is_none() && self.volumes.is_empty()
    }
}

/// The outcome of a job's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The control plane has stored it: the container can be removed.
    Delivered,
    /// The control plane has received it: the job ends, and what it left is removed once the report is stored.
    Received,
    /// It is not wanted: the run belongs to the control plane again, and the container was never started.
    Unwanted,
    /// This process cannot deliver it: the container stays, and the next process reports it.
    Undelivered,
}

/// What became of the container of a task that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is removed, or there was none.
    Gone,
    /// The operator keeps it.
    Kept,
    /// It is there, or nothing is known about it.
    Left,
}

/// What happened to a job.
#[derive(Debug, Clone)]
pub enum JobEvent {
    /// Its container runs.
    Started {
        /// How long ago it was started.
        ran: Duration,
    },
    /// Its container has exited, and its output is read.
    Exited,
    /// The engine cannot be used, and the job retries; or it can be used again. A later reason replaces an earlier one.
    Engine {
        /// Why it cannot be used, for people.
        away: Option<String>,
    },
    /// Its task ended. The job waits for its [`Settlement`] before it cleans up.
    Finished {
        /// For the control plane.
        report: Arc<EncodedReport>,
        /// What it will remove, unless its report is only [`Settlement::Received`].
        left: Arc<Leftover>,
    },
    /// Its thread is about to end: everything is cleaned up, or left as its settlement says.
    Done(Removal),
    /// Its container is kept for some time, because its task failed.
    Kept,
    /// A removal has failed for good, or is to be repeated. Comes before its `Done` or `CleanedUp`.
    NotRemoved {
        /// What is, or may be, still there.
        left: Arc<Leftover>,
    },
    /// A helper container that it used could not be removed.
    HelperLeft {
        /// The helper.
        left: Arc<Leftover>,
    },
    /// What it left was removed after it had ended, or is not removed.
    CleanedUp(Removal),
}

/// The most look-ups that are under way at the same time.
pub const MAX_LOOKUPS: usize = 4;

/// A look-up of a run at the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLookup {
    /// Its number in this process; never used again.
    pub number: u64,
    /// The run's id.
    pub task_id: String,
    /// How long it may take.
    pub limit: Duration,
}

/// Why a look-up has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupFailure {
    /// Whether a look-up of any other run would now fail too.
    pub systemic: bool,
    /// Whether the control plane seems to have no look-ups, or none for this API key.
    pub absent: bool,
    /// The cause, for people; one line without secrets.
    pub error: String,
}

/// The answer to the look-up with this number.
pub type LookupAnswer = (u64, Result<RunView, LookupFailure>);
