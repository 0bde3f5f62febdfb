//! A task that holds a slot: the types that cross between coordinator, runtime and task.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::{Assignment, Report};
use crate::sys::cancel::CancelReason;

/// Names one execution of a task in this process; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// What a job works on.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A new container for an assignment.
    Run(Arc<Assignment>),
    /// A container that is there already.
    Adopt(Arc<AdoptedTask>),
}

impl Work {
    /// The run's id.
    pub fn task_id(&self) -> &str {
        match self {
            Self::Run(assignment) => &assignment.task_id,
            Self::Adopt(adopted) => &adopted.task_id,
        }
    }
}

/// A task container that was started by an earlier process of this worker, and whose report is still owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedTask {
    /// The run's id.
    pub task_id: String,
    /// The container's id on the engine.
    pub container: String,
    /// Volumes that only this task uses.
    pub volumes: Vec<String>,
    /// How long ago the container was started, if it still runs.
    pub ran: Option<Duration>,
    /// Why the earlier process was ending it, if it was.
    pub ended_for: Option<CancelReason>,
}

/// What has become of a job's report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The control plane has it: the container may go.
    Delivered,
    /// Nobody wants it: the run belongs to the control plane again, and the container was never started.
    Unwanted,
    /// This process cannot deliver it: the container stays, so that the next process can.
    Undelivered,
}

/// What a job tells.
#[derive(Debug, Clone)]
pub enum JobEvent {
    /// The task's container is running.
    Started {
        /// The job.
        job: JobId,
        /// Since when.
        ran: Duration,
    },
    /// The engine does not answer the job, which goes on asking; or it answers again.
    Engine {
        /// The job.
        job: JobId,
        /// Whether it is away.
        away: bool,
    },
    /// The task has ended; the job waits to be settled.
    Finished {
        /// The job.
        job: JobId,
        /// For the control plane.
        report: Arc<Report>,
    },
    /// Everything is cleaned up, and the thread is free.
    Done {
        /// The job.
        job: JobId,
    },
}
