//! The coordinator's input and output: events, effects and the status.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use super::refusal::Refusal;
use crate::exit::Exit;
use crate::job::{AdoptedTask, JobEvent, JobId, Leftover, LookupAnswer, RunLookup, Settlement, Work};
use crate::protocol::{Dialect, ExecutionKey, Incoming, Invalid, Outgoing};
use crate::sys::cancel::CancelReason;

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The tasks of an earlier process. Comes at most once, before any other event.
    Adopted(Vec<Arc<AdoptedTask>>),
    /// The executions of earlier processes whose containers were never started. Comes before any connection.
    Unstarted(Vec<(ExecutionKey, Dialect)>),
    /// A late sweep ended.
    LateSwept {
        /// As [`Event::Unstarted`].
        unstarted: Vec<(ExecutionKey, Dialect)>,
        /// Something could not be removed.
        again: bool,
    },
    /// An attempt to connect failed; the link tries again.
    LinkFailed,
    /// An attempt to connect was refused; the link tries again.
    LinkRefused(Refusal),
    /// A connection is up.
    LinkUp,
    /// The connection ended; the link reconnects.
    LinkDown,
    /// The link ended, because of [`Effect::CloseLink`] or because of a permanent error.
    LinkGone {
        /// The exit code if the link ended because of an error.
        exit: Exit,
        /// That error, for people.
        reason: Option<String>,
    },
    /// A message came.
    Message(Incoming),
    /// A text frame came that is not a message.
    Invalid(Invalid),
    /// A binary frame came, which is no message.
    Binary {
        /// Its length.
        bytes: usize,
    },
    /// The control plane received every message up to this number.
    Confirmed {
        /// A number from [`Effect::Send`].
        seq: u64,
    },
    /// The answer to [`Effect::Start`].
    ThreadStarted {
        /// The job.
        job: JobId,
        /// Why the job has no thread and never will, for people; `None` if it has one.
        error: Option<String>,
    },
    /// The answer to [`Effect::Start`] of a run, instead of [`Event::ThreadStarted`], while few file descriptors are free.
    NoDescriptors {
        /// The job, which has no thread and never will.
        job: JobId,
        /// The system's error, for people.
        error: String,
    },
    /// The answer to [`Effect::CheckDisk`].
    DiskChecked {
        /// Why there is too little space for a new task, for people; `None` if there is enough or the space is unknown.
        low: Option<String>,
    },
    /// The answer to [`Effect::LookUp`].
    LookedUp(LookupAnswer),
    /// Something happened to a job.
    Job(JobId, JobEvent),
    /// The operator asked the process to stop.
    Signal,
    /// The operator asked for the state of the link, the engine and every job.
    LogState,
    /// The answer to [`Effect::PingEngine`].
    EnginePinged {
        /// Why the engine does not answer, for people; `None` if it does.
        error: Option<String>,
    },
    /// The answer to [`Effect::SweepFailed`].
    FailedSwept {
        /// When the next container is due for removal, from now; `None` if none is kept.
        due: Option<Duration>,
    },
    /// The answer to [`Effect::Beat`], if there is something to tell.
    Checked {
        /// Why the engine does not answer, for people; `None` if it does.
        engine: Option<String>,
        /// Why there is too little space for a new task, for people; `None` if there is enough or the space is unknown.
        disk: Option<String>,
    },
    /// The time of [`Coordinator::deadline`](super::Coordinator::deadline) came.
    Tick,
}

/// What to do, in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a message on the connection that is up.
    Send {
        /// If set, [`Event::Confirmed`] follows once the control plane received the message.
        seq: Option<u64>,
        /// The message.
        message: Outgoing,
    },
    /// Start a thread for a job; [`Event::ThreadStarted`] or [`Event::NoDescriptors`] follows at once.
    Start {
        /// The job.
        job: JobId,
        /// What it works on.
        work: Work,
    },
    /// Let a job start its container: its claim is confirmed.
    Release {
        /// The job.
        job: JobId,
    },
    /// Tell a job the outcome of its report.
    Settle {
        /// The job.
        job: JobId,
        /// Decides whether the container is removed.
        settlement: Settlement,
    },
    /// End a job's task; [`JobEvent::Finished`] still follows.
    Cancel {
        /// The job.
        job: JobId,
        /// Why.
        reason: CancelReason,
    },
    /// There is a second reason to end a job's task: read no more of its output than takes a moment.
    Interrupt {
        /// The job.
        job: JobId,
    },
    /// Check the free space of the engine's disk; [`Event::DiskChecked`] follows. At most one check runs at a time.
    CheckDisk,
    /// Ask whether the engine answers; [`Event::EnginePinged`] follows. At most one ping runs at a time.
    PingEngine,
    /// Tell the service manager that this thread goes on, and check the engine and its disk. [`Event::Checked`] follows if one of
    /// them cannot be used, or else if `tell` is set. At most one check runs at a time.
    Beat {
        /// Whether to tell also if both can be used.
        tell: bool,
    },
    /// Look up a run at the control plane; [`Event::LookedUp`] follows. At most four look-ups are under way at a time.
    LookUp(RunLookup),
    /// Remove what a job has left; [`JobEvent::CleanedUp`] follows.
    CleanUp {
        /// The job, which has ended.
        job: JobId,
        /// What it left.
        left: Arc<Leftover>,
    },
    /// Remove what the engine created late for an earlier process, and what [`Effect::SweepFailed`] removes;
    /// [`Event::LateSwept`] and [`Event::FailedSwept`] follow.
    LateSweep,
    /// Remove kept containers of failed tasks that are too old or too many; [`Event::FailedSwept`] follows. At most one runs at
    /// a time.
    SweepFailed,
    /// The worker is stopping: reconnect without long pauses, and do not wait for an engine that is away.
    StopWaiting,
    /// Close the link in good order; [`Event::LinkGone`] follows.
    CloseLink,
    /// End the process.
    Exit(Exit),
    /// Write a log line.
    Log(Level, String),
}

/// The worker's state, for service managers and for `/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The connection to the control plane.
    pub link: LinkState,
    /// Why the last attempt to connect was refused; `None` if it was not.
    pub refusal: Option<String>,
    /// Why the engine cannot be used, as far as a task or the last check has found out.
    pub engine_away: Option<String>,
    /// Why the engine's disk has too little space for a new task, as far as the last check has found out.
    pub disk_low: Option<String>,
    /// The number of tasks that hold a slot.
    pub tasks: usize,
    /// The number of slots.
    pub slots: usize,
    /// The stop, once it began.
    pub stop: Option<Stopping>,
}

/// The state of the connection to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// The first attempt is under way.
    Connecting,
    /// Connected.
    Up,
    /// Not connected; the link tries again.
    Away,
}

/// A stop that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopping {
    /// Whether running tasks may still continue.
    pub draining: bool,
    /// The maximum duration of the stop, from its beginning.
    pub budget: Duration,
    /// The error that ends the worker; `None` after a signal.
    pub reason: Option<String>,
}
