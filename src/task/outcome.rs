//! How a task ended, and the one table that turns an error into the reason on the wire.
//!
//! Owns [`Failure`]. It must not know the steps of a task, or send anything.

use crate::docker::Error;
use crate::logging::error_chain;
use crate::protocol::{FailureReason, RunResult};
use crate::sys::cancel::{CancelReason, CancelToken};

/// Why a task could not be run to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its token was cancelled.
    Cancelled,
    /// Something went wrong.
    Failed {
        reason: FailureReason,
        /// For people, without secrets.
        message: String,
    },
}

impl Failure {
    pub(super) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self::Failed { reason, message: message.into() }
    }

    /// What an error of the engine means in a step whose failures are `reason`.
    pub(super) fn engine(reason: FailureReason, step: &str, error: &Error) -> Self {
        if error.is_cancelled() {
            return Self::Cancelled;
        }
        let reason = if error.is_unreachable() { FailureReason::DockerUnreachable } else { reason };
        Self::new(reason, format!("{step}: {}", error_chain(error)))
    }

    /// What is reported. A cancelled task says who cancelled it.
    pub(super) fn into_result(self, cancel: &CancelToken, exit_code: Option<u8>) -> RunResult {
        let (reason, message) = match self {
            Self::Failed { reason, message } => (reason, message),
            Self::Cancelled => match cancel.reason() {
                Some(CancelReason::Requested) => {
                    (FailureReason::TaskCancelled, "the run was cancelled".to_owned())
                }
                Some(CancelReason::Shutdown) => {
                    (FailureReason::GracefulShutdown, "the worker was stopped".to_owned())
                }
                Some(CancelReason::TimedOut) => {
                    (FailureReason::TaskTimeout, "the task ran longer than it may".to_owned())
                }
                Some(CancelReason::RunOver) => {
                    (FailureReason::TaskCancelled, "the run was over at the control plane".to_owned())
                }
                // Nobody reads the report of a claim that was lost, and a task's own token has no siblings.
                Some(CancelReason::ClaimLost | CancelReason::Sibling) | None => {
                    (FailureReason::Internal, "the task was dropped".to_owned())
                }
            },
        };
        RunResult::Failed { reason, message, exit_code }
    }
}

/// An exit code as the contract has it: 0 to 255, anything else the engine may say becomes 255.
pub(super) fn exit_code(code: i64) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(reason: FailureReason, message: &str) -> RunResult {
        RunResult::Failed { reason, message: message.into(), exit_code: None }
    }

    #[test]
    fn an_error_keeps_the_reason_of_its_step_unless_the_engine_is_away() {
        let refused = Error::Engine { status: 500, message: "no space".into() };
        let failure = Failure::engine(FailureReason::ContainerCreate, "create", &refused);
        let expected = "create: the docker engine answered 500: no space";
        assert_eq!(failure, Failure::new(FailureReason::ContainerCreate, expected));
        let source = io::Error::other("refused");
        let away = Error::Unreachable { address: "unix:///s".into(), source };
        let failure = Failure::engine(FailureReason::ImagePull, "pull", &away);
        let expected = "pull: the docker engine at unix:///s is not reachable: refused";
        assert_eq!(failure, Failure::new(FailureReason::DockerUnreachable, expected));
        assert_eq!(Failure::engine(FailureReason::ImagePull, "pull", &Error::Cancelled), Failure::Cancelled);
    }

    #[test]
    fn a_cancelled_task_says_who_cancelled_it() {
        let cases = [
            (CancelReason::Requested, failed(FailureReason::TaskCancelled, "the run was cancelled")),
            (CancelReason::Shutdown, failed(FailureReason::GracefulShutdown, "the worker was stopped")),
            (CancelReason::TimedOut, failed(FailureReason::TaskTimeout, "the task ran longer than it may")),
            (
                CancelReason::RunOver,
                failed(FailureReason::TaskCancelled, "the run was over at the control plane"),
            ),
        ];
        for (reason, expected) in cases {
            let cancel = CancelToken::new();
            cancel.cancel(reason);
            assert_eq!(Failure::Cancelled.into_result(&cancel, None), expected);
        }
    }

    #[test]
    fn exit_codes_stay_within_a_byte() {
        assert_eq!([0, 1, 137, 255, 256, -1].map(exit_code), [0, 1, 137, 255, 255, 255]);
    }
}
