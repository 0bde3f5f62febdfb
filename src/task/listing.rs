//! The tasks on an engine, of all workers, as their containers show them.

use std::time::Duration;

use super::labels::{self, WORKER_LABEL};
use super::names::{Owned, is_failed, owned};
use crate::docker::{Docker, Error, ListedContainer};
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelToken;

/// A task with a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedTask {
    pub(crate) key: ExecutionKey,
    pub(crate) worker_id: String,
    /// The engine's word, such as `created`, `running` or `exited`; `stopping` while the worker stops it.
    pub(crate) state: String,
    /// Since its container was created, by the engine's clock.
    pub(crate) age: Duration,
    /// The name or id from which the container was created.
    pub(crate) image: String,
    pub(crate) container: String,
    /// 64 hexadecimal digits.
    pub(crate) id: String,
}

impl ListedTask {
    /// Whether its processes exist.
    pub(crate) fn runs(&self) -> bool {
        matches!(self.state.as_str(), "running" | "stopping" | "paused")
    }
}

/// Which containers are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Those of tasks that are not reported yet.
    Tasks,
    /// Those of failed tasks that are kept for some time.
    Kept,
}

/// Returns the tasks of one worker, or of all, the oldest first. Other containers that are kept for inspection, and helpers, are no
/// tasks.
///
/// # Errors
/// An engine error.
pub(crate) fn list(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: Option<&str>,
    listed: Listed,
) -> Result<Vec<ListedTask>, Error> {
    let containers = docker.container_statuses(cancel, &[(WORKER_LABEL, worker_id.unwrap_or_default())])?;
    let now = docker.now().unix_timestamp();
    let tasks = containers.into_iter().filter_map(|container| task(container, now, listed));
    // Compared again, because engines differ in what matches a filter.
    let mut tasks: Vec<_> = tasks.filter(|task| worker_id.is_none_or(|id| id == task.worker_id)).collect();
    tasks.sort_by(|a, b| b.age.cmp(&a.age).then_with(|| a.container.cmp(&b.container)));
    Ok(tasks)
}

fn task(container: ListedContainer, now: i64, listed: Listed) -> Option<ListedTask> {
    let ListedContainer { id, names, labels, image, state, created } = container;
    let worker_id = labels::get(&labels, WORKER_LABEL)?.to_owned();
    let name = names.first()?.trim_start_matches('/').to_owned();
    let (key, stopped_for) = match listed {
        Listed::Kept if is_failed(&worker_id, &labels, &name, &id) => (labels::execution_of(&labels)?, None),
        Listed::Kept => return None,
        Listed::Tasks => match owned(&worker_id, &labels, &name)? {
            Owned::Task { key, stopped_for, .. } => (key, stopped_for),
            Owned::Helper(_) => return None,
        },
    };
    let state = if stopped_for.is_some() && state == "running" { "stopping".to_owned() } else { state };
    let age = Duration::from_secs(u64::try_from(now - created).unwrap_or_default());
    Some(ListedTask { key, worker_id, state, age, image, container: name, id })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::cancel::CancelReason;
    use crate::task::labels::{EXECUTION_LABEL, TASK_LABEL, of_container};
    use crate::task::names;

    fn summary(name: &str, labels: &[(&str, &str)], state: &str) -> ListedContainer {
        ListedContainer {
            id: "a".repeat(64),
            names: vec![format!("/{name}")],
            labels: of_container(labels),
            image: "sha256:1".into(),
            state: state.into(),
            created: 1000,
        }
    }

    #[test]
    fn a_task_is_known_by_its_labels_and_its_name() {
        let key = ExecutionKey::new("t", Some("e"));
        let of_task = [(WORKER_LABEL, "w"), (TASK_LABEL, "t"), (EXECUTION_LABEL, "e")];
        let name = names::task("w", &key, None);
        let found = task(summary(&name, &of_task, "running"), 1090, Listed::Tasks).unwrap();
        assert_eq!((&found.key, found.worker_id.as_str(), found.state.as_str()), (&key, "w", "running"));
        assert_eq!((found.age, &found.container), (Duration::from_secs(90), &name));
        let stopping = names::stopped(&name, CancelReason::TimedOut).unwrap();
        let states = ["running", "exited"]
            .map(|state| task(summary(&stopping, &of_task, state), 0, Listed::Tasks).unwrap());
        assert_eq!(states.each_ref().map(|task| task.state.as_str()), ["stopping", "exited"]);
        assert_eq!(states[0].age, Duration::ZERO, "a clock that is behind");
        let others = [
            summary("other", &of_task, "running"),
            summary(&names::kept(&name, "1"), &of_task, "exited"),
            summary("oz-fill-oz-sidecar-1", &[(WORKER_LABEL, "w")], "created"),
        ];
        for other in others {
            assert_eq!(task(other.clone(), 0, Listed::Tasks), None, "{other:?}");
            assert_eq!(task(other.clone(), 0, Listed::Kept), None, "{other:?}");
        }
        let failed = summary(&names::failed(&name, &"a".repeat(64)), &of_task, "exited");
        assert_eq!(task(failed.clone(), 0, Listed::Tasks), None);
        assert_eq!(task(failed, 0, Listed::Kept).map(|task| task.key), Some(key));
    }
}
