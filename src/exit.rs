//! The exit codes of the process.

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Stopped by a signal, and all reports delivered.
    Success,
    /// Gave up reconnecting, could not deliver a report, got no thread or file descriptor, or has a defect.
    Failure,
    /// A setting is missing or invalid: a restart cannot help.
    Usage,
    /// The control plane refused a worker that was never connected and has no task: a restart cannot help.
    Refused,
    /// The Docker engine cannot be reached or used.
    Engine,
    /// Another process of this host has the worker's id.
    InUse,
    /// A further signal ended the stop immediately.
    Interrupted,
}

impl Exit {
    /// Every code in order, with its text for `--help` and the man page.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Success, "Stopped by a signal, and all reports delivered."),
        (Self::Failure, "Gave up reconnecting, a report or stop took too long, no thread, or a defect."),
        (Self::Usage, "A setting is missing or invalid."),
        (Self::Refused, "The control plane refused the first connection: check key, URL and certificate."),
        (Self::Engine, "The Docker engine cannot be reached or used."),
        (Self::InUse, "Another process on this host has the worker ID."),
        (Self::Interrupted, "Ended immediately by a further signal."),
    ];

    /// The exit code as a number.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Engine => 4,
            Self::InUse => 5,
            Self::Interrupted => 130,
        }
    }
}
