//! The labels of containers and volumes, by which later processes find them. An empty label counts as absent.

use std::collections::BTreeMap;

use crate::protocol::{Dialect, ExecutionKey};

/// Label: the worker that created a container or volume.
pub(crate) const WORKER_LABEL: &str = "oz-worker-id";
/// Label: the run that a container or volume belongs to.
pub(crate) const TASK_LABEL: &str = "oz-task-id";
/// Label: the execution of that run, as the control plane names it.
pub(crate) const EXECUTION_LABEL: &str = "oz-execution-id";
/// Label: the dialect of the assignment. Without it, it is the old one.
pub(crate) const DIALECT_LABEL: &str = "oz-dialect";
/// Label: what to say of a shape that was reduced to the limits of the worker.
pub(crate) const REDUCED_LABEL: &str = "oz-shape-reduced";
/// Label: the process of that worker. A volume that tasks share does not have it.
pub(crate) const PROCESS_LABEL: &str = "oz-process-id";
/// Label: the image whose files a volume holds.
pub(crate) const IMAGE_LABEL: &str = "oz-sidecar-image";

/// Every label that this worker gives.
const ALL: [&str; 7] =
    [WORKER_LABEL, TASK_LABEL, EXECUTION_LABEL, DIALECT_LABEL, REDUCED_LABEL, PROCESS_LABEL, IMAGE_LABEL];

/// Returns the labels of a container: these, and all others empty, because a container has the labels of its image too. An
/// image that was committed from a task's container has that task's.
pub(super) fn of_container(used: &[(&str, &str)]) -> BTreeMap<String, String> {
    let value = |name| used.iter().find(|(used, _)| *used == name).map_or("", |(_, value)| *value);
    ALL.iter().map(|name| ((*name).to_owned(), value(*name).to_owned())).collect()
}

/// Returns a label's value; `None` if it is absent or empty.
pub(super) fn get<'a>(labels: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    labels.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// Returns the execution that a container or volume belongs to; `None` if it belongs to no task.
pub(super) fn execution_of(labels: &BTreeMap<String, String>) -> Option<ExecutionKey> {
    get(labels, TASK_LABEL).map(|task_id| ExecutionKey::new(task_id, get(labels, EXECUTION_LABEL)))
}

/// Returns the dialect of the execution that a container belongs to.
pub(super) fn dialect_of(labels: &BTreeMap<String, String>) -> Dialect {
    get(labels, DIALECT_LABEL).map_or_else(Dialect::default, Dialect::of_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_every_label() {
        let labels = of_container(&[(WORKER_LABEL, "w"), (TASK_LABEL, "t")]);
        assert_eq!(labels.len(), ALL.len());
        assert_eq!((get(&labels, WORKER_LABEL), get(&labels, PROCESS_LABEL)), (Some("w"), None));
        assert_eq!(labels.get(PROCESS_LABEL).map(String::as_str), Some(""));
        assert_eq!(execution_of(&labels), Some(ExecutionKey::new("t", None)));
        assert_eq!(execution_of(&of_container(&[(WORKER_LABEL, "w"), (EXECUTION_LABEL, "e")])), None);
    }

    #[test]
    fn a_container_without_a_dialect_is_old() {
        assert_eq!(dialect_of(&BTreeMap::new()), Dialect::Old);
        assert_eq!(dialect_of(&of_container(&[])), Dialect::Old);
        assert_eq!(dialect_of(&of_container(&[(DIALECT_LABEL, "upstream")])), Dialect::Upstream);
    }
}
