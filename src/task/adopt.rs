//! Containers and volumes left by earlier processes of this worker: adopts tasks that are not reported yet, removes the rest.
//!
//! [`find`] runs once before the worker takes tasks. [`late_sweep`] runs once later, while tasks run, for objects that the engine
//! created after [`find`]. Neither touches objects with another worker's label, or of another process that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use log::{debug, info, warn};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::age::EngineTime;
use super::labels::{self, PROCESS_LABEL, REDUCED_LABEL, WORKER_LABEL, dialect_of, execution_of};
use super::names::{ContainerRef, HelperKind, Owned, owned};
use super::processes::Processes;
use super::sidecar::half_filled::remove_half_filled;
use super::sidecar::populator::VOLUME_DIR;
use super::sidecar::{is_marked, marker};
use crate::docker::{Container, ContainerSummary, Docker, Error, Volume};
use crate::job::AdoptedTask;
use crate::logging::{error_chain, value};
use crate::protocol::{Dialect, ExecutionKey};
use crate::sys::cancel::{CancelReason, CancelToken};

/// States of a container that was never started. The last two are Podman's.
const UNSTARTED: [&str; 3] = ["created", "configured", "initialized"];

/// States of a container whose removal was interrupted or is in progress.
const REMOVING: [&str; 2] = ["dead", "removing"];

/// What earlier processes of a worker left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The tasks that are not reported yet.
    pub tasks: Vec<AdoptedTask>,
    /// The executions whose containers were never started.
    pub unstarted: Vec<(ExecutionKey, Dialect)>,
}

/// What to do with a container.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind<'a> {
    /// The task was started and is not reported yet.
    Task(Started),
    /// The task was never started: the control plane assigns it again or fails it.
    Unstarted,
    /// A task container whose removal was not completed.
    Removing,
    /// A helper container.
    Helper(HelperKind<'a>),
    /// Kept for inspection, of a process that runs, or not created by this worker, despite its labels.
    Other,
}

/// A task whose container was started.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Started {
    key: ExecutionKey,
    /// The name with which its container was created.
    created_as: String,
    /// How long ago it was started.
    ran: Duration,
    /// Why the earlier process was stopping it.
    ended_for: Option<CancelReason>,
}

/// One pass over the containers and volumes of a worker.
struct Scan<'a> {
    docker: &'a Docker,
    cancel: &'a CancelToken,
    worker_id: &'a str,
    processes: &'a Processes,
    now: EngineTime,
    /// The volumes that have the worker's label.
    volumes: Vec<Volume>,
    /// The volumes that a remaining container mounts.
    used: BTreeSet<String>,
    /// The executions whose containers were never started.
    unstarted: Vec<(ExecutionKey, Dialect)>,
}

/// Returns the tasks that earlier processes of this worker have not reported or not started. Removes their other objects: containers
/// that were never started, helpers, incomplete volumes, and volumes of tasks without a container. Call it before the worker
/// takes tasks. A removal that fails is logged.
///
/// # Errors
/// When the engine cannot be asked, or cancelled.
pub fn find(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: &str,
    processes: &Processes,
) -> Result<Found, Error> {
    let mut scan = Scan::new(docker, cancel, worker_id, processes)?;
    let mut found = Found::default();
    for summary in docker.container_list(cancel, &[(WORKER_LABEL, worker_id)])? {
        if let Some(container) = scan.inspect(summary)? {
            found.tasks.extend(scan.take(&container));
        }
    }
    scan.sweep_volumes();
    found.unstarted = scan.unstarted;
    if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(found) }
}

/// What a late sweep has done.
#[derive(Debug, PartialEq, Eq)]
pub struct LateSwept {
    /// The executions of the containers that were removed.
    pub unstarted: Vec<(ExecutionKey, Dialect)>,
    /// Whether every removal succeeded.
    pub is_complete: bool,
}

/// Removes containers that the engine has created only after [`find`]: it completes a creation whose caller was killed. They
/// were never started, and their process has ended. Nothing else of them is touched, so this process may create
/// containers at the same time. Of the volumes, a task's own are removed, and shared ones that were not filled to their end.
/// A removal that fails is logged.
///
/// # Errors
/// When the engine cannot be asked, or cancelled.
pub fn late_sweep(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: &str,
    processes: &Processes,
) -> Result<LateSwept, Error> {
    remove_half_filled(docker, cancel, worker_id, processes.own())?;
    let mut all = docker.container_list(cancel, &[(WORKER_LABEL, worker_id)])?;
    all.retain(|summary| is_of_another_process(&summary.labels, processes));
    let mut swept = LateSwept { unstarted: Vec::new(), is_complete: true };
    if all.is_empty() {
        return Ok(swept);
    }
    let mut scan = Scan::new(docker, cancel, worker_id, processes)?;
    for summary in all {
        if let Some(container) = scan.inspect(summary)?
            && is_late(&container, worker_id, processes, scan.now)
        {
            swept.is_complete &= scan.remove_late(&container);
        }
    }
    swept.unstarted = scan.unstarted;
    if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(swept) }
}

impl<'a> Scan<'a> {
    fn new(
        docker: &'a Docker,
        cancel: &'a CancelToken,
        worker_id: &'a str,
        processes: &'a Processes,
    ) -> Result<Self, Error> {
        let mut volumes = docker.volume_list(cancel, &[(WORKER_LABEL, worker_id)])?;
        // Compared again, because engines differ in what matches a filter.
        volumes.retain(|volume| volume.labels.get(WORKER_LABEL).is_some_and(|id| id == worker_id));
        let now = EngineTime::of(docker);
        let (used, unstarted) = (BTreeSet::new(), Vec::new());
        Ok(Self { docker, cancel, worker_id, processes, now, volumes, used, unstarted })
    }

    /// Returns `None` for a container that no longer exists. One that the engine fails to inspect, or is silent about, must
    /// neither keep the worker from starting nor lose its result: the list tells enough of it.
    fn inspect(&self, summary: ContainerSummary) -> Result<Option<Container>, Error> {
        match self.docker.container_inspect_soon(self.cancel, &summary.id) {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error @ (Error::Engine { .. } | Error::Protocol { .. } | Error::Timeout { .. })) => {
                let fields = log_fields(&summary.labels, summary.name(), &summary.id);
                warn!("container unreadable {fields} error={}", value(&error_chain(&error)));
                Ok(Some(summary.into_container()))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the container's kind: `Other` if a process that runs has created it.
    fn kind<'c>(&self, container: &'c Container) -> Kind<'c> {
        let kind = kind(container, self.worker_id, self.now);
        let is_ours = || self.processes.owns(labels::get(&container.labels, PROCESS_LABEL));
        if kind == Kind::Other || is_ours() { kind } else { Kind::Other }
    }

    /// Removes or keeps a container according to its kind. Returns the task if it is not reported yet.
    fn take(&mut self, container: &Container) -> Option<AdoptedTask> {
        match self.kind(container) {
            Kind::Task(started) => return Some(self.adopt(container, started)),
            Kind::Unstarted => return self.remove_unstarted(container),
            Kind::Removing => self.remove(container, "half removed"),
            Kind::Helper(HelperKind::Source | HelperKind::Check) => self.remove(container, "helper"),
            Kind::Helper(HelperKind::Populator { volume }) => self.remove_populator(container, volume),
            Kind::Other => self.used.extend(container.volumes.iter().cloned()),
        }
        None
    }

    fn adopt(&mut self, container: &Container, started: Started) -> AdoptedTask {
        let Started { key, created_as, ran, ended_for } = started;
        let dialect = dialect_of(&container.labels);
        let fields = log_fields(&container.labels, &container.name, &container.id);
        let state = value(&container.state.status);
        info!("container adopted {fields} state={state} dialect={}", dialect.name());
        self.used.extend(container.volumes.iter().cloned());
        let own = |name: &&String| {
            let volume = self.volumes.iter().find(|volume| volume.name == **name);
            volume.is_some_and(|volume| execution_of(&volume.labels).as_ref() == Some(&key))
        };
        let volumes = container.volumes.iter().filter(own).cloned().collect();
        // The time limit applies only while the container runs.
        let ran = Some(ran).filter(|_| container.state.running || container.state.status == "paused");
        let reduced = labels::get(&container.labels, REDUCED_LABEL).map(str::to_owned);
        let container = container.id.clone();
        AdoptedTask { key, dialect, container, created_as, volumes, ran, reduced, ended_for }
    }

    /// Removes the container. If a late request of a killed process has started it in the meantime, returns the task.
    fn remove_unstarted(&mut self, container: &Container) -> Option<AdoptedTask> {
        let error = match self.docker.container_remove_idle(self.cancel, &container.id) {
            Ok(existed) => {
                self.unstarted.extend(with_dialect(&container.labels));
                log_removed(existed, container, "never started");
                return None;
            }
            Err(error) => error,
        };
        if error.is_conflict()
            && let Ok(container) = self.docker.container_inspect(self.cancel, &container.id)
            && let Kind::Task(started) = self.kind(&container)
        {
            return Some(self.adopt(&container, started));
        }
        self.used.extend(container.volumes.iter().cloned());
        self.unstarted.extend(with_dialect(&container.labels));
        log_left(container, &error);
        None
    }

    /// Removes the container unless it was started in the meantime, and then its task's own volumes. If this process has just
    /// populated one of them again for the same task, its check for the marker will notice. Returns whether the container is gone.
    fn remove_late(&mut self, container: &Container) -> bool {
        match self.docker.container_remove_idle(self.cancel, &container.id) {
            Ok(existed) => log_removed(existed, container, "created after its process ended"),
            Err(error) => {
                log_left(container, &error);
                return false;
            }
        }
        self.unstarted.extend(with_dialect(&container.labels));
        let own = |volume: &&Volume| {
            let labels = &volume.labels;
            execution_of(labels).is_some()
                && is_of_earlier_process(labels, self.processes)
                && container.volumes.contains(&volume.name)
        };
        for volume in self.volumes.iter().filter(own) {
            self.remove_volume(&volume.name, "its container was never started");
        }
        true
    }

    fn remove(&self, container: &Container, reason: &str) {
        match self.docker.container_remove(self.cancel, &container.id) {
            Ok(existed) => log_removed(existed, container, reason),
            Err(error) => log_left(container, &error),
        }
    }

    /// Removes a populator, and its volume if that is incomplete and has this worker's label: another worker may be about to
    /// populate its own. The volume is read through the populator before that is removed.
    fn remove_populator(&mut self, container: &Container, volume: &str) {
        let marker = marker::send_get(self.docker, self.cancel, &container.id, VOLUME_DIR);
        let complete = marker.and_then(|marker| Ok(is_marked(volume, marker.finish()?.as_deref())));
        self.remove(container, "helper");
        let ours = self.volumes.iter().any(|other| other.name == volume);
        if ours && matches!(complete, Ok(false)) {
            self.remove_volume(volume, "half filled");
        }
    }

    /// Removes tasks' own volumes that no container mounts any more.
    fn sweep_volumes(&self) {
        let is_own = |volume: &&Volume| {
            execution_of(&volume.labels).is_some()
                && !self.used.contains(&volume.name)
                && self.processes.owns(labels::get(&volume.labels, PROCESS_LABEL))
        };
        for volume in self.volumes.iter().filter(is_own) {
            self.remove_volume(&volume.name, "its task is gone");
        }
    }

    fn remove_volume(&self, volume: &str, reason: &str) {
        let labelled = self.volumes.iter().find(|other| other.name == volume);
        let key = labelled.map(|volume| key_fields(&volume.labels)).unwrap_or_default();
        let name = value(volume);
        match self.docker.volume_remove(self.cancel, volume) {
            Ok(true) => info!("volume removed {key}volume={name} reason={}", value(reason)),
            Ok(false) => debug!("volume already removed {key}volume={name}"),
            Err(error) if error.is_conflict() => info!("volume left {key}volume={name} reason=\"in use\""),
            Err(error) => warn!("volume left {key}volume={name} error={}", value(&error_chain(&error))),
        }
    }
}

fn kind<'a>(container: &'a Container, worker_id: &str, now: EngineTime) -> Kind<'a> {
    let Container { labels, state, .. } = container;
    let status = state.status.as_str();
    let (key, created_as, ended_for) = match owned(worker_id, labels, &container.name) {
        Some(Owned::Task { key, created_as, stopped_for }) => (key, created_as, stopped_for),
        Some(Owned::Helper(kind)) => return Kind::Helper(kind),
        None => return Kind::Other,
    };
    if REMOVING.contains(&status) {
        Kind::Removing
    } else if UNSTARTED.contains(&status) || never(&state.started_at) && !state.running {
        Kind::Unstarted
    } else {
        Kind::Task(Started { key, created_as, ran: now.since(&state.started_at), ended_for })
    }
}

/// Returns the execution that a container belongs to, and its dialect.
fn with_dialect(labels: &BTreeMap<String, String>) -> Option<(ExecutionKey, Dialect)> {
    execution_of(labels).map(|key| (key, dialect_of(labels)))
}

/// Whether another process created it. `false` without a process label.
fn is_of_another_process(labels: &BTreeMap<String, String>, processes: &Processes) -> bool {
    labels::get(labels, PROCESS_LABEL).is_some_and(|id| id != processes.own())
}

/// Whether a process that has ended created it. `false` without a process label.
fn is_of_earlier_process(labels: &BTreeMap<String, String>, processes: &Processes) -> bool {
    is_of_another_process(labels, processes) && processes.owns(labels::get(labels, PROCESS_LABEL))
}

/// Whether a late sweep removes the container.
fn is_late(container: &Container, worker_id: &str, processes: &Processes, now: EngineTime) -> bool {
    let unstarted = match kind(container, worker_id, now) {
        Kind::Unstarted => true,
        Kind::Helper(_) => UNSTARTED.contains(&container.state.status.as_str()),
        Kind::Task(_) | Kind::Removing | Kind::Other => false,
    };
    unstarted && is_of_earlier_process(&container.labels, processes)
}

/// Whether the engine's time stands for "never": empty, or the zero of its clock.
fn never(time: &str) -> bool {
    time.is_empty() || OffsetDateTime::parse(time, &Rfc3339).is_ok_and(|time| time.year() <= 1)
}

/// Returns the execution's keys of a log line and a space, or nothing without a task label.
pub(super) fn key_fields(labels: &BTreeMap<String, String>) -> String {
    execution_of(labels).map(|key| format!("{key} ")).unwrap_or_default()
}

/// Returns the keys of a log line about a container: those of its execution, if it has one, `container=` and `id=`.
fn log_fields(labels: &BTreeMap<String, String>, name: &str, id: &str) -> String {
    let container = ContainerRef { name: name.to_owned(), id: Some(id.to_owned()) };
    format!("{}{container}", key_fields(labels))
}

/// Logs the removal of a container, if it still existed.
pub(super) fn log_removed(existed: bool, container: &Container, reason: &str) {
    let fields = log_fields(&container.labels, &container.name, &container.id);
    if existed {
        info!("container removed {fields} reason={}", value(reason));
    } else {
        debug!("container already removed {fields}");
    }
}

pub(super) fn log_left(container: &Container, error: &Error) {
    let fields = log_fields(&container.labels, &container.name, &container.id);
    warn!("container left {fields} error={}", value(&error_chain(error)));
}

#[cfg(test)]
mod tests {
    use super::super::age::tests::a_minute_later;
    use super::*;
    use crate::docker::State;
    use crate::task::labels::TASK_LABEL;
    use crate::task::names;

    const ZERO: &str = "0001-01-01T00:00:00Z";
    const STARTED: &str = "2026-01-02T03:04:05.123456789Z";

    fn container(name: &str, labels: &[(&str, &str)], status: &str, started_at: &str) -> Container {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let running = ["running", "paused", "restarting"].contains(&status);
        let status = status.to_owned();
        Container {
            id: "f".repeat(64),
            image: String::new(),
            name: name.to_owned(),
            labels,
            state: State { status, running, started_at: started_at.to_owned(), ..State::default() },
            volumes: Vec::new(),
        }
    }

    /// The name of the container of task `t` of worker `w`.
    fn name() -> String {
        names::task("w", &ExecutionKey::new("t", None), None)
    }

    #[test]
    fn the_kind_follows_from_labels_name_and_state() {
        let ran = Duration::from_secs(60);
        let (key, name) = (ExecutionKey::new("t", None), name());
        let task =
            |ended_for| Kind::Task(Started { key: key.clone(), created_as: name.clone(), ran, ended_for });
        let ours = [(WORKER_LABEL, "w"), (TASK_LABEL, "t")];
        let helper = [(WORKER_LABEL, "w")];
        let stopped = format!("{name}.graceful_shutdown");
        let kept = names::kept(&name, &"f".repeat(64));
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, Kind<'a>);
        let cases: [Case<'_>; 20] = [
            (&name, &ours, "running", STARTED, task(None)),
            (&name, &ours, "paused", STARTED, task(None)),
            (&name, &ours, "restarting", STARTED, task(None)),
            (&name, &ours, "exited", STARTED, task(None)),
            (&stopped, &ours, "running", STARTED, task(Some(CancelReason::Shutdown))),
            (&stopped, &ours, "exited", STARTED, task(Some(CancelReason::Shutdown))),
            (&name, &ours, "created", ZERO, Kind::Unstarted),
            (&name, &ours, "initialized", ZERO, Kind::Unstarted),
            (&name, &ours, "exited", ZERO, Kind::Unstarted),
            (&name, &ours, "dead", STARTED, Kind::Removing),
            (&name, &ours, "removing", STARTED, Kind::Removing),
            (&kept, &ours, "exited", STARTED, Kind::Other),
            ("db", &ours, "running", STARTED, Kind::Other),
            ("oz-fill-v", &helper, "created", ZERO, Kind::Helper(HelperKind::Populator { volume: "v" })),
            ("oz-fill-v-source", &helper, "created", ZERO, Kind::Helper(HelperKind::Source)),
            ("oz-check-1", &helper, "exited", ZERO, Kind::Helper(HelperKind::Check)),
            ("mine", &helper, "running", STARTED, Kind::Other),
            (&name, &[(WORKER_LABEL, "W"), (TASK_LABEL, "t")], "exited", STARTED, Kind::Other),
            (&name, &[(TASK_LABEL, "t")], "exited", STARTED, Kind::Other),
            ("oz-fill-v", &[(WORKER_LABEL, "other")], "created", ZERO, Kind::Other),
        ];
        for (name, labels, status, started_at, expected) in cases {
            let container = container(name, labels, status, started_at);
            assert_eq!(kind(&container, "w", a_minute_later()), expected, "{name} {labels:?} {status}");
        }
    }

    #[test]
    fn a_late_sweep_removes_unstarted_containers_of_earlier_processes() {
        let processes = Processes::without_lock("now");
        let label = |process| [(WORKER_LABEL, "w"), (TASK_LABEL, "t"), (PROCESS_LABEL, process)];
        let before = label("before");
        let ours = label("now");
        let helper = [before[0], before[2]];
        let other = [(WORKER_LABEL, "other"), (PROCESS_LABEL, "before")];
        let name = name();
        let kept = names::kept(&name, &"f".repeat(64));
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str, bool);
        let cases: [Case<'_>; 15] = [
            (&name, &before, "created", ZERO, true),
            (&name, &before, "configured", ZERO, true),
            (&name, &before, "exited", ZERO, true),
            ("oz-fill-v", &helper, "created", ZERO, true),
            ("oz-fill-v-source", &helper, "created", ZERO, true),
            (&name, &before, "running", STARTED, false),
            (&name, &before, "exited", STARTED, false),
            (&name, &before, "removing", ZERO, false),
            (&name, &before[..2], "created", ZERO, false),
            (&name, &ours, "created", ZERO, false),
            (&kept, &before, "created", ZERO, false),
            ("db", &before, "created", ZERO, false),
            ("mine", &helper, "created", ZERO, false),
            ("oz-fill-v", &helper, "running", STARTED, false),
            ("oz-fill-v", &other, "created", ZERO, false),
        ];
        for (name, labels, status, started_at, expected) in cases {
            let container = container(name, labels, status, started_at);
            assert_eq!(
                is_late(&container, "w", &processes, a_minute_later()),
                expected,
                "{name} {labels:?} {status}"
            );
        }
    }

    /// A task whose start time cannot be read is still reported.
    #[test]
    fn only_an_empty_time_or_the_zero_of_the_clock_means_never() {
        assert!(never(ZERO) && never("0001-01-01T00:00:00.000000000Z") && never(""));
        assert!(!never(STARTED) && !never("yesterday"));
    }
}
