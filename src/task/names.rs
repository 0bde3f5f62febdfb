//! Container names, and which containers are those of a worker. Names hold the state of a container for the next process, because labels cannot be changed later.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::labels::{self, PROCESS_LABEL, WORKER_LABEL};
use crate::logging::value;
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelReason;

/// Prefix of a container that is kept until a person removes it.
const KEPT: &str = "oz-kept-";

/// Prefix of a failed container that is kept for some time.
const FAILED: &str = "oz-failed-";

/// Prefix of a task container.
const TASK: &str = "oz-task-";

/// Prefix of the container that mounts a volume while it is populated; the volume's name follows.
const POPULATOR: &str = "oz-fill-";

/// Prefix of the container and of the volume of a check.
const CHECK: &str = "oz-check-";

/// Suffix of the container that a volume is populated from, after the populator's name.
const SOURCE: &str = "-source";

/// Suffixes for the reasons to stop a running container. A suffix is read back as the first reason that has it.
const STOPPED: [(CancelReason, &str); 4] = [
    (CancelReason::Requested, ".task_cancelled"),
    (CancelReason::RunOver, ".task_cancelled"),
    (CancelReason::Shutdown, ".graceful_shutdown"),
    (CancelReason::TimedOut, ".task_timeout"),
];

/// A helper container, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HelperKind<'a> {
    /// Mounts a volume while it is populated.
    Populator {
        /// The volume's name.
        volume: &'a str,
    },
    /// A volume is populated from it.
    Source,
    /// A check runs it.
    Check,
}

/// A container of this worker, by its labels and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owned<'a> {
    /// Of a task, and not kept for inspection.
    Task {
        /// The execution.
        key: ExecutionKey,
        /// The name with which it was created.
        created_as: String,
        /// Why it was stopped; `None` if its name has no such suffix.
        stopped_for: Option<CancelReason>,
    },
    /// A helper container.
    Helper(HelperKind<'a>),
}

/// A container's name and, once it is known, its id. `Display` gives the keys of a log line:
/// `container=NAME id=SHORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerRef {
    /// The name with which it was created. A container that is stopped early or kept is renamed on the engine; its id stays.
    pub(super) name: String,
    /// `None` before the creation, and while it is uncertain whether the container exists.
    pub(super) id: Option<String>,
}

impl ContainerRef {
    /// Returns what calls to the engine use: the id if it is known, else the name.
    pub(super) fn key(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }
}

impl fmt::Display for ContainerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "container={}", value(&self.name))?;
        match &self.id {
            Some(id) => write!(f, " id={}", value(short_id(id))),
            None => Ok(()),
        }
    }
}

/// Returns the first 12 characters of a container's id, as `docker ps` shows it.
pub(super) fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Returns the name of a task's container: readable, and different for each worker and execution. If several processes share the
/// worker's id, it also differs for each `process`, because one of them may be about to remove its container when the execution
/// is given to another one.
pub(super) fn task(worker_id: &str, key: &ExecutionKey, process: Option<&str>) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let readable: String = key.task_id.chars().take(40).map(plain).collect();
    let mut hash = Sha256::new();
    hash.update(worker_id);
    hash.update([0]);
    hash.update(&key.task_id);
    if let Some(execution_id) = &key.execution_id {
        // No text in UTF-8 has this byte.
        hash.update([0xff]);
        hash.update(execution_id);
    }
    if let Some(process) = process {
        hash.update([0xff, 0xff]);
        hash.update(process);
    }
    let [a, b, c, d, e, f, ..]: [u8; 32] = hash.finalize().into();
    format!("{TASK}{readable}-{}", data_encoding::HEXLOWER.encode(&[a, b, c, d, e, f]))
}

/// Returns what a container of this worker is. Labels alone prove nothing: an image that was committed from a container gives
/// them to every container that is created from it. So a task's container also needs the name that the worker gave it, with or
/// without a suffix, and a helper a helper's name. Returns `None` for all other containers, and for kept ones.
pub(super) fn owned<'a>(
    worker_id: &str,
    labels: &BTreeMap<String, String>,
    name: &'a str,
) -> Option<Owned<'a>> {
    if labels::get(labels, WORKER_LABEL)? != worker_id {
        return None;
    }
    let Some(key) = labels::execution_of(labels) else {
        return helper_kind(name).map(Owned::Helper);
    };
    let created_as =
        first_names(worker_id, labels, &key).into_iter().find(|first| is_with_suffix(name, first))?;
    Some(Owned::Task { key, created_as, stopped_for: stopped_for(name) })
}

/// Returns the names with which this worker may have created the container of an execution.
fn first_names(worker_id: &str, labels: &BTreeMap<String, String>, key: &ExecutionKey) -> [String; 3] {
    // Release 0.1 gave all executions of a task one name.
    let of_0_1 = ExecutionKey::new(key.task_id.as_str(), None);
    let process = labels::get(labels, PROCESS_LABEL);
    [task(worker_id, key, None), task(worker_id, key, process), task(worker_id, &of_0_1, None)]
}

/// Whether this worker keeps the container for some time because its task failed. As with [`owned`], labels alone prove nothing.
pub(super) fn is_failed(worker_id: &str, labels: &BTreeMap<String, String>, name: &str, id: &str) -> bool {
    labels::get(labels, WORKER_LABEL) == Some(worker_id)
        && labels::execution_of(labels).is_some_and(|key| {
            first_names(worker_id, labels, &key).iter().any(|first| name == failed(first, id))
        })
}

/// Whether the name is this one, with or without a suffix.
fn is_with_suffix(name: &str, created_as: &str) -> bool {
    let rest = name.strip_prefix(created_as);
    rest.is_some_and(|rest| rest.is_empty() || STOPPED.iter().any(|(_, suffix)| rest == *suffix))
}

/// Returns the name of the container and of the volume of a check by this process.
pub(super) fn check(process: &str) -> String {
    format!("{CHECK}{process}")
}

/// Whether a container or a volume with this name is of a check.
pub(super) fn is_of_check(name: &str) -> bool {
    name.strip_prefix(POPULATOR).unwrap_or(name).starts_with(CHECK)
}

/// Returns the name of the helper that mounts `volume` while it is populated.
pub(super) fn populator(volume: &str) -> String {
    format!("{POPULATOR}{volume}")
}

/// Returns the name of the helper that the volume of `populator` is populated from.
pub(super) fn source(populator: &str) -> String {
    format!("{populator}{SOURCE}")
}

/// Returns the kind of helper with this name, or `None` if it is not a helper's name.
fn helper_kind(name: &str) -> Option<HelperKind<'_>> {
    if name.starts_with(CHECK) {
        return Some(HelperKind::Check);
    }
    let volume = name.strip_prefix(POPULATOR)?;
    Some(if volume.ends_with(SOURCE) { HelperKind::Source } else { HelperKind::Populator { volume } })
}

/// Returns the name of a container that is stopped for this reason; `None` if no container is stopped for it.
pub(super) fn stopped(name: &str, reason: CancelReason) -> Option<String> {
    let (_, suffix) = STOPPED.iter().find(|(stopped_for, _)| *stopped_for == reason)?;
    Some(format!("{name}{suffix}"))
}

/// Returns why the container with this name was stopped; `None` if its name has no such suffix.
fn stopped_for(name: &str) -> Option<CancelReason> {
    STOPPED.iter().find(|(_, suffix)| name.ends_with(suffix)).map(|(reason, _)| *reason)
}

/// Returns the name of a container that is kept until a person removes it. It ends with the short id, so that the next execution
/// of the same task can be kept too.
pub(super) fn kept(name: &str, id: &str) -> String {
    with_prefix(KEPT, name, id)
}

/// As [`kept`], for a container that is kept for some time because its task failed.
pub(super) fn failed(name: &str, id: &str) -> String {
    with_prefix(FAILED, name, id)
}

fn with_prefix(prefix: &str, name: &str, id: &str) -> String {
    let readable = name.strip_prefix(TASK).unwrap_or(name);
    format!("{prefix}{readable}-{}", short_id(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::labels::{EXECUTION_LABEL, TASK_LABEL, of_container};

    fn name_of(worker: &str, task_id: &str, execution: Option<&str>) -> String {
        task(worker, &ExecutionKey::new(task_id, execution), None)
    }

    #[test]
    fn container_names_differ_if_ids_differ() {
        let name = name_of("w", "run 1/ä", None);
        assert!(name.starts_with("oz-task-run_1__-"), "{name}");
        assert_eq!(name, name_of("w", "run 1/ä", None));
        let others = [
            ("w", "run 1/ö", None),
            ("v", "run 1/ä", None),
            ("wr", "un 1/ä", None),
            ("w", &"x".repeat(500), None),
            ("w", "run 1/ä", Some("1")),
        ];
        for (worker, task_id, execution) in others {
            let other = name_of(worker, task_id, execution);
            assert_ne!(other, name);
            assert!(other.len() < 64 && other.is_ascii(), "{other}");
        }
        assert_ne!(name_of("w", "a", Some("b")), name_of("w", "a\0b", None));
        assert_ne!(name_of("w", "a", Some("1")), name_of("w", "a", Some("2")));
    }

    #[test]
    fn a_failed_container_is_the_workers_by_label_and_name() {
        let labels = |worker: &str, task: &str| {
            let pairs = [(WORKER_LABEL, worker), (TASK_LABEL, task), (PROCESS_LABEL, "p")];
            BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())))
        };
        let id = "f".repeat(64);
        let key = ExecutionKey::new("t", None);
        for process in [None, Some("p")] {
            let name = failed(&task("w", &key, process), &id);
            assert!(name.starts_with("oz-failed-t-") && name.ends_with("-ffffffffffff"), "{name}");
            assert!(is_failed("w", &labels("w", "t"), &name, &id));
            assert_eq!(owned("w", &labels("w", "t"), &name), None, "it is not adopted");
            assert!(!is_failed("v", &labels("w", "t"), &name, &id));
            assert!(!is_failed("w", &labels("w", "other"), &name, &id));
            assert!(!is_failed("w", &labels("w", ""), &name, &id));
            // A container that was created from an image of it.
            assert!(!is_failed("w", &labels("w", "t"), &name, &"e".repeat(64)));
        }
        let by_hand = kept(&task("w", &key, None), &id);
        assert!(!is_failed("w", &labels("w", "t"), &by_hand, &id));
    }

    /// Recorded from release 0.1 (ca50f13). Its containers have a name for all executions of a task.
    #[test]
    fn names_of_release_0_1_are_recognized() {
        const RECORDED: &str = "oz-task-0f5e9c1a-run_1-a7407dcf3841";
        assert_eq!(name_of("build-host-1", "0f5e9c1a-run 1", None), RECORDED);
        let own = |execution: &str, name: &str| {
            let mut labels = BTreeMap::from([
                (WORKER_LABEL.to_owned(), "build-host-1".to_owned()),
                (TASK_LABEL.to_owned(), "0f5e9c1a-run 1".to_owned()),
            ]);
            if !execution.is_empty() {
                labels.insert(EXECUTION_LABEL.to_owned(), execution.to_owned());
            }
            match owned("build-host-1", &labels, name) {
                Some(Owned::Task { key, created_as, stopped_for }) => {
                    Some((key.execution_id.unwrap_or_default(), created_as, stopped_for))
                }
                _ => None,
            }
        };
        let stopped = format!("{RECORDED}.task_timeout");
        for execution in ["", "e"] {
            let expected = (execution.to_owned(), RECORDED.to_owned());
            let found = own(execution, RECORDED).unwrap();
            assert_eq!(found, (expected.0.clone(), expected.1.clone(), None));
            let found = own(execution, &stopped).unwrap();
            assert_eq!(found, (expected.0, expected.1, Some(CancelReason::TimedOut)));
        }
    }

    #[test]
    fn a_container_is_owned_by_label_and_name() {
        let pair =
            |execution| of_container(&[(WORKER_LABEL, "w"), (TASK_LABEL, "t"), (EXECUTION_LABEL, execution)]);
        let is_owned = |execution, name: &str| owned("w", &pair(execution), name).is_some();
        let name = name_of("w", "t", Some("1"));
        assert!(is_owned("1", &name) && is_owned("1", &format!("{name}.task_cancelled")));
        let foreign = [
            "db".to_owned(),
            format!("my-{name}"),
            format!("{name}-2"),
            format!("{name}.other"),
            format!("{name}.task_cancelled.task_cancelled"),
            kept(&name, &"f".repeat(64)),
            name_of("w", "t", Some("2")),
            name_of("v", "t", Some("1")),
            populator("v"),
        ];
        for name in foreign {
            assert!(!is_owned("1", &name), "{name}");
        }
        assert!(!is_owned("", &name), "the name of another execution");
        assert_eq!(owned("v", &pair("1"), &name), None, "another worker's");
        let helper = of_container(&[(WORKER_LABEL, "w")]);
        assert_eq!(
            owned("w", &helper, "oz-fill-v"),
            Some(Owned::Helper(HelperKind::Populator { volume: "v" }))
        );
        assert_eq!(owned("w", &helper, "db"), None);
        assert_eq!(owned("w", &of_container(&[]), "oz-fill-v"), None);
    }

    #[test]
    fn the_stop_reason_is_read_back_from_the_name() {
        for (reason, back) in [
            (CancelReason::Requested, CancelReason::Requested),
            (CancelReason::RunOver, CancelReason::Requested),
            (CancelReason::Shutdown, CancelReason::Shutdown),
            (CancelReason::TimedOut, CancelReason::TimedOut),
        ] {
            let name = stopped("oz-task-a.b-0123456789ab", reason).unwrap();
            assert_eq!(stopped_for(&name), Some(back), "{name}");
            assert!(helper_kind(&name).is_none());
        }
        for reason in [CancelReason::ClaimLost, CancelReason::Sibling] {
            assert_eq!(stopped("x", reason), None);
        }
    }

    /// The readable part comes from the task's id, which the control plane chooses.
    #[test]
    fn a_task_id_cannot_imitate_a_prefix_or_suffix() {
        for name in ["oz-task-x.task_timeout-0123456789ab", "oz-task-oz-kept-x-0123456789ab", "oz-task-a"] {
            assert_eq!((stopped_for(name), helper_kind(name)), (None, None), "{name}");
        }
    }

    #[test]
    fn a_kept_name_contains_the_short_id() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(kept("oz-task-t_1-ba9876543210", &id), "oz-kept-t_1-ba9876543210-0123456789ab");
        assert_eq!(kept("oz-task-t", "short"), "oz-kept-t-short");
    }

    #[test]
    fn helpers_are_recognized_by_name() {
        let name = populator("oz-sidecar-abc");
        assert_eq!(helper_kind(&name), Some(HelperKind::Populator { volume: "oz-sidecar-abc" }));
        assert_eq!(helper_kind(&source(&name)), Some(HelperKind::Source));
        assert_eq!(helper_kind("oz-sidecar-abc"), None);
    }

    #[test]
    fn a_log_line_has_the_name_and_the_short_id() {
        let mut container = ContainerRef { name: "oz-task-t".into(), id: None };
        assert_eq!((container.key(), container.to_string().as_str()), ("oz-task-t", "container=oz-task-t"));
        container.id = Some("0123456789abcdef".into());
        assert_eq!(container.key(), "0123456789abcdef");
        assert_eq!(container.to_string(), "container=oz-task-t id=0123456789ab");
    }
}
