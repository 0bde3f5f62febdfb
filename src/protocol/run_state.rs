//! The states of a run, as the control plane names them, and the time of a state.

use std::fmt;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

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

/// What a look-up says about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunView {
    /// Its state.
    pub state: RunState,
    /// When the state last changed, by the control plane's clock; `None` if that is absent or cannot be read.
    pub updated_at: Option<OffsetDateTime>,
}

/// Reads an RFC 3339 instant. `None` if it is none.
pub(crate) fn instant(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_compared_as_times_and_not_as_text() {
        let equal = [
            "2026-01-02T03:04:05.5Z",
            "2026-01-02T03:04:05.500000Z",
            "2026-01-02T05:04:05.5+02:00",
            "2026-01-01t22:04:05.5-05:00",
        ];
        assert!(equal.iter().all(|text| instant(text).is_some() && instant(text) == instant(equal[0])));
        assert!(instant("2026-01-02T03:04:05Z") < instant(equal[0]));
        assert!(instant("2026-01-02T03:04:05.50001Z") > instant(equal[0]));
        for text in ["", "now", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "1767323045"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }
}
