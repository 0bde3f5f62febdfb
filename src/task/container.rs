//! The task container: made, started, observed to its end, stopped when asked.
//!
//! Owns the calls that concern a running task. It must not know images, volumes' contents or reports.

use std::cell::Cell;
use std::time::{Duration, Instant};

use log::{info, warn};

use super::names;
use super::outcome::{Failure, exit_code};
use super::plan::{Limits, Plan, SidecarMount, TASK_LABEL, WORKER_LABEL, WORKSPACE};
use super::prepare::Prepared;
use super::retry::{Retry, never};
use crate::docker::{
    ContainerSummary, CreateContainer, Docker, Error, HostConfig, Mount, State, VolumeOptions, Wait,
};
use crate::logging::error_chain;
use crate::logging::value;
use crate::protocol::FailureReason;
use crate::secret::Secret;
use crate::sys::cancel::{CancelReason, CancelToken};

/// From TERM to KILL when a task is stopped.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// The engine says that a container was killed for its memory only a moment after its exit; it is asked again for so
/// long when the exit code allows it, after such pauses.
const OOM_PATIENCE: Duration = Duration::from_secs(1);
const OOM_PAUSE: Duration = Duration::from_millis(100);

/// The exit code of a process that got KILL, as the kernel sends it when memory is short.
const KILLED: i64 = 137;

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContainerExit {
    /// 0 to 255.
    pub(super) code: u8,
    /// The kernel killed it for its memory.
    pub(super) out_of_memory: bool,
}

/// A task container on the engine.
#[derive(Clone, Copy)]
pub(super) struct TaskContainer<'a> {
    pub(super) docker: &'a Docker,
    pub(super) task_id: &'a str,
    /// The name it is made under, which it loses when it is ended before its time or kept.
    pub(super) name: &'a str,
    /// What it is called by: its id from its creation on.
    pub(super) id: &'a str,
    pub(super) retry: &'a Retry<'a>,
}

impl TaskContainer<'_> {
    /// Removes what an earlier process of this worker has left of the same task, whatever it is called by now. What is kept
    /// for people is not in the way.
    ///
    /// # Errors
    /// `container_create` when somebody else's container has the name.
    pub(super) fn clear(&self, cancel: &CancelToken, plan: &Plan) -> Result<(), Failure> {
        let cleared = self.retry.call(cancel, never, || self.try_clear(cancel, plan));
        match cleared.map_err(|error| self.failed(FailureReason::ContainerCreate, &error))? {
            true => Ok(()),
            false => {
                let message = format!("container {} belongs to somebody else", self.name);
                Err(Failure::new(FailureReason::ContainerCreate, message))
            }
        }
    }

    /// `false` when somebody else has the name.
    fn try_clear(&self, cancel: &CancelToken, plan: &Plan) -> Result<bool, Error> {
        let label = |name| (name, plan.labels.get(name).map_or("", String::as_str));
        let labels = [label(WORKER_LABEL), label(TASK_LABEL)];
        let all = self.docker.container_list(cancel, &labels)?;
        let ours = |found: &&ContainerSummary| {
            let kept = found.names.iter().any(|name| names::is_kept(name.trim_start_matches('/')));
            !kept && labels.iter().all(|(name, text)| found.labels.get(*name).is_some_and(|own| own == text))
        };
        for found in all.iter().filter(ours) {
            let (task, id) = (value(self.task_id), &found.id);
            warn!("left-over container removed task={task} container={} id={id}", self.name);
            self.docker.container_remove(cancel, id)?;
        }
        match self.docker.container_inspect(cancel, self.name) {
            Err(error) if error.is_not_found() => Ok(true),
            found => found.map(|_| false),
        }
    }

    /// Makes it. Not cancellable: the engine goes on when its caller leaves, and a container that appears after its
    /// removal was asked for would stay for ever. `left` becomes its id as soon as it is there, or its name when it may be; when
    /// somebody else has taken the name meanwhile, it is not ours to remove. One whose answer was lost is removed, if it is
    /// there, and made anew.
    ///
    /// # Errors
    /// `container_create`.
    pub(super) fn create(
        &self,
        cancel: &CancelToken,
        plan: &Plan,
        prepared: &Prepared<'_>,
        left: &mut Option<String>,
    ) -> Result<(), Failure> {
        let (definition, lost) = (definition(plan, prepared), Cell::new(false));
        // An engine that is still there may be about to make the one whose answer was lost.
        let taken = |error: &Error| lost.get() && error.is_conflict();
        let created = self.retry.call(cancel, taken, || {
            if lost.get() && !self.try_clear(cancel, plan)? {
                // So it is not ours to remove either.
                *left = None;
                lost.set(false);
            }
            let created = self.docker.container_create(&CancelToken::new(), self.name, &definition);
            if created.as_ref().is_err_and(Error::is_ambiguous) {
                lost.set(true);
                *left = Some(self.name.to_owned());
            }
            created
        });
        let created = created.map_err(|error| self.failed(FailureReason::ContainerCreate, &error))?;
        *left = Some(created.id.clone());
        for warning in &created.warnings {
            warn!("container created with a warning task={} warning={}", value(self.task_id), value(warning));
        }
        info!("container created task={} container={}", value(self.task_id), self.name);
        Ok(())
    }

    /// Starts it, with the wait for its end already under way: it cannot end unobserved. The start itself is not cancellable,
    /// for the reason that `create` is not. Asked for a second time it is only when the engine says that it never was started;
    /// when the engine has forgotten the wait meanwhile, there is none. `left` becomes true as soon as it runs, or may run.
    ///
    /// # Errors
    /// `container_start`; or the token was cancelled, and if it was started nobody has seen that.
    pub(super) fn start(&self, cancel: &CancelToken, left: &mut bool) -> Result<Option<Wait>, Failure> {
        let lost = Cell::new(false);
        let started = self.retry.call(cancel, never, || {
            let wait = self.docker.container_wait(cancel, self.id)?;
            // An engine that has begun to start it says what became of it only when that is known.
            if lost.get() && self.state(cancel)?.status != "created" {
                return Ok(Ok(None));
            }
            lost.set(true);
            let started = self.docker.container_start(&CancelToken::new(), self.id);
            *left |= started.as_ref().err().is_none_or(Error::is_ambiguous);
            match started {
                // Whether it runs all the same, this engine cannot know: that is not tried again.
                Err(error @ Error::Engine { .. }) if !error.was_not_executed() => Ok(Err(error)),
                result => result.map(|()| Ok(Some(wait))),
            }
        });
        let started = started.and_then(std::convert::identity);
        let wait = started.map_err(|error| self.failed(FailureReason::ContainerStart, &error))?;
        info!("container started task={} container={}", value(self.task_id), self.name);
        Ok(wait)
    }

    /// Waits for its end, however long that takes. A wait that is cut, or that there is none of, is taken up again as long as
    /// the engine can be asked.
    ///
    /// # Errors
    /// `container_wait` or `docker_unreachable` when the engine stays away; or the token was cancelled.
    pub(super) fn observe(
        &self,
        cancel: &CancelToken,
        mut wait: Option<Wait>,
    ) -> Result<ContainerExit, Failure> {
        loop {
            match wait.map(Wait::join) {
                Some(Ok(_)) => return self.exit(cancel),
                Some(Err(error)) if error.is_cancelled() => return Err(Failure::Cancelled),
                Some(Err(cut)) => {
                    warn!("wait cut task={} error={}", value(self.task_id), value(&error_chain(&cut)));
                }
                None => {}
            }
            wait = self.resume(cancel)?;
            if wait.is_none() {
                return self.exit(cancel);
            }
        }
    }

    /// A new wait, or `None` when the container has ended. The wait comes before the look, so that no exit falls
    /// between the two.
    fn resume(&self, cancel: &CancelToken) -> Result<Option<Wait>, Failure> {
        let again = |error: &Error| !error.is_cancelled() && !error.is_not_found();
        let resumed = self.retry.call(cancel, again, || {
            let wait = self.docker.container_wait(cancel, self.id)?;
            let state = self.state(cancel)?;
            Ok(Some(wait).filter(|_| state.running || state.status == "paused"))
        });
        resumed.map_err(|error| self.failed(FailureReason::ContainerWait, &error))
    }

    /// How it ended, asked of the engine, since only that tells whether memory was the cause.
    fn exit(&self, cancel: &CancelToken) -> Result<ContainerExit, Failure> {
        let mut state = self.patient_state(cancel)?;
        let give_up = Instant::now() + OOM_PATIENCE;
        loop {
            let settled = state.oom_killed || state.exit_code != KILLED || Instant::now() >= give_up;
            if settled || !cancel.sleep(OOM_PAUSE) {
                let out_of_memory = state.oom_killed && state.exit_code != 0;
                return Ok(ContainerExit { code: exit_code(state.exit_code), out_of_memory });
            }
            state = self.patient_state(cancel)?;
        }
    }

    /// The state, asked for again while the engine is away: one that is being restarted ends its containers first, so
    /// that the exit comes before the silence.
    fn patient_state(&self, cancel: &CancelToken) -> Result<State, Failure> {
        let state = self.retry.call(cancel, never, || self.state(cancel));
        state.map_err(|error| self.failed(FailureReason::ContainerWait, &error))
    }

    /// Ends it: TERM, and KILL after the grace time. It first gets a name that says why, for a process that finds it when
    /// this one does not live to report it. `Ok` says that it had ended by itself before.
    ///
    /// # Errors
    /// With the exit code, when it was ended by this call and the engine could tell the code.
    pub(super) fn stop(&self, reason: Option<CancelReason>) -> Result<ContainerExit, Option<u8>> {
        let cancel = CancelToken::new();
        if self.state_at_the_end().is_ok_and(|state| state.status == "exited")
            && let Ok(exit) = self.exit(&cancel)
        {
            return Ok(exit);
        }
        if let Some(name) = reason.and_then(|reason| names::ended(self.name, reason))
            && let Err(error) =
                self.retry.cleanup(never, || self.docker.container_rename(&cancel, self.id, &name))
        {
            warn!("rename failed task={} error={}", value(self.task_id), value(&error_chain(&error)));
        }
        Err(self.end())
    }

    /// As [`TaskContainer::stop`], for one that has its name already; gives the exit code if the engine can tell it.
    pub(super) fn end(&self) -> Option<u8> {
        if let Ok(state) = self.state_at_the_end()
            && state.status == "exited"
        {
            return Some(exit_code(state.exit_code));
        }
        let grace = STOP_GRACE.as_secs();
        info!("container stopping task={} container={} grace_s={grace}", value(self.task_id), self.name);
        let stop = || self.docker.container_stop(&CancelToken::new(), self.id, STOP_GRACE);
        if let Err(error) = self.retry.cleanup(never, stop) {
            warn!("stop failed task={} error={}", value(self.task_id), value(&error_chain(&error)));
        }
        let state = self.state_at_the_end().ok().filter(|state| !state.running);
        state.map(|state| exit_code(state.exit_code))
    }

    /// Names it as one that is kept for people, so that it is not found again and its own name is free.
    pub(super) fn keep(&self) {
        let (task, name) = (value(self.task_id), names::kept(self.name, self.id));
        let rename = || self.docker.container_rename(&CancelToken::new(), self.id, &name);
        match self.retry.cleanup(never, rename) {
            Ok(()) => info!("container kept task={task} container={name}"),
            Err(error) => {
                let error = error_chain(&error);
                warn!(
                    "container kept under its name task={task} container={} error={}",
                    self.id,
                    value(&error)
                );
            }
        }
    }

    /// Of one that is to end whatever has become of its token.
    fn state_at_the_end(&self) -> Result<State, Error> {
        self.retry.cleanup(never, || self.state(&CancelToken::new()))
    }

    fn state(&self, cancel: &CancelToken) -> Result<State, Error> {
        Ok(self.docker.container_inspect(cancel, self.id)?.state)
    }

    fn failed(&self, reason: FailureReason, error: &Error) -> Failure {
        Failure::engine(reason, &format!("container {}", self.name), error)
    }
}

fn definition(plan: &Plan, prepared: &Prepared<'_>) -> CreateContainer {
    let mount = |(sidecar, filled): (&SidecarMount, &super::sidecar::PopulatedVolume)| Mount {
        source: filled.volume.clone(),
        target: sidecar.mount_path.clone(),
        read_only: !sidecar.read_write,
        // Labels in case that it was removed meanwhile, so that this mount makes it: that one is seen to be empty and is filled.
        volume_options: Some(VolumeOptions { no_copy: true, labels: plan.volume_labels(sidecar) }),
    };
    let Limits { nano_cpus, memory } = plan.limits;
    let cmd = std::iter::once(Secret::new(prepared.entrypoint)).chain(plan.args.iter().cloned()).collect();
    CreateContainer {
        image: plan.image.to_string(),
        entrypoint: Some(vec!["/bin/sh".to_owned()]),
        cmd,
        env: plan.env.clone(),
        working_dir: Some(WORKSPACE.to_owned()),
        labels: plan.labels.clone(),
        host_config: HostConfig {
            binds: plan.binds.clone(),
            mounts: plan.sidecars.iter().zip(&prepared.volumes).map(mount).collect(),
            nano_cpus,
            memory,
            // Swap beyond the limit would make it none.
            memory_swap: memory,
        },
    }
}
