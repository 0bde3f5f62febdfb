//! What identifies an execution.

use std::fmt;

use crate::logging::value;

/// The longest id that a message repeats, in bytes.
const MAX_ANSWERED_ID: usize = 64 << 10;

/// Identifies one execution of a task. `Display` gives the keys of a log line: `task=ID`, and `execution=ID` if there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExecutionKey {
    /// The run's id. A control plane that starts a run several times uses it for each of its executions.
    pub task_id: String,
    /// The id of the execution, if the control plane names one; never blank.
    pub execution_id: Option<String>,
}

impl ExecutionKey {
    /// Returns the key of an execution. A blank `execution_id` counts as none.
    pub fn new(task_id: impl Into<String>, execution_id: Option<&str>) -> Self {
        let execution_id = execution_id.filter(|id| !id.trim().is_empty());
        Self { task_id: task_id.into(), execution_id: execution_id.map(str::to_owned) }
    }

    /// Whether messages about the execution are sent: each repeats its ids, and many may wait.
    pub fn can_be_answered(&self) -> bool {
        let ids = [Some(&self.task_id), self.execution_id.as_ref()];
        ids.into_iter().flatten().all(|id| id.len() <= MAX_ANSWERED_ID)
    }

    /// Whether the state of the run can be looked up: its id can be part of a URL's path.
    pub fn has_page(&self) -> bool {
        is_path_segment(&self.task_id)
    }

    /// Whether a message for `task_id` that names this execution, or none, concerns this execution.
    pub fn is_named_by(&self, task_id: &str, execution_id: Option<&str>) -> bool {
        self.task_id == task_id && execution_id.is_none_or(|id| self.execution_id.as_deref() == Some(id))
    }
}

/// Whether a text can be one segment of a URL's path. Servers and proxies may resolve `.` and `..` even if they are percent-encoded.
pub fn is_path_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
}

impl fmt::Display for ExecutionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task={}", value(&self.task_id))?;
        match &self.execution_id {
            Some(id) => write!(f, " execution={}", value(id)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_execution_id_is_none() {
        for blank in [None, Some(""), Some(" \t")] {
            assert_eq!(ExecutionKey::new("t", blank).execution_id, None);
        }
        assert_eq!(ExecutionKey::new("t", Some("e")).execution_id.as_deref(), Some("e"));
    }

    #[test]
    fn a_message_without_an_execution_id_concerns_all_executions_of_the_task() {
        let (plain, first) = (ExecutionKey::new("t", None), ExecutionKey::new("t", Some("1")));
        assert!(plain.is_named_by("t", None) && first.is_named_by("t", None));
        assert!(first.is_named_by("t", Some("1")));
        assert!(!first.is_named_by("t", Some("2")) && !plain.is_named_by("t", Some("1")));
        assert!(!first.is_named_by("u", Some("1")) && !first.is_named_by("u", None));
    }

    #[test]
    fn a_log_line_has_both_ids_and_neither_can_forge_a_key() {
        assert_eq!(ExecutionKey::new("t", None).to_string(), "task=t");
        assert_eq!(ExecutionKey::new("t", Some("e 1")).to_string(), r#"task=t execution="e 1""#);
        assert_eq!(ExecutionKey::new("a task=b", None).to_string(), r#"task="a task=b""#);
    }
}
