//! A task that holds a slot: the types that cross between coordinator, runtime and task.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Assignment, Dialect, EncodedReport, ExecutionKey};
use crate::sys::cancel::CancelReason;

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
    /// Why the earlier process was stopping it, if it was.
    pub ended_for: Option<CancelReason>,
}

/// The outcome of a job's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The control plane has it: the container can be removed.
    Delivered,
    /// It is not wanted: the run belongs to the control plane again, and the container was never started.
    Unwanted,
    /// This process cannot deliver it: the container stays, and the next process reports it.
    Undelivered,
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
    },
    /// Its slot is free: everything is cleaned up.
    Done,
}
