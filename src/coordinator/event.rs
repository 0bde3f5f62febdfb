//! What the coordinator is told and what it decides: plain data.
//!
//! Owns the words between it and those who perform. It must not know what is decided when.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::exit::Exit;
use crate::job::{AdoptedTask, JobId, Settlement, Work};
use crate::protocol::{Assignment, Incoming, Invalid, Outgoing, Report};
use crate::sys::cancel::CancelReason;

/// How a run ended at the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// Somebody cancelled it.
    Cancelled,
    /// The control plane has given it up, as it does when the worker's connection ends.
    Failed,
    /// It has a result already.
    Succeeded,
}

impl RunEnd {
    /// As the control plane calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
            Self::Succeeded => "SUCCEEDED",
        }
    }
}

/// How the worker stands, for those who watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The connection to the control plane.
    pub link: LinkState,
    /// Tasks that hold a slot.
    pub tasks: usize,
    /// The stop that has begun.
    pub stop: Option<Stopping>,
}

/// The connection to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt is under way.
    Connecting,
    /// It stands.
    Up,
    /// There is none, and attempts go on.
    Away,
}

/// A stop that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopping {
    /// Whether running tasks go on.
    pub draining: bool,
    /// How long the whole stop may take, from its beginning.
    pub budget: Duration,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// What an earlier process has left; comes before anything else, if at all.
    Adopted(Vec<Arc<AdoptedTask>>),
    /// The first attempt to connect has failed; the link is making another.
    LinkFailed,
    /// A connection is up.
    LinkUp,
    /// It has ended; the link is making another.
    LinkDown,
    /// The link has ended for good, because `CloseLink` was done or because it cannot go on.
    LinkGone {
        /// What the process is to end with when it ended by itself.
        exit: Exit,
    },
    /// An assignment has come, and this is known of the engine's disk.
    Assigned {
        /// It.
        assignment: Arc<Assignment>,
        /// Why there is no space for it, for people; `None` when there is, as far as is known.
        disk_full: Option<String>,
    },
    /// The answer to [`Effect::Ask`]: which of these runs are over at the control plane.
    Asked {
        /// Those that are, and how they ended.
        over: Vec<(JobId, RunEnd)>,
    },
    /// A message has come.
    Incoming(Incoming),
    /// A frame has come that is not a message.
    Invalid(Invalid),
    /// The control plane has every message up to this number.
    Confirmed {
        /// A number given out in [`Effect::Send`].
        seq: u64,
    },
    /// The container of a job is running.
    Started {
        /// The job.
        job: JobId,
        /// Since when.
        ran: Duration,
    },
    /// The engine does not answer a job, which goes on asking; or it answers again.
    Engine {
        /// The job.
        job: JobId,
        /// Whether it is away.
        away: bool,
    },
    /// A job knows how its task ended; it waits for [`Effect::Settle`] to clean up.
    Finished {
        /// The job.
        job: JobId,
        /// Its report.
        report: Arc<Report>,
    },
    /// A job has cleaned up: its slot is free.
    Done {
        /// The job.
        job: JobId,
    },
    /// The operator asked the process to stop.
    Signal,
    /// The time that [`Coordinator::deadline`](super::Coordinator::deadline) named has come.
    Tick,
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a message on the connection that is up.
    Send {
        /// When set: tell by [`Event::Confirmed`] once the control plane has it.
        seq: Option<u64>,
        /// The message.
        message: Outgoing,
    },
    /// Give a job to the pool.
    Start {
        /// The job.
        job: JobId,
        /// What it works on.
        work: Work,
    },
    /// The claim is confirmed: the job may start its container.
    Release {
        /// The job.
        job: JobId,
    },
    /// The job's report is no longer this process's concern.
    Settle {
        /// The job.
        job: JobId,
        /// What has become of the report, and with it of the container.
        settlement: Settlement,
    },
    /// End the job's work; it still finishes.
    Cancel {
        /// The job.
        job: JobId,
        /// Why.
        reason: CancelReason,
    },
    /// Ask the control plane for the state of these runs; the answer is one [`Event::Asked`]. No other is asked for before.
    Ask(Vec<(JobId, String)>),
    /// LateSweep a second time for what an earlier process has left on the engine; nothing is told of it.
    LateSweep,
    /// From now on reconnect without long pauses, and wait for no engine that is away: the worker is stopping.
    StopWaiting,
    /// Close the link in good order.
    CloseLink,
    /// End the process.
    Exit(Exit),
    /// Tell the operator.
    Log(Level, String),
}
