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
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::metrics::Tally;
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

    /// Every reason, without a list: the compiler finds one that is missing here.
    fn after(reason: FailureReason) -> Option<FailureReason> {
        Some(match reason {
            FailureReason::InvalidAssignment => FailureReason::ImagePull,
            FailureReason::ImagePull => FailureReason::SidecarPrep,
            FailureReason::SidecarPrep => FailureReason::ContainerCreate,
            FailureReason::ContainerCreate => FailureReason::ContainerStart,
            FailureReason::ContainerStart => FailureReason::ContainerWait,
            FailureReason::ContainerWait => FailureReason::ContainerOom,
            FailureReason::ContainerOom => FailureReason::TaskTimeout,
            FailureReason::TaskTimeout => FailureReason::TaskCancelled,
            FailureReason::TaskCancelled => FailureReason::GracefulShutdown,
            FailureReason::GracefulShutdown => FailureReason::DockerUnreachable,
            FailureReason::DockerUnreachable => FailureReason::Internal,
            FailureReason::Internal => return None,
        })
    }

    #[test]
    fn the_metrics_have_every_reason_of_a_failure_and_no_other() {
        let first = FailureReason::InvalidAssignment;
        let reasons: Vec<_> = std::iter::successors(Some(first), |reason| after(*reason)).collect();
        assert_eq!(reasons.len(), 12);
        let failed = |reason: &FailureReason| RunResult::Failed {
            reason: *reason,
            step: *reason,
            message: String::new(),
            exit_code: None,
        };
        let ended = RunResult::Completed { exit_code: 1, out_of_memory: false, note: None };
        let mut names = BTreeSet::from(["unknown"]);
        for result in reasons.iter().map(failed).chain([ended]) {
            let report = Report::failed(&ExecutionKey::new("t", None), Dialect::Old, first, "");
            let end = Report { result, ..report }.end();
            let mut tally = Tally::default();
            tally.end(end, Duration::ZERO);
            let counted = tally.failures().filter(|(.., count)| *count > 0).map(|(_, name, _)| name);
            let expected = match end {
                TaskEnd::Failed(name) => vec![name],
                TaskEnd::Succeeded | TaskEnd::Cancelled => vec![],
            };
            assert_eq!(counted.collect::<Vec<_>>(), expected);
            names.extend(expected);
        }
        let known: BTreeSet<_> = Tally::default().failures().map(|(_, name, _)| name).collect();
        assert_eq!(known, names);
    }
}
