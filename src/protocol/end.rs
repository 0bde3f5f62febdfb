//! How a report counts: as succeeded, failed or cancelled.

use super::{FailureReason, Report, RunResult};
use crate::metrics::TaskEnd;

/// The reason of a failure whose container exited with another code than 0. It is not sent.
const CONTAINER_EXIT: &str = "container_exit";

impl Report {
    /// Returns how the task ended.
    pub fn end(&self) -> TaskEnd {
        match &self.result {
            RunResult::Completed { out_of_memory: true, .. } => {
                TaskEnd::Failed(FailureReason::ContainerOom.name())
            }
            RunResult::Completed { exit_code: 0, .. } => TaskEnd::Succeeded,
            RunResult::Completed { .. } => TaskEnd::Failed(CONTAINER_EXIT),
            RunResult::Failed { reason: FailureReason::TaskCancelled, .. } => TaskEnd::Cancelled,
            RunResult::Failed { reason, .. } => TaskEnd::Failed(reason.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Dialect, ExecutionKey};

    #[test]
    fn an_exit_code_and_a_lack_of_memory_are_failures_and_a_cancel_is_none() {
        let end = |result| {
            let report =
                Report::failed(&ExecutionKey::new("t", None), Dialect::Old, FailureReason::Internal, "");
            Report { result, ..report }.end()
        };
        let completed =
            |exit_code, out_of_memory| RunResult::Completed { exit_code, out_of_memory, note: None };
        let failed =
            |reason| RunResult::Failed { reason, step: reason, message: String::new(), exit_code: None };
        let cases = [
            (completed(0, false), TaskEnd::Succeeded),
            (completed(1, false), TaskEnd::Failed("container_exit")),
            (completed(137, true), TaskEnd::Failed("container_oom")),
            (completed(0, true), TaskEnd::Failed("container_oom")),
            (failed(FailureReason::TaskCancelled), TaskEnd::Cancelled),
            (failed(FailureReason::GracefulShutdown), TaskEnd::Failed("graceful_shutdown")),
        ];
        for (result, expected) in cases {
            assert_eq!(end(result.clone()), expected, "{result:?}");
        }
    }
}
