//! The report of a task that has ended.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Job;
use super::outcome::{DISK_FULL, Failure, add_note};
use super::output::Collected;
use crate::protocol::{PullRequest, Report, RunResult};
use crate::sys::cancel::CancelReason;

/// Returns the report of a result and an output.
pub(super) fn report(job: &Job, result: RunResult, collected: Collected) -> Report {
    let (key, dialect) = (job.work.key(), job.work.dialect());
    // The cancel may have come after the last step that it ends.
    let is_cancelled = job.cancel.reason() == Some(CancelReason::Requested) && dialect.cancel_wins(&result);
    let mut result = if is_cancelled {
        Failure::Cancelled.into_result(job.cancel.reason(), Duration::ZERO, None)
    } else {
        result
    };
    if collected.disk_was_full {
        add_note(&mut result, DISK_FULL);
    }
    let now = OffsetDateTime::from(SystemTime::now()).replace_nanosecond(0).map(|now| now.format(&Rfc3339));
    let created_at = now.ok().and_then(Result::ok).unwrap_or_default();
    let artifact = |url| PullRequest { url, created_at: created_at.clone() };
    Report {
        key: key.clone(),
        dialect,
        result,
        output: collected.output,
        artifacts: collected.artifacts.into_iter().map(artifact).collect(),
        session_link: collected.session_link,
    }
}
