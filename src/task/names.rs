//! Container names. They hold the state of a container for the next process, because labels cannot be changed later.

use std::fmt;

use crate::logging::value;
use crate::sys::cancel::CancelReason;

/// Prefix of a kept container.
const KEPT: &str = "oz-kept-";

/// Prefix of a task container.
const TASK: &str = "oz-task-";

/// Prefix of the container that mounts a volume while it is populated; the volume's name follows.
const POPULATOR: &str = "oz-fill-";

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

/// Returns the name of a task's container. `readable` is for people; `digest` makes the name unique.
pub(super) fn task(readable: &str, digest: &str) -> String {
    format!("{TASK}{readable}-{digest}")
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
pub(super) fn helper_kind(name: &str) -> Option<HelperKind<'_>> {
    let volume = name.strip_prefix(POPULATOR)?;
    Some(if volume.ends_with(SOURCE) { HelperKind::Source } else { HelperKind::Populator { volume } })
}

/// Returns the name of a container that is stopped for this reason; `None` if no container is stopped for it.
pub(super) fn stopped(name: &str, reason: CancelReason) -> Option<String> {
    let (_, suffix) = STOPPED.iter().find(|(stopped_for, _)| *stopped_for == reason)?;
    Some(format!("{name}{suffix}"))
}

/// Returns why the container with this name was stopped; `None` if its name has no such suffix.
pub(super) fn stopped_for(name: &str) -> Option<CancelReason> {
    STOPPED.iter().find(|(_, suffix)| name.ends_with(suffix)).map(|(reason, _)| *reason)
}

/// Returns the name of a container that is kept for inspection. It ends with the short id, so that the next execution of
/// the same task can be kept too.
pub(super) fn kept(name: &str, id: &str) -> String {
    let readable = name.strip_prefix(TASK).unwrap_or(name);
    format!("{KEPT}{readable}-{}", short_id(id))
}

/// Whether the container with this name is kept for inspection.
pub(super) fn is_kept(name: &str) -> bool {
    name.starts_with(KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(!is_kept(&name) && helper_kind(&name).is_none());
        }
        for reason in [CancelReason::ClaimLost, CancelReason::Sibling] {
            assert_eq!(stopped("x", reason), None);
        }
    }

    /// The readable part comes from the task's id, which the control plane chooses.
    #[test]
    fn a_task_id_cannot_imitate_a_prefix_or_suffix() {
        for name in ["oz-task-x.task_timeout-0123456789ab", "oz-task-oz-kept-x-0123456789ab", "oz-task-a"] {
            assert_eq!((stopped_for(name), is_kept(name), helper_kind(name)), (None, false, None), "{name}");
        }
    }

    #[test]
    fn a_kept_name_contains_the_short_id() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(kept("oz-task-t_1-ba9876543210", &id), "oz-kept-t_1-ba9876543210-0123456789ab");
        assert!(is_kept(&kept("oz-task-t", "short")));
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
