//! The task container: create, start, wait for its exit, stop.

use std::cell::Cell;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::cleanup::Cleanup;
use super::definition::definition;
use super::early::digest;
use super::engine::TaskEngine;
use super::labels::{self, PROCESS_LABEL, TASK_LABEL, WORKER_LABEL};
use super::names::{self, ContainerRef, Owned};
use super::outcome::{Failure, exit_code};
use super::output::collect::find_before_start;
use super::output::file::{FoundFile, OUTPUT_FILE};
use super::plan::{Plan, SidecarMount};
use super::prepare::Prepared;
use super::processes::Processes;
use super::sidecar::{PopulatedVolume, marker};
use super::wait;
use crate::docker::{ContainerSummary, Docker, Error, PendingStat, State, Wait};
use crate::logging::{error_chain, value};
use crate::protocol::FailureReason;
use crate::sys::cancel::{CancelReason, CancelToken};

/// How long to wait for `OOMKilled`, which the engine sets shortly after the exit.
const OOM_WAIT: Duration = Duration::from_secs(1);

/// The pause between two checks of `OOMKilled`.
const OOM_PAUSE: Duration = Duration::from_millis(100);

/// The exit code of a process that got KILL, which the kernel sends when memory is short.
const KILLED: i64 = 137;

/// How a container exited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ContainerExit {
    pub(super) code: u8,
    /// The kernel killed it because it exceeded its memory limit.
    pub(super) out_of_memory: bool,
    /// It was found, not waited for: the engine or this worker was away when the container ended.
    pub(super) unseen: bool,
}

/// The outcome of [`TaskContainer::stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The container had exited by itself.
    Already(ContainerExit),
    /// The stop ended it. Holds the exit code if the engine reported one.
    Now(Option<u8>),
}

/// A task container on the engine.
#[derive(Clone)]
pub(super) struct TaskContainer<'a> {
    pub(super) engine: &'a TaskEngine<'a>,
    /// Has no id before the creation.
    pub(super) container: ContainerRef,
    /// The output file before the start, which is not the task's. `None` if there is none or that is unknown.
    pub(super) output_before: Option<FoundFile>,
    /// Set if it was looked for that file and there is none: what the container was created from.
    pub(super) no_output: Option<String>,
}

/// What the engine tells about a container that was created and not started.
pub(super) struct Checked {
    /// The id of its image.
    pub(super) image: String,
    /// Whether the execution has no other container.
    pub(super) is_alone: bool,
    /// For each sidecar of the plan, in its order, whether its volume is complete.
    pub(super) complete: Vec<bool>,
    /// It was looked for an output file, and there is none.
    has_no_output: bool,
    /// The output file in it.
    output_before: Option<FoundFile>,
    /// The wait for its exit.
    wait: Wait,
}

impl Checked {
    /// Returns the container as ready to start, and the wait for its exit. `key` says what it was created from.
    pub(super) fn ready(
        self,
        container: TaskContainer<'_>,
        key: Option<String>,
    ) -> (TaskContainer<'_>, Wait) {
        let Self { has_no_output, output_before, wait, .. } = self;
        let no_output = key.filter(|_| has_no_output);
        (TaskContainer { no_output, output_before, ..container }, wait)
    }
}

/// The outcome of [`TaskContainer::start`].
pub(super) enum Started {
    /// It runs; with the wait for its exit, unless the engine has forgotten that in a restart.
    Running(Option<Wait>),
    /// Somebody has removed it, and it was never started.
    Vanished,
}

/// The result of one attempt to start a container.
enum StartAttempt {
    /// It runs, or it is gone.
    Done(Started),
    /// The engine failed to start it. That is final: it may have run for a moment.
    Refused(Error),
}

impl<'a> TaskContainer<'a> {
    /// Returns the container that is to be created with this name.
    pub(super) fn uncreated(engine: &'a TaskEngine<'a>, name: &str) -> Self {
        let container = ContainerRef { name: name.to_owned(), id: None };
        Self { engine, container, output_before: None, no_output: None }
    }

    /// Removes containers that this worker created earlier for the same execution, under any name, except kept ones.
    ///
    /// # Errors
    /// `container_create` if a container that this worker did not create has the name.
    pub(super) fn clear(&self, plan: &Plan) -> Result<(), Failure> {
        let cleared = self.engine.call(|docker, cancel| self.try_clear(docker, cancel, plan));
        if cleared.map_err(|error| self.failed(FailureReason::ContainerCreate, &error))? {
            return Ok(());
        }
        let name = &self.container.name;
        let message =
            format!("container name {name} is in use by a container that this worker did not create");
        Err(Failure::new(FailureReason::ContainerCreate, message))
    }

    /// Returns `false` if a container that this worker did not create has the name.
    fn try_clear(&self, docker: &Docker, cancel: &CancelToken, plan: &Plan) -> Result<bool, Error> {
        for container in
            leftovers(docker.container_list(cancel, &task_labels(plan))?, plan, self.engine.processes)
        {
            if docker.container_remove(cancel, container.key())? {
                warn!("leftover container removed {} {container}", self.engine.key);
            }
        }
        match docker.container_inspect(cancel, &self.container.name) {
            Err(error) if error.is_not_found() => Ok(true),
            found => found.map(|_| false),
        }
    }

    /// Creates the container and records it in `cleanup`: by its id, or by its name while it is uncertain whether it exists.
    /// After a lost answer the container is removed and created again.
    ///
    /// # Errors
    /// `container_create`, `docker_unreachable` or cancelled.
    pub(super) fn create(
        &self,
        plan: &Plan,
        prepared: &Prepared<'_>,
        cleanup: &mut Cleanup,
    ) -> Result<TaskContainer<'a>, Failure> {
        let definition = definition(plan, prepared);
        let answer_lost = Cell::new(false);
        // The engine may still be creating the container of the lost answer.
        let retryable = |error: &Error| answer_lost.get() && error.is_conflict();
        let created = self.engine.call_retrying(retryable, |docker, cancel| {
            if answer_lost.get() && !self.try_clear(docker, cancel, plan)? {
                cleanup.container = None;
                answer_lost.set(false);
            }
            // Not cancellable: the engine completes a creation without its caller, and the container would be left behind.
            let created = docker.container_create(&CancelToken::new(), &self.container.name, &definition);
            if created.as_ref().is_err_and(Error::is_ambiguous) {
                answer_lost.set(true);
                cleanup.container = Some(self.container.clone());
            }
            created
        });
        let created = created.map_err(|error| self.failed(FailureReason::ContainerCreate, &error))?;
        let container = ContainerRef { name: self.container.name.clone(), id: Some(created.id) };
        let key = self.engine.key;
        for warning in &created.warnings {
            warn!("container warning {key} {container} reason={}", value(warning));
        }
        info!("container created {key} {container}");
        cleanup.container = Some(container.clone());
        Ok(TaskContainer { engine: self.engine, container, output_before: None, no_output: None })
    }

    /// Checks the created container, and takes up the wait for its exit. All calls are sent before the first is answered. From
    /// its creation on the container protects its volumes from removal, so what this finds stays true. Returns `None` if the
    /// container is gone. Inspects it only if the list does not show the image that it was made of. Looks for the output file only if
    /// told to `look`.
    ///
    /// # Errors
    /// `container_create`, `docker_unreachable` or cancelled.
    pub(super) fn check(
        &self,
        plan: &Plan,
        made_of: &Prepared<'_>,
        look: bool,
    ) -> Result<Option<Checked>, Failure> {
        let id = self.container.key();
        let checked = self.engine.call(|docker, cancel| {
            let stat = |(sidecar, populated): (&SidecarMount, &PopulatedVolume)| {
                marker::send_stat(docker, cancel, id, &sidecar.mount_path, &populated.volume)
            };
            let markers =
                plan.sidecars.iter().zip(&made_of.volumes).map(stat).collect::<Result<Vec<_>, _>>()?;
            let output = look.then(|| docker.send_archive_stat(cancel, id, OUTPUT_FILE)).transpose()?;
            let list = docker.send_list(cancel, &task_labels(plan))?;
            let mut wait = docker.container_wait(cancel, id)?;
            let listed = list.finish()?;
            let image = if is_listed_with(&listed, id, &made_of.image) {
                made_of.image.clone()
            } else {
                docker.container_inspect(cancel, id)?.image
            };
            let left = leftovers(listed, plan, self.engine.processes);
            let is_alone = left.iter().all(|found| found.key() == id);
            let output = output.map(PendingStat::finish);
            let has_no_output = matches!(output, Some(Ok(None)));
            let output_before = output.and_then(|first| find_before_start(self.engine, id, first));
            let is_marked = |marker: PendingStat| marker.finish().map(|stat| stat.is_some());
            let complete = markers.into_iter().map(is_marked).collect::<Result<_, _>>()?;
            wait::begin(&mut wait)?;
            Ok(Some(Checked { image, is_alone, has_no_output, output_before, complete, wait }))
        });
        let checked = match checked {
            // Removed meanwhile.
            Err(error) if error.is_not_found() => Ok(None),
            checked => checked,
        };
        if matches!(checked, Ok(None)) {
            self.warn_vanished();
        }
        checked.map_err(|error| self.failed(FailureReason::ContainerCreate, &error))
    }

    /// Starts the container and sets `started` once it runs or may run. The returned wait was taken up before the start, so it
    /// cannot miss the exit. Retried, with a new wait, only if the engine reports that the container was never started.
    ///
    /// # Errors
    /// `container_start`, `docker_unreachable` or cancelled; the container may be running nevertheless.
    pub(super) fn start(&self, wait: Wait, started: &mut bool) -> Result<Started, Failure> {
        let id = self.container.key();
        let attempted = Cell::new(false);
        let mut first = Some(wait);
        let attempt = self.engine.call(|docker, cancel| {
            let wait = first.take().map_or_else(|| wait::take_up(docker, cancel, id), Ok)?;
            // While the engine is still starting it, this inspect blocks until the outcome is known.
            if attempted.get() && docker.container_inspect(cancel, id)?.state.status != "created" {
                return Ok(StartAttempt::Done(Started::Running(None)));
            }
            attempted.set(true);
            // Not cancellable, for the same reason as the creation.
            let result = docker.container_start(&CancelToken::new(), id);
            *started |= result.as_ref().err().is_none_or(Error::is_ambiguous);
            match result {
                Ok(()) => Ok(StartAttempt::Done(Started::Running(Some(wait)))),
                // The engine also answers 404 for a program that is missing.
                Err(error) if error.is_not_found() && !*started && is_gone(docker, cancel, id) => {
                    Ok(StartAttempt::Done(Started::Vanished))
                }
                Err(error @ Error::Engine { .. }) if !error.was_not_executed() => {
                    Ok(StartAttempt::Refused(error))
                }
                Err(error) => Err(error),
            }
        });
        match attempt {
            Ok(StartAttempt::Done(Started::Vanished)) => {
                self.warn_vanished();
                Ok(Started::Vanished)
            }
            Ok(StartAttempt::Done(running)) => {
                info!("container started {} {}", self.engine.key, self.container);
                Ok(running)
            }
            Ok(StartAttempt::Refused(error)) | Err(error) => {
                Err(self.failed(FailureReason::ContainerStart, &error))
            }
        }
    }

    /// Waits for the exit, without a time limit. Without a `wait`, or when it is interrupted, a new one is taken up.
    ///
    /// # Errors
    /// `container_wait`, `docker_unreachable` or cancelled.
    pub(super) fn wait_exit(&self, mut wait: Option<Wait>) -> Result<ContainerExit, Failure> {
        loop {
            match wait.map(|wait| wait::join(self.engine, self.container.key(), wait)) {
                Some(Ok(Some(0))) => return Ok(ContainerExit { code: 0, ..ContainerExit::default() }),
                Some(Ok(_)) => return self.exit(&self.engine.cancel, false),
                Some(Err(error)) if error.is_cancelled() => return Err(Failure::Cancelled),
                Some(Err(error)) => self.warn("container wait interrupted", &error),
                None => {}
            }
            wait = self.resume_wait()?;
            if wait.is_none() {
                return self.exit(&self.engine.cancel, true);
            }
        }
    }

    /// Returns a new wait, or `None` if the container has exited. The state is read after the wait was taken up, so that an
    /// exit in between is not missed.
    fn resume_wait(&self) -> Result<Option<Wait>, Failure> {
        let id = self.container.key();
        let retryable =
            |error: &Error| !(error.is_cancelled() || error.is_not_found() || error.is_exhausted());
        let resumed = self.engine.call_running(retryable, |docker, cancel| {
            let wait = wait::take_up(docker, cancel, id)?;
            let state = docker.container_inspect(cancel, id)?.state;
            Ok(Some(wait).filter(|_| state.running || state.status == "paused"))
        });
        resumed.map_err(|error| self.failed(FailureReason::ContainerWait, &error))
    }

    /// Returns how the container exited. Inspects it, because the wait does not tell whether memory caused a failure. `cancel`
    /// ends the wait for `OOMKilled`, and the calls.
    fn exit(&self, cancel: &CancelToken, unseen: bool) -> Result<ContainerExit, Failure> {
        let engine = self.engine.with_cancel(cancel.clone());
        let mut give_up = None;
        loop {
            // Retried, because a restarting engine ends its containers first: the exit comes before the outage.
            let state = engine.call_running(|_| false, |docker, cancel| self.state(docker, cancel));
            let state = state.map_err(|error| self.failed(FailureReason::ContainerWait, &error))?;
            let give_up = *give_up.get_or_insert_with(|| Instant::now() + OOM_WAIT);
            let settled = state.oom_killed || state.exit_code != KILLED || Instant::now() >= give_up;
            if settled || !cancel.sleep(OOM_PAUSE) {
                let out_of_memory = state.oom_killed && state.exit_code != 0;
                return Ok(ContainerExit { code: exit_code(state.exit_code), out_of_memory, unseen });
            }
        }
    }

    /// Stops the container with TERM, and KILL after `grace`. Renames it for `reason` first, so that a later process can report
    /// the reason if this one does not.
    pub(super) fn stop(&self, reason: Option<CancelReason>, grace: Duration) -> Stopped {
        if self.cleanup_state().is_ok_and(|state| state.status == "exited")
            && let Ok(exit) = self.exit(&CancelToken::new(), false)
        {
            return Stopped::Already(exit);
        }
        if let Some(name) = reason.and_then(|reason| names::stopped(&self.container.name, reason))
            && let Err(error) = self.rename(&name)
        {
            // Docker 26 and newer with `"bridge": "none"` cannot rename a running container.
            let (key, container, error) = (self.engine.key, &self.container, error_chain(&error));
            let note = "the task goes on if the worker crashes before its end";
            warn!("container rename failed {key} {container} note=\"{note}\" error={}", value(&error));
        }
        Stopped::Now(self.end(grace))
    }

    /// As [`TaskContainer::stop`], without the rename. Returns the exit code, or `None` if the engine did not report one.
    pub(super) fn end(&self, grace: Duration) -> Option<u8> {
        if let Ok(state) = self.cleanup_state()
            && state.status == "exited"
        {
            return Some(exit_code(state.exit_code));
        }
        info!("container stopping {} {} grace_s={}", self.engine.key, self.container, grace.as_secs());
        let id = self.container.key();
        if let Err(error) = self.engine.cleanup(|docker, cancel| docker.container_stop(cancel, id, grace)) {
            self.warn("container stop failed", &error);
        }
        let state = self.cleanup_state().ok().filter(|state| !state.running);
        state.map(|state| exit_code(state.exit_code))
    }

    /// A container that has ended.
    pub(super) fn ended(engine: &'a TaskEngine<'a>, container: ContainerRef) -> Self {
        Self { engine, container, output_before: None, no_output: None }
    }

    /// Renames the container as one that is kept until a person removes it, so that it is not adopted and its name is free.
    pub(super) fn keep(&self) {
        match self.keep_as(names::kept(&self.container.name, self.container.key())) {
            Ok(kept) => info!("container kept {} {kept}", self.engine.key),
            Err(error) => self.warn("container kept, rename failed", &error),
        }
    }

    /// As [`TaskContainer::keep`], for some time. Returns `false` if it still runs, or the engine does not rename it.
    pub(super) fn keep_for(&self, time: Duration) -> bool {
        if !self.cleanup_state().is_ok_and(|state| state.status == "exited") {
            return false;
        }
        match self.keep_as(names::failed(&self.container.name, self.container.key())) {
            Ok(kept) => info!("container kept {} {kept} keep_s={}", self.engine.key, time.as_secs()),
            Err(error) => {
                self.warn("container not kept, rename failed", &error);
                return false;
            }
        }
        true
    }

    fn keep_as(&self, name: String) -> Result<ContainerRef, Error> {
        self.rename(&name)?;
        Ok(ContainerRef { name, id: self.container.id.clone() })
    }

    fn rename(&self, name: &str) -> Result<(), Error> {
        let id = self.container.key();
        self.engine.cleanup(|docker, cancel| docker.container_rename(cancel, id, name))
    }

    fn cleanup_state(&self) -> Result<State, Error> {
        self.engine.cleanup(|docker, cancel| self.state(docker, cancel))
    }

    fn state(&self, docker: &Docker, cancel: &CancelToken) -> Result<State, Error> {
        Ok(docker.container_inspect(cancel, self.container.key())?.state)
    }

    fn warn_vanished(&self) {
        warn!("container vanished {} {}", self.engine.key, self.container);
    }

    fn warn(&self, event: &str, error: &Error) {
        let key = self.engine.key;
        warn!("{event} {key} {} error={}", self.container, value(&error_chain(error)));
    }

    fn failed(&self, reason: FailureReason, error: &Error) -> Failure {
        Failure::engine(reason, &format!("container {}", self.container.name), error)
    }
}

/// Returns the labels that all containers of a task of this worker have.
fn task_labels(plan: &Plan) -> [(&'static str, &str); 2] {
    [WORKER_LABEL, TASK_LABEL].map(|name| (name, plan.labels.get(name).map_or("", String::as_str)))
}

/// Returns those of the listed containers that this process or an earlier one of this worker created for the execution, with
/// their names. Kept ones are left out.
fn leftovers(listed: Vec<ContainerSummary>, plan: &Plan, processes: &Processes) -> Vec<ContainerRef> {
    let worker_id = labels::get(&plan.labels, WORKER_LABEL).unwrap_or_default();
    let leftover = |found: ContainerSummary| {
        let is_own = |name: &&str| {
            let owned = names::owned(worker_id, &found.labels, name);
            matches!(owned, Some(Owned::Task { key, .. }) if key == plan.key)
        };
        let name = found.names().find(is_own)?.to_owned();
        processes.owns(labels::get(&found.labels, PROCESS_LABEL)).then_some(())?;
        Some(ContainerRef { name, id: Some(found.id) })
    };
    listed.into_iter().filter_map(leftover).collect()
}

/// Whether a container is listed as one of the image with this id.
fn is_listed_with(listed: &[ContainerSummary], id: &str, image: &str) -> bool {
    listed.iter().any(|found| found.id == id && digest(&found.image) == digest(image))
}

fn is_gone(docker: &Docker, cancel: &CancelToken, id: &str) -> bool {
    docker.container_inspect(cancel, id).is_err_and(|error| error.is_not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_entry_in_a_list_shows_the_image_of_a_container() {
        let cases = [
            (r#"{"Id":"c","ImageID":"sha256:1"}"#, true),
            (r#"{"Id":"c","ImageID":"1"}"#, true),
            (r#"{"Id":"c","ImageID":"sha256:2"}"#, false),
            (r#"{"Id":"other","ImageID":"sha256:1"}"#, false),
            (r#"{"Id":"c","ImageID":null}"#, false),
            (r#"{"Id":"c"}"#, false),
        ];
        for (json, expected) in cases {
            let listed: [ContainerSummary; 1] = [serde_json::from_str(json).unwrap()];
            assert_eq!(is_listed_with(&listed, "c", "sha256:1"), expected, "{json}");
        }
        assert!(!is_listed_with(&[], "c", "sha256:1"));
    }
}
