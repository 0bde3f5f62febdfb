//! The log's lines about the end of a task.

use std::time::Duration;

use log::{Level, info, log, warn};

use super::Job;
use super::last_lines::last_lines;
use super::outcome::is_given_back;
use super::run::Options;
use crate::job::Work;
use crate::logging::message;
use crate::protocol::{Report, RunResult};
use crate::secret::Secret;

/// Logs the result of a task that took this long, and the last lines of its output if it failed and the operator wants them.
pub(super) fn log_result(job: &Job, report: &Report, took: Duration, options: &Options) {
    let key = job.work.key();
    if is_given_back(&report.result, job.cancel.reason()) {
        info!("task dropped {key} reason=claim_lost took_ms={}", took.as_millis());
        return;
    }
    let is_failure = report.result.is_failure();
    let level = if is_failure { Level::Warn } else { Level::Info };
    log!(level, "task ended {key} {} took_ms={}", fields(report), took.as_millis());
    // The variables of an adopted task are not known, so its output may show secrets.
    let Work::Run(assignment) = &job.work else { return };
    if !is_failure {
        return;
    }
    let operator = options.settings.env.iter().map(|(_, value)| value);
    let hidden: Vec<&str> = assignment.env_vars.values().chain(operator).map(Secret::expose).collect();
    for line in last_lines(&report.output, options.log_output_lines, &hidden) {
        warn!("task output {key} line={}", message(&line));
    }
}

/// Returns the keys of a log line that tell the result.
fn fields(report: &Report) -> String {
    let output = report.output.len();
    match &report.result {
        RunResult::Completed { exit_code: 0, out_of_memory: false, .. } => {
            format!("result=completed exit_code=0 output_bytes={output}")
        }
        RunResult::Completed { exit_code, out_of_memory, note } => {
            let reason = if *out_of_memory { "container_oom" } else { "container_exit" };
            let error = note.as_deref().map(|note| format!(" error={}", message(note))).unwrap_or_default();
            format!("result=failed reason={reason} exit_code={exit_code}{error} output_bytes={output}")
        }
        RunResult::Failed { reason, message: error, exit_code, .. } => {
            let (reason, error) = (reason.name(), message(error));
            let exit_code = exit_code.map(|code| format!(" exit_code={code}")).unwrap_or_default();
            format!("result=failed reason={reason}{exit_code} error={error} output_bytes={output}")
        }
    }
}
