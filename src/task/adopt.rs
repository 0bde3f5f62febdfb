//! What an earlier process of this worker has left on the engine: which of it is still owed a report, and the rest swept away.
//!
//! Owns the look at the engine before the worker takes tasks, while nothing of its own is under way, and a second one for what
//! the engine has made later, while there may be. It must not touch what carries another worker's id, and must not know
//! how a task is reported or when the second look is due.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use log::{info, warn};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::names::{HelperKind, ended_for, helping, is_kept};
use super::plan::{AGENT_DIR, PROCESS_LABEL, TASK_LABEL, WORKER_LABEL};
use super::sidecar::marker;
use crate::docker::{Container, Docker, Error, Volume};
use crate::job::AdoptedTask;
use crate::logging::error_chain;
use crate::logging::value;
use crate::sys::cancel::{CancelReason, CancelToken};

/// States of a container whose process was never started. The last two are Podman's.
const UNSTARTED: [&str; 3] = ["created", "configured", "initialized"];

/// States of a container that somebody was removing.
const REMOVED: [&str; 2] = ["dead", "removing"];

/// What a container of this worker is to the process that finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind<'a> {
    /// Its task was started, and its report is owed.
    Task {
        /// How long ago it was started.
        ran: Duration,
        /// Why the earlier process was ending it.
        ended_for: Option<CancelReason>,
    },
    /// Its task was never started: the control plane gives it away again or fails it.
    Unstarted,
    /// A task container whose removal was under way.
    Removed,
    /// Reported, and left for people to look at.
    Kept,
    /// A container that only helped.
    Helper(HelperKind<'a>),
    /// Not of our making, whatever its label says.
    Other,
}

/// What is looked through.
struct Scan<'a> {
    docker: &'a Docker,
    cancel: &'a CancelToken,
    worker_id: &'a str,
    now: OffsetDateTime,
    /// The volumes that carry the worker's label.
    volumes: Vec<Volume>,
    /// Those of them that a container still needs.
    used: BTreeSet<String>,
}

/// Finds the task containers whose report an earlier process of this worker has not delivered, and removes what else it has left:
/// containers that were never started, helpers, volumes that are half filled or that nobody mounts any more. To be
/// called before the worker takes tasks; what carries another worker's id is never touched. A removal that fails costs a
/// warning.
///
/// # Errors
/// When the engine cannot be asked; or the token was cancelled.
pub fn find(docker: &Docker, cancel: &CancelToken, worker_id: &str) -> Result<Vec<AdoptedTask>, Error> {
    let mut search = Scan::new(docker, cancel, worker_id)?;
    let mut found = Vec::new();
    for summary in docker.container_list(cancel, &[(WORKER_LABEL, worker_id)])? {
        if let Some(container) = search.inspect(&summary.id)? {
            found.extend(search.take(&container));
        }
    }
    search.sweep_volumes();
    if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(found) }
}

/// Removes what an earlier process of this worker has left and the engine has made only after [`find`]: it goes on with a
/// creation whose caller was killed. That was never started, and the caller's label on it is not `process_id`. Whatever
/// is different stays, so this process may be making containers meanwhile. Of the volumes only a task's own
/// go: one that is shared may be what this process is about to fill, and without its marker nobody uses it. A removal that
/// fails costs a warning.
///
/// # Errors
/// When the engine cannot be asked; or the token was cancelled.
pub fn late_sweep(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: &str,
    process_id: &str,
) -> Result<(), Error> {
    let mut all = docker.container_list(cancel, &[(WORKER_LABEL, worker_id)])?;
    all.retain(|summary| made_before(&summary.labels, process_id));
    if all.is_empty() {
        return Ok(());
    }
    let search = Scan::new(docker, cancel, worker_id)?;
    for summary in all {
        if let Some(container) = search.inspect(&summary.id)?
            && is_late(&container, worker_id, process_id, search.now)
        {
            search.late(&container, process_id);
        }
    }
    if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

impl<'a> Scan<'a> {
    fn new(docker: &'a Docker, cancel: &'a CancelToken, worker_id: &'a str) -> Result<Self, Error> {
        let mut volumes = docker.volume_list(cancel, &[(WORKER_LABEL, worker_id)])?;
        // Engines have their own ideas of what matches a filter.
        volumes.retain(|volume| volume.labels.get(WORKER_LABEL).is_some_and(|id| id == worker_id));
        let now = SystemTime::now().into();
        Ok(Self { docker, cancel, worker_id, now, volumes, used: BTreeSet::new() })
    }

    /// One that cannot be looked at, though the engine answers, must not keep the worker from starting for ever.
    fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        match self.docker.container_inspect(self.cancel, id) {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error @ Error::Engine { .. }) => {
                warn!("container unreadable container={} error={}", value(id), value(&error_chain(&error)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Does with a container what its kind calls for; a task to report is given back.
    fn take(&mut self, container: &Container) -> Option<AdoptedTask> {
        match kind(container, self.worker_id, self.now) {
            Kind::Task { ran, ended_for } => return Some(self.adopt(container, ran, ended_for)),
            Kind::Unstarted => return self.unstarted(container),
            Kind::Removed => self.remove(container, "half removed"),
            Kind::Helper(HelperKind::Source) => self.remove(container, "helper"),
            Kind::Helper(HelperKind::Filler { volume }) => self.filler(container, volume),
            Kind::Kept | Kind::Other => self.used.extend(container.volumes.iter().cloned()),
        }
        None
    }

    fn adopt(
        &mut self,
        container: &Container,
        ran: Duration,
        ended_for: Option<CancelReason>,
    ) -> AdoptedTask {
        let task_id = container.labels.get(TASK_LABEL).cloned().unwrap_or_default();
        info!(
            "container adopted task={} container={} state={}",
            value(&task_id),
            value(&container.name),
            value(&container.state.status)
        );
        self.used.extend(container.volumes.iter().cloned());
        let own = |name: &&String| {
            let volume = self.volumes.iter().find(|volume| volume.name == **name);
            volume.is_some_and(|volume| volume.labels.get(TASK_LABEL) == Some(&task_id))
        };
        let volumes = container.volumes.iter().filter(own).cloned().collect();
        // One that has ended has no time limit any more.
        let ran = Some(ran).filter(|_| container.state.running || container.state.status == "paused");
        AdoptedTask { task_id, container: container.id.clone(), volumes, ran, ended_for }
    }

    /// Removes it, unless it has been started after all: the last word of a process that was killed may come late.
    fn unstarted(&mut self, container: &Container) -> Option<AdoptedTask> {
        let error = match self.docker.container_remove_idle(self.cancel, &container.id) {
            Ok(()) => {
                log_removed(container, "never started");
                return None;
            }
            Err(error) => error,
        };
        if error.is_conflict()
            && let Ok(Some(container)) = self.inspect(&container.id)
            && let Kind::Task { ran, ended_for } = kind(&container, self.worker_id, self.now)
        {
            return Some(self.adopt(&container, ran, ended_for));
        }
        self.used.extend(container.volumes.iter().cloned());
        log_left(container, &error);
        None
    }

    /// Removes it, unless somebody has started it, and then the volumes that only its task was to use. One that the same
    /// task has filled again meanwhile and does not hold yet is seen to be gone and made anew.
    fn late(&self, container: &Container, process_id: &str) {
        if let Err(error) = self.docker.container_remove_idle(self.cancel, &container.id) {
            return log_left(container, &error);
        }
        log_removed(container, "made too late");
        let own = |volume: &&Volume| {
            let labels = &volume.labels;
            labels.contains_key(TASK_LABEL)
                && made_before(labels, process_id)
                && container.volumes.contains(&volume.name)
        };
        for volume in self.volumes.iter().filter(own) {
            self.remove_volume(&volume.name, "its container was made too late");
        }
    }

    fn remove(&self, container: &Container, reason: &str) {
        match self.docker.container_remove(self.cancel, &container.id) {
            Ok(()) => log_removed(container, reason),
            Err(error) => log_left(container, &error),
        }
    }

    /// A volume is looked into through its filler, since there is no other way. Half filled ones go with it, but only those
    /// that this worker has made: another one may be about to fill it.
    fn filler(&mut self, container: &Container, volume: &str) {
        let complete = marker::present(self.docker, self.cancel, &container.id, AGENT_DIR);
        self.remove(container, "helper");
        let ours = self.volumes.iter().any(|other| other.name == volume);
        if ours && matches!(complete, Ok(false)) {
            self.remove_volume(volume, "half filled");
        }
    }

    /// Volumes of a single task whose container is gone.
    fn sweep_volumes(&self) {
        let own = self.volumes.iter().filter(|volume| volume.labels.contains_key(TASK_LABEL));
        for volume in own.filter(|volume| !self.used.contains(&volume.name)) {
            self.remove_volume(&volume.name, "its task is gone");
        }
    }

    fn remove_volume(&self, volume: &str, reason: &str) {
        let labelled = self.volumes.iter().find(|other| other.name == volume);
        let task = of_task(labelled.and_then(|volume| volume.labels.get(TASK_LABEL)));
        let (name, reason) = (value(volume), value(reason));
        match self.docker.volume_remove(self.cancel, volume) {
            Ok(()) => info!("volume removed {task}volume={name} reason={reason}"),
            Err(error) if error.is_conflict() => info!("volume left {task}volume={name} reason=\"in use\""),
            Err(error) => warn!("volume left {task}volume={name} error={}", value(&error_chain(&error))),
        }
    }
}

fn kind<'a>(container: &'a Container, worker_id: &str, now: OffsetDateTime) -> Kind<'a> {
    let (labels, state) = (&container.labels, &container.state);
    let status = state.status.as_str();
    if labels.get(WORKER_LABEL).is_none_or(|id| id != worker_id) {
        Kind::Other
    } else if is_kept(&container.name) {
        Kind::Kept
    } else if !labels.contains_key(TASK_LABEL) {
        helping(&container.name).map_or(Kind::Other, Kind::Helper)
    } else if REMOVED.contains(&status) {
        Kind::Removed
    } else if UNSTARTED.contains(&status) || never(&state.started_at) && !state.running {
        Kind::Unstarted
    } else {
        Kind::Task { ran: ran(&state.started_at, now), ended_for: ended_for(&container.name) }
    }
}

/// Whether another process than this one has made it; what does not say so was not.
fn made_before(labels: &BTreeMap<String, String>, process_id: &str) -> bool {
    labels.get(PROCESS_LABEL).is_some_and(|id| id != process_id)
}

/// Whether a second look is to remove it.
fn is_late(container: &Container, worker_id: &str, process_id: &str, now: OffsetDateTime) -> bool {
    let unstarted = match kind(container, worker_id, now) {
        Kind::Unstarted => true,
        Kind::Helper(_) => UNSTARTED.contains(&container.state.status.as_str()),
        Kind::Task { .. } | Kind::Removed | Kind::Kept | Kind::Other => false,
    };
    unstarted && made_before(&container.labels, process_id)
}

/// Whether the engine's time stands for "never": the zero of its clock.
fn never(time: &str) -> bool {
    time.is_empty() || OffsetDateTime::parse(time, &Rfc3339).is_ok_and(|time| time.year() <= 1)
}

/// The time since then, or none when that is in the future or unreadable: the engine's clock need not be ours.
fn ran(started_at: &str, now: OffsetDateTime) -> Duration {
    let started = OffsetDateTime::parse(started_at, &Rfc3339).ok();
    started.and_then(|started| Duration::try_from(now - started).ok()).unwrap_or_default()
}

fn of_task(task: Option<&String>) -> String {
    task.map(|task| format!("task={} ", value(task))).unwrap_or_default()
}

fn log_removed(container: &Container, reason: &str) {
    let (task, name) = (of_task(container.labels.get(TASK_LABEL)), value(&container.name));
    info!("container removed {task}container={name} reason={}", value(reason));
}

fn log_left(container: &Container, error: &Error) {
    let (task, name) = (of_task(container.labels.get(TASK_LABEL)), value(&container.name));
    warn!("container left {task}container={name} error={}", value(&error_chain(error)));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::docker::State;

    const ZERO: &str = "0001-01-01T00:00:00Z";
    const STARTED: &str = "2026-01-02T03:04:05.123456789Z";
    const NAME: &str = "oz-task-t-0123456789ab";

    fn now() -> OffsetDateTime {
        OffsetDateTime::parse("2026-01-02T03:05:05.123456789Z", &Rfc3339).unwrap()
    }

    fn container(name: &str, labels: &[(&str, &str)], status: &str, started_at: &str) -> Container {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (status, started_at) = (status.to_owned(), started_at.to_owned());
        let running = ["running", "paused", "restarting"].contains(&status.as_str());
        Container {
            id: "f".repeat(64),
            name: name.to_owned(),
            labels,
            state: State { status, running, started_at, ..State::default() },
            volumes: Vec::new(),
        }
    }

    #[test]
    fn a_container_is_what_its_labels_name_and_state_say() {
        let minute = Duration::from_secs(60);
        let task = |ended_for| Kind::Task { ran: minute, ended_for };
        let ours = [(WORKER_LABEL, "w"), (TASK_LABEL, "t")];
        let helper = [(WORKER_LABEL, "w")];
        let stopped = format!("{NAME}.graceful_shutdown");
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, Kind<'a>);
        let cases: [Case<'_>; 18] = [
            (NAME, &ours, "running", STARTED, task(None)),
            (NAME, &ours, "paused", STARTED, task(None)),
            (NAME, &ours, "restarting", STARTED, task(None)),
            (NAME, &ours, "exited", STARTED, task(None)),
            (&stopped, &ours, "running", STARTED, task(Some(CancelReason::Shutdown))),
            (&stopped, &ours, "exited", STARTED, task(Some(CancelReason::Shutdown))),
            (NAME, &ours, "created", ZERO, Kind::Unstarted),
            (NAME, &ours, "initialized", ZERO, Kind::Unstarted),
            (NAME, &ours, "exited", ZERO, Kind::Unstarted),
            (NAME, &ours, "dead", STARTED, Kind::Removed),
            (NAME, &ours, "removing", STARTED, Kind::Removed),
            ("oz-kept-t-0123456789ab-ffffffffffff", &ours, "exited", STARTED, Kind::Kept),
            ("oz-fill-v", &helper, "created", ZERO, Kind::Helper(HelperKind::Filler { volume: "v" })),
            ("oz-fill-v-source", &helper, "created", ZERO, Kind::Helper(HelperKind::Source)),
            ("mine", &helper, "running", STARTED, Kind::Other),
            (NAME, &[(WORKER_LABEL, "W"), (TASK_LABEL, "t")], "exited", STARTED, Kind::Other),
            (NAME, &[(TASK_LABEL, "t")], "exited", STARTED, Kind::Other),
            ("oz-fill-v", &[(WORKER_LABEL, "other")], "created", ZERO, Kind::Other),
        ];
        for (name, labels, status, started_at, expected) in cases {
            let container = container(name, labels, status, started_at);
            assert_eq!(kind(&container, "w", now()), expected, "{name} {labels:?} {status}");
        }
    }

    #[test]
    fn a_second_look_is_for_what_another_process_has_made_and_not_started() {
        let label = |process| [(WORKER_LABEL, "w"), (TASK_LABEL, "t"), (PROCESS_LABEL, process)];
        let (before, ours) = (label("before"), label("now"));
        let helper = [before[0], before[2]];
        let foreign = [(WORKER_LABEL, "other"), (PROCESS_LABEL, "before")];
        let kept = "oz-kept-t-0123456789ab-ffffffffffff";
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, bool);
        let cases: [Case<'_>; 14] = [
            (NAME, &before, "created", ZERO, true),
            (NAME, &before, "configured", ZERO, true),
            (NAME, &before, "exited", ZERO, true),
            ("oz-fill-v", &helper, "created", ZERO, true),
            ("oz-fill-v-source", &helper, "created", ZERO, true),
            (NAME, &before, "running", STARTED, false),
            (NAME, &before, "exited", STARTED, false),
            (NAME, &before, "removing", ZERO, false),
            (NAME, &before[..2], "created", ZERO, false),
            (NAME, &ours, "created", ZERO, false),
            (kept, &before, "created", ZERO, false),
            ("mine", &helper, "created", ZERO, false),
            ("oz-fill-v", &helper, "running", STARTED, false),
            ("oz-fill-v", &foreign, "created", ZERO, false),
        ];
        for (name, labels, status, started_at, expected) in cases {
            let container = container(name, labels, status, started_at);
            assert_eq!(is_late(&container, "w", "now", now()), expected, "{name} {labels:?} {status}");
        }
    }

    #[test]
    fn the_time_since_the_start_is_never_negative_and_needs_no_clock_of_the_engine() {
        let cases = [
            (STARTED, Duration::from_secs(60)),
            ("2026-01-02T03:05:05Z", Duration::from_nanos(123_456_789)),
            ("2026-01-02T04:05:04.123456789+01:00", Duration::from_secs(1)),
            ("2026-01-02T03:05:06Z", Duration::ZERO),
            ("yesterday", Duration::ZERO),
            ("", Duration::ZERO),
        ];
        for (started_at, expected) in cases {
            assert_eq!(ran(started_at, now()), expected, "{started_at}");
        }
    }

    /// An engine that writes its times in another way must not cost a task its report.
    #[test]
    fn only_the_zero_of_the_engines_clock_means_never() {
        assert!(never(ZERO) && never("0001-01-01T00:00:00.000000000Z") && never(""));
        assert!(!never(STARTED) && !never("yesterday"));
    }
}
