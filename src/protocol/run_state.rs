//! The states of a run, as the control plane names them.

use std::fmt;

/// The state of a run, as the control plane names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// `QUEUED`.
    Queued,
    /// `PENDING`: no worker has it.
    Pending,
    /// `CLAIMED`: sent to a worker that has not claimed it yet.
    Claimed,
    /// `INPROGRESS`.
    InProgress,
    /// `SUCCEEDED`.
    Succeeded,
    /// `FAILED`.
    Failed,
    /// `CANCELLED`.
    Cancelled,
}

impl RunState {
    /// Every state, in the order in which a run goes through them.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Pending,
        Self::Claimed,
        Self::InProgress,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Pending => "PENDING",
            Self::Claimed => "CLAIMED",
            Self::InProgress => "INPROGRESS",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
