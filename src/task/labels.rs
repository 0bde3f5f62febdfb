//! The labels of containers and volumes, by which later processes find them.

use std::collections::BTreeMap;

use crate::protocol::ExecutionKey;

/// Label: the worker that created a container or volume.
pub(crate) const WORKER_LABEL: &str = "oz-worker-id";
/// Label: the run that a container or volume belongs to.
pub(crate) const TASK_LABEL: &str = "oz-task-id";
/// Label: the execution of that run, as the control plane names it.
pub(crate) const EXECUTION_LABEL: &str = "oz-execution-id";
/// Label: the process of that worker. A volume that tasks share does not have it.
pub(crate) const PROCESS_LABEL: &str = "oz-process-id";
/// Label: the image whose files a volume holds.
pub(crate) const IMAGE_LABEL: &str = "oz-sidecar-image";

/// Returns the execution that a container or volume belongs to; `None` if it belongs to no task.
pub(super) fn execution_of(labels: &BTreeMap<String, String>) -> Option<ExecutionKey> {
    let execution_id = labels.get(EXECUTION_LABEL).map(String::as_str);
    labels.get(TASK_LABEL).map(|task_id| ExecutionKey::new(task_id, execution_id))
}
