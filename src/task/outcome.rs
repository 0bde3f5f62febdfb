//! Maps errors and cancel reasons to the `failure_reason` of a report.

use std::time::Duration;

use crate::docker::Error;
use crate::logging::error_chain;
use crate::protocol::{FailureReason, RunResult};
use crate::sys::cancel::{CancelReason, CancelToken};

/// The message of a task whose preparation exceeded its limit.
const PREPARED_TOO_LONG: &str =
    "the preparation of the task took longer than --task-timeout and did not get past this step";

/// Whether a task has this result because its claim was lost: then it was not started, and its run was given back.
pub(super) fn is_given_back(result: &RunResult, cancelled_for: Option<CancelReason>) -> bool {
    // A cause of its own, such as a failed pull, has another reason.
    let is_dropped = matches!(result, RunResult::Failed { reason: FailureReason::Internal, .. });
    is_dropped && cancelled_for == Some(CancelReason::ClaimLost)
}

/// Why a task is reported as failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The task's token was cancelled.
    Cancelled,
    /// A step failed.
    Failed {
        reason: FailureReason,
        /// The reason that stands for the step that failed; often the same.
        step: FailureReason,
        /// The cause, for people; without secrets.
        message: String,
    },
}

impl Failure {
    pub(super) fn new(reason: FailureReason, message: impl Into<String>) -> Self {
        Self::Failed { reason, step: reason, message: message.into() }
    }

    /// Returns the failure for an engine error. Its reason is `reason` unless the call was cancelled, the engine is unreachable or
    /// the worker has no file descriptor left. Its message starts with `what`.
    pub(super) fn engine(reason: FailureReason, what: &str, error: &Error) -> Self {
        if error.is_cancelled() {
            return Self::Cancelled;
        }
        let step = reason;
        let reason = match error {
            Error::Unreachable { .. } => FailureReason::DockerUnreachable,
            Error::Exhausted { .. } => FailureReason::Internal,
            _ => reason,
        };
        Self::Failed { reason, step, message: format!("{what}: {}", error_chain(error)) }
    }

    /// Returns this failure, or the one of the step that `cancel` has ended because the preparation of the task took too long.
    pub(super) fn in_step(self, cancel: &CancelToken, reason: FailureReason, step: &str) -> Self {
        let is_late = self == Self::Cancelled && cancel.reason() == Some(CancelReason::PreparedTooLong);
        if is_late { Self::new(reason, format!("{step}: {PREPARED_TOO_LONG}")) } else { self }
    }

    /// Returns the result to report. `cancelled_for` is used only if this is [`Failure::Cancelled`], `time_limit` only if that is
    /// for it.
    pub(super) fn into_result(
        self,
        cancelled_for: Option<CancelReason>,
        time_limit: Duration,
        exit_code: Option<u8>,
    ) -> RunResult {
        let timed_out;
        let (reason, step, message) = match self {
            Self::Failed { reason, step, message } => (reason, step, message),
            Self::Cancelled => {
                let (reason, message) = match cancelled_for {
                    Some(CancelReason::Requested) => (FailureReason::TaskCancelled, "the run was cancelled"),
                    Some(CancelReason::Shutdown) => {
                        (FailureReason::GracefulShutdown, "the worker was stopped")
                    }
                    Some(CancelReason::TimedOut) => {
                        let limit = time_limit.as_secs();
                        timed_out = format!("the task exceeded its time limit of {limit} s (--task-timeout)");
                        (FailureReason::TaskTimeout, timed_out.as_str())
                    }
                    Some(CancelReason::RunOver) => {
                        (FailureReason::TaskCancelled, "the run had already ended at the control plane")
                    }
                    // The container was being started.
                    Some(CancelReason::PreparedTooLong) => (FailureReason::ContainerStart, PREPARED_TOO_LONG),
                    // Never sent: a lost claim gets no report, and `Sibling` cancels only a part of a task.
                    Some(CancelReason::ClaimLost | CancelReason::Sibling) | None => {
                        (FailureReason::Internal, "the task was dropped")
                    }
                };
                (reason, reason, message.to_owned())
            }
        };
        RunResult::Failed { reason, step, message, exit_code }
    }
}

/// Converts the engine's exit code to the protocol's, which is 0 to 255; other values become 255.
pub(super) fn exit_code(code: i64) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Returns what to say of a task that the kernel killed for its memory. `limit` is in bytes; `None` if it had none of its own.
pub(super) fn out_of_memory(limit: Option<i64>, exit_code: u8) -> Option<String> {
    let mib = limit? >> 20;
    Some(format!("the task exceeded its memory limit of {mib} MiB and exited with code {exit_code}"))
}

/// Returns what to say of an exit code that the engine gave for a container whose end this worker did not observe: after a
/// restart of the engine or of its host, these codes stand for an end that was not the task's own.
pub(super) fn loss(exit_code: u8) -> Option<&'static str> {
    match exit_code {
        255 => Some(
            "the engine did not see the task end (exit code 255), as after its restart or a power failure: the task's result is \
             unknown, and its output may be incomplete",
        ),
        137 => Some(
            "the task was killed while the engine or the worker was away (exit code 137), probably with the engine or its host: \
             its output may be incomplete",
        ),
        _ => None,
    }
}

/// What to say of an output that was read while the engine's disk had no space.
pub(super) const DISK_FULL: &str =
    "the engine's disk has no space left, so a part of the task's output may be missing, or all of it";

/// Adds a remark for people to a result. A failed exit is named in front of it, because a control plane may show only this text.
pub(super) fn add_note(result: &mut RunResult, note: &str) {
    match result {
        RunResult::Completed { note: Some(text), .. } | RunResult::Failed { message: text, .. } => {
            text.push_str("; ");
            text.push_str(note);
        }
        RunResult::Completed { exit_code: 0, note: empty @ None, .. } => *empty = Some(note.to_owned()),
        RunResult::Completed { exit_code, out_of_memory, note: empty @ None } => {
            let cause = if *out_of_memory { "exceeded its memory limit and " } else { "" };
            *empty = Some(format!("the task {cause}exited with code {exit_code}; {note}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn failed(reason: FailureReason, message: &str) -> RunResult {
        RunResult::Failed { reason, step: reason, message: message.into(), exit_code: None }
    }

    #[test]
    fn an_error_has_the_reason_of_its_step_unless_the_engine_is_unreachable() {
        let refused = Error::Engine { status: 500, message: "no space".into() };
        let failure = Failure::engine(FailureReason::ContainerCreate, "create", &refused);
        let expected = "create: the docker engine answered 500: no space";
        assert_eq!(failure, Failure::new(FailureReason::ContainerCreate, expected));
        let source = io::Error::other("refused");
        let away = Error::Unreachable { address: "unix:///s".into(), source };
        let failure = Failure::engine(FailureReason::ImagePull, "pull", &away);
        let expected = "pull: the docker engine at unix:///s is not reachable: refused";
        let (reason, step) = (FailureReason::DockerUnreachable, FailureReason::ImagePull);
        assert_eq!(failure, Failure::Failed { reason, step, message: expected.into() });
        let exhausted = Error::Exhausted { source: io::Error::other("too many open files") };
        let failure = Failure::engine(FailureReason::ImagePull, "pull", &exhausted);
        let Failure::Failed { reason: FailureReason::Internal, message, .. } = failure else {
            panic!("{failure:?}")
        };
        assert!(
            message.starts_with("pull: the worker has no file descriptor")
                && message.contains("LimitNOFILE=")
        );
        assert_eq!(Failure::engine(FailureReason::ImagePull, "pull", &Error::Cancelled), Failure::Cancelled);
    }

    #[test]
    fn a_cancelled_task_reports_why_it_was_cancelled() {
        let cases = [
            (CancelReason::Requested, failed(FailureReason::TaskCancelled, "the run was cancelled")),
            (CancelReason::Shutdown, failed(FailureReason::GracefulShutdown, "the worker was stopped")),
            (
                CancelReason::TimedOut,
                failed(
                    FailureReason::TaskTimeout,
                    "the task exceeded its time limit of 90 s (--task-timeout)",
                ),
            ),
            (
                CancelReason::RunOver,
                failed(FailureReason::TaskCancelled, "the run had already ended at the control plane"),
            ),
        ];
        for (reason, expected) in cases {
            assert_eq!(Failure::Cancelled.into_result(Some(reason), Duration::from_secs(90), None), expected);
        }
    }

    #[test]
    fn a_task_whose_claim_was_lost_is_given_back() {
        let ended = |reason| Failure::Cancelled.into_result(Some(reason), Duration::ZERO, None);
        let mut dropped = ended(CancelReason::ClaimLost);
        add_note(&mut dropped, "the shape was reduced");
        assert!(is_given_back(&dropped, Some(CancelReason::ClaimLost)));
        assert!(!is_given_back(&dropped, None), "a defect");
        let requested = CancelReason::Requested;
        assert!(!is_given_back(&ended(requested), Some(requested)));
        let failed = failed(FailureReason::ImagePull, "no such image");
        assert!(!is_given_back(&failed, Some(CancelReason::ClaimLost)), "its cause is worth a line");
    }

    #[test]
    fn a_preparation_that_took_too_long_fails_with_its_step() {
        let late = CancelToken::new();
        late.cancel(CancelReason::PreparedTooLong);
        let failure = Failure::Cancelled.in_step(&late, FailureReason::ImagePull, "image a");
        let Failure::Failed { reason: FailureReason::ImagePull, message, .. } = &failure else {
            panic!("{failure:?}")
        };
        assert!(message.starts_with("image a: ") && message.contains("--task-timeout"), "{message}");
        let outer = failure.clone().in_step(&late, FailureReason::ContainerCreate, "container c");
        assert_eq!(outer, failure, "the first step counts");
        for other in [CancelReason::Requested, CancelReason::Sibling] {
            let cancel = CancelToken::new();
            cancel.cancel(other);
            let failure = Failure::Cancelled.in_step(&cancel, FailureReason::ImagePull, "image a");
            assert_eq!(failure, Failure::Cancelled, "{other:?}");
        }
        let RunResult::Failed { reason, .. } =
            Failure::Cancelled.into_result(late.reason(), Duration::ZERO, None)
        else {
            panic!()
        };
        assert_eq!(reason, FailureReason::ContainerStart);
    }

    #[test]
    fn a_note_is_added_to_what_is_there() {
        let exited = |exit_code, out_of_memory| RunResult::Completed { exit_code, out_of_memory, note: None };
        let completed = |note: Option<&str>| RunResult::Completed {
            exit_code: 0,
            out_of_memory: false,
            note: note.map(str::to_owned),
        };
        for (mut result, expected) in [
            (completed(None), completed(Some("n"))),
            (completed(Some("a")), completed(Some("a; n"))),
            (
                exited(3, false),
                RunResult::Completed {
                    exit_code: 3,
                    out_of_memory: false,
                    note: Some("the task exited with code 3; n".to_owned()),
                },
            ),
            (
                exited(137, true),
                RunResult::Completed {
                    exit_code: 137,
                    out_of_memory: true,
                    note: Some("the task exceeded its memory limit and exited with code 137; n".to_owned()),
                },
            ),
            (failed(FailureReason::TaskTimeout, "m"), failed(FailureReason::TaskTimeout, "m; n")),
        ] {
            add_note(&mut result, "n");
            assert_eq!(result, expected);
        }
    }

    #[test]
    fn exit_codes_outside_of_a_byte_become_255() {
        assert_eq!([0, 1, 137, 255, 256, -1].map(exit_code), [0, 1, 137, 255, 255, 255]);
    }
}
