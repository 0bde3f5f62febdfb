//! The exit codes of the process: what a supervisor can tell one end from another by.
//!
//! Owns the numbers and their meaning. It must not know how an end comes about.

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped as asked, every report delivered.
    Success,
    /// Gave up reconnecting, could not deliver a report, or a defect of the worker.
    Failure,
    /// The command line or the environment is wrong: a restart cannot help.
    Usage,
    /// The control plane refused this worker for good: a restart cannot help.
    Refused,
    /// No usable Docker engine.
    Engine,
    /// A signal after the one that began the stop ended it at once.
    Interrupted,
}

impl Exit {
    /// Every code, in order, with what `--help` says of it.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Success, "Stopped by a signal, every report delivered."),
        (Self::Failure, "Gave up reconnecting, or a report could not be delivered."),
        (Self::Usage, "A setting is missing or wrong."),
        (Self::Refused, "The control plane refused the worker for good: check the key and the URL."),
        (Self::Engine, "The Docker engine cannot be reached or used."),
        (Self::Interrupted, "Ended at once by a further signal."),
    ];

    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Engine => 4,
            Self::Interrupted => 130,
        }
    }
}
