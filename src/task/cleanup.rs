//! The last step of a task: removes or keeps its container and its own volumes once the report is settled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::container::TaskContainer;
use super::engine::TaskEngine;
use super::names::ContainerRef;
use super::plan::Plan;
use super::run::Tasks;
use crate::docker::Error;
use crate::job::{JobEvent, JobId, Leftover, Removal, Settlement};
use crate::logging::{error_chain, value};
use crate::protocol::ExecutionKey;
use crate::sys::cancel::CancelToken;

/// How often the removal of a container is tried on an engine that answers.
const REMOVE_ATTEMPTS: u32 = 6;

/// How long the removal of a container is tried again. One attempt takes at most as long.
const REMOVE_LIMIT: Duration = Duration::from_secs(600);

/// How many earlier executions of one task can be kept with their own volumes.
const MAX_GENERATIONS: u32 = 100;

/// What a task has created on the engine so far.
#[derive(Default)]
pub(super) struct Cleanup {
    pub(super) container: Option<ContainerRef>,
    /// The container has been started, or may have been.
    pub(super) started: bool,
    pub(super) volumes: Vec<String>,
}

impl Cleanup {
    /// Returns the same for a clean-up that may come later.
    pub(super) fn into_leftover(self, key: &ExecutionKey, failed: bool) -> Leftover {
        let Self { container, started, volumes } = self;
        let (container, id) = container.map(|container| (container.name, container.id)).unzip();
        Leftover {
            key: key.clone(),
            container,
            id: id.flatten(),
            started,
            failed,
            volumes,
            second_look: false,
        }
    }
}

/// What is there after a clean-up.
pub(super) enum Remains {
    /// Nothing.
    Nothing,
    /// A container that the next process is to report and to remove.
    Undelivered,
    /// A container that is kept.
    KeptForGood,
    /// A container that is kept for some time.
    Kept,
    /// What could not be removed. It is to be tried again.
    NotRemoved(Leftover),
    /// Nothing, but the engine may still create this. It is to be looked for again.
    MayCome(Leftover),
}

impl Remains {
    /// Returns what became of the container.
    pub(super) fn removal(&self) -> Removal {
        match self {
            Self::Nothing | Self::MayCome(_) => Removal::Gone,
            Self::NotRemoved(left) if left.container.is_none() => Removal::Gone,
            Self::Kept | Self::KeptForGood => Removal::Kept,
            Self::Undelivered | Self::NotRemoved(_) => Removal::Left,
        }
    }
}

impl Tasks {
    /// Uses a new retry: even if the task failed because the engine was away too long, the clean-up waits the full time.
    pub(super) fn clean_up(&self, job: JobId, left: &Leftover, settlement: Settlement) -> Removal {
        let remains = self.with_engine(job, &left.key, &CancelToken::new(), |engine| {
            self.clean_up_on(engine, left, settlement)
        });
        let removal = remains.removal();
        match remains {
            Remains::Nothing | Remains::Undelivered | Remains::KeptForGood => {}
            Remains::Kept => self.emit(job, JobEvent::Kept),
            Remains::NotRemoved(left) | Remains::MayCome(left) => {
                self.emit(job, JobEvent::NotRemoved { left: Arc::new(left) });
            }
        }
        removal
    }

    /// Cleans up after a settled report. A container whose report was not delivered stays for the next process to adopt,
    /// unless it was never started. Returns what is there afterwards.
    fn clean_up_on(&self, engine: &TaskEngine<'_>, left: &Leftover, settlement: Settlement) -> Remains {
        let mut still_left = Leftover { container: None, id: None, volumes: Vec::new(), ..left.clone() };
        if let Some(name) = &left.container {
            let container = &ContainerRef { name: name.clone(), id: left.id.clone() };
            if left.started && settlement == Settlement::Undelivered {
                info!("container left for the next start {} {container}", engine.key);
                return Remains::Undelivered;
            }
            if settlement == Settlement::Delivered && !self.options.cleanup {
                TaskContainer::ended(engine, container.clone()).keep();
                return Remains::KeptForGood;
            }
            let keep = self.options.keep_failed;
            let is_kept =
                settlement == Settlement::Delivered && left.started && left.failed && !keep.is_zero();
            if is_kept && TaskContainer::ended(engine, container.clone()).keep_for(keep) {
                return Remains::Kept;
            }
            if !remove_container(engine, container) {
                (still_left.container, still_left.id) = (left.container.clone(), left.id.clone());
            }
        }
        for volume in &left.volumes {
            let removed = remove_volume(engine, volume);
            // The container may be all that uses it. Without one, somebody else does.
            let is_ours = still_left.container.is_some() || !removed.as_ref().is_err_and(Error::is_conflict);
            if removed.is_err() && is_ours {
                still_left.volumes.push(volume.clone());
            }
            warn_if_left(engine, volume, removed);
        }
        if still_left.is_empty() {
            let may_come = left.container.is_some() && left.id.is_none() && !left.second_look;
            return if may_come {
                Remains::MayCome(Leftover { second_look: true, ..left.clone() })
            } else {
                Remains::Nothing
            };
        }
        self.steps.cleanup_failed();
        Remains::NotRemoved(still_left)
    }
}

/// Chooses names for the task's own volumes, and removes what exists under them: an earlier execution may have written to it.
/// A name whose volume is in use, by a container that is kept, is skipped.
pub(super) fn choose_volumes(engine: &TaskEngine<'_>, plan: &mut Plan) {
    for generation in 0..MAX_GENERATIONS {
        plan.generation = generation;
        let in_use = |volume: &String| match remove_volume(engine, volume) {
            Err(error) if error.is_conflict() => true,
            removed => {
                warn_if_left(engine, volume, removed);
                false
            }
        };
        if !plan.own_volumes().iter().any(in_use) {
            return;
        }
    }
}

/// What became of a container that was to be removed.
#[derive(Debug, PartialEq, Eq)]
enum Removed {
    /// It is removed.
    Now,
    /// There was none. An earlier request that was not answered may have removed it.
    Absent,
    /// The one that has the name runs, or is removed now: it is another execution's.
    Foreign,
}

/// Returns whether the container is gone.
fn remove_container(engine: &TaskEngine<'_>, container: &ContainerRef) -> bool {
    let key = engine.key;
    match &try_remove(engine, container) {
        Ok(Removed::Now) => info!("container removed {key} {container}"),
        Ok(Removed::Absent) if container.id.is_some() => info!("container already removed {key} {container}"),
        Ok(Removed::Absent) => debug!("container not found {key} {container}"),
        Ok(Removed::Foreign) => {
            info!("container left alone {key} {container} reason=\"another execution has its name\"");
        }
        Err(error) => {
            warn!("container left {key} {container} error={}", value(&error_chain(error)));
            return false;
        }
    }
    true
}

fn try_remove(engine: &TaskEngine<'_>, container: &ContainerRef) -> Result<Removed, Error> {
    let key = engine.key;
    let (start, mut attempts) = (Instant::now(), 0);
    let retryable = |error: &Error| {
        attempts += 1;
        let error = error_chain(error);
        warn!("container removal failed {key} {container} error={}", value(&error));
        attempts < REMOVE_ATTEMPTS && start.elapsed() < REMOVE_LIMIT
    };
    engine.cleanup_retrying(retryable, |docker, cancel| {
        let existed = match &container.id {
            Some(id) => docker.container_remove(cancel, id)?,
            // It was never started.
            None => match docker.container_remove_idle(cancel, &container.name) {
                Err(error) if error.is_conflict() => return Ok(Removed::Foreign),
                existed => existed?,
            },
        };
        Ok(if existed { Removed::Now } else { Removed::Absent })
    })
}

fn remove_volume(engine: &TaskEngine<'_>, volume: &str) -> Result<bool, Error> {
    engine.cleanup(|docker, cancel| docker.volume_remove(cancel, volume))
}

fn warn_if_left(engine: &TaskEngine<'_>, volume: &str, removed: Result<bool, Error>) {
    if let Err(error) = removed {
        let key = engine.key;
        warn!("volume left {key} volume={} error={}", value(volume), value(&error_chain(&error)));
    }
}

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
