//! What a container's name says beyond its task: why the worker ended it, that it is kept, that it only helps.
//!
//! Owns these names, by which one process tells the next what the engine has no other place for: labels are fixed with
//! the creation. Pure. It must not call the engine.

use crate::sys::cancel::CancelReason;

/// What a kept container's name begins with.
const KEPT: &str = "oz-kept-";

/// What a task container's name begins with.
const TASK: &str = "oz-task-";

/// What the name of a container that holds a volume while it is filled begins with; the volume's name follows.
const FILLER: &str = "oz-fill-";

/// What the name of the container that a volume is filled from ends with, after the filler's name.
const SOURCE: &str = "-source";

/// The reasons for which a running container is ended, as they follow its name; read back, each stands for the first reason
/// that it is written for.
const ENDED: [(CancelReason, &str); 4] = [
    (CancelReason::Requested, ".task_cancelled"),
    (CancelReason::RunOver, ".task_cancelled"),
    (CancelReason::Shutdown, ".graceful_shutdown"),
    (CancelReason::TimedOut, ".task_timeout"),
];

/// A helper container, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HelperKind<'a> {
    /// It holds this volume while that is filled.
    Filler {
        /// The volume's name.
        volume: &'a str,
    },
    /// A volume is filled from it.
    Source,
}

/// The name of a task's container: the task as people can read it, and what tells it from all others.
pub(super) fn task(readable: &str, digest: &str) -> String {
    format!("{TASK}{readable}-{digest}")
}

/// The name of the helper that holds a volume.
pub(super) fn filler(volume: &str) -> String {
    format!("{FILLER}{volume}")
}

/// The name of the helper that the holder's volume is filled from.
pub(super) fn source(filler: &str) -> String {
    format!("{filler}{SOURCE}")
}

/// What kind of helper has this name, if any.
pub(super) fn helping(name: &str) -> Option<HelperKind<'_>> {
    let volume = name.strip_prefix(FILLER)?;
    Some(if volume.ends_with(SOURCE) { HelperKind::Source } else { HelperKind::Filler { volume } })
}

/// The name of a container that the worker ends for this reason; `None` for a reason for which none is ended.
pub(super) fn ended(name: &str, reason: CancelReason) -> Option<String> {
    let (_, suffix) = ENDED.iter().find(|(for_it, _)| *for_it == reason)?;
    Some(format!("{name}{suffix}"))
}

/// Why the container with this name was ended, if its name says so.
pub(super) fn ended_for(name: &str) -> Option<CancelReason> {
    ENDED.iter().find(|(_, suffix)| name.ends_with(suffix)).map(|(reason, _)| *reason)
}

/// The name of a container that is kept for people: free for the next run of the same task, since it holds some of the
/// container's own id.
pub(super) fn kept(name: &str, id: &str) -> String {
    let readable = name.strip_prefix(TASK).unwrap_or(name);
    format!("{KEPT}{readable}-{}", id.get(..12).unwrap_or(id))
}

/// Whether the container with this name is kept for people.
pub(super) fn is_kept(name: &str) -> bool {
    name.starts_with(KEPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_read_back() {
        for (reason, back) in [
            (CancelReason::Requested, CancelReason::Requested),
            (CancelReason::RunOver, CancelReason::Requested),
            (CancelReason::Shutdown, CancelReason::Shutdown),
            (CancelReason::TimedOut, CancelReason::TimedOut),
        ] {
            let name = ended("oz-task-a.b-0123456789ab", reason).unwrap();
            assert_eq!(ended_for(&name), Some(back), "{name}");
            assert!(!is_kept(&name) && helping(&name).is_none());
        }
        for never in [CancelReason::ClaimLost, CancelReason::Sibling] {
            assert_eq!(ended("x", never), None);
        }
    }

    /// The readable part of a name is the task's own id, and must not be taken for what the worker says.
    #[test]
    fn a_task_cannot_name_itself_into_another_meaning() {
        for name in ["oz-task-x.task_timeout-0123456789ab", "oz-task-oz-kept-x-0123456789ab", "oz-task-a"] {
            assert_eq!((ended_for(name), is_kept(name), helping(name)), (None, false, None), "{name}");
        }
    }

    #[test]
    fn a_kept_name_is_new_for_each_container_and_one_the_engine_takes() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(kept("oz-task-t_1-ba9876543210", &id), "oz-kept-t_1-ba9876543210-0123456789ab");
        assert!(is_kept(&kept("oz-task-t", "short")));
    }

    #[test]
    fn helpers_are_known_by_name() {
        let name = filler("oz-sidecar-abc");
        assert_eq!(helping(&name), Some(HelperKind::Filler { volume: "oz-sidecar-abc" }));
        assert_eq!(helping(&source(&name)), Some(HelperKind::Source));
        assert_eq!(helping("oz-sidecar-abc"), None);
    }
}
