//! The last step of a task: removes or keeps its container and its own volumes once the report is settled.

use std::time::{Duration, Instant};

use log::{info, warn};

use super::container::TaskContainer;
use super::engine::TaskEngine;
use super::names::ContainerRef;
use super::plan::Plan;
use super::run::Tasks;
use crate::docker::Error;
use crate::job::{Leftover, Settlement};
use crate::logging::{error_chain, value};

/// How often the removal of a container is tried on an engine that answers.
const REMOVE_ATTEMPTS: u32 = 6;

/// How long the removal of a container is tried again. One attempt takes at most as long.
const REMOVE_LIMIT: Duration = Duration::from_secs(600);

/// How many earlier executions of one task can be kept with their own volumes.
const MAX_GENERATIONS: u32 = 100;

impl Tasks {
    /// Cleans up after a settled report. A container whose report was not delivered stays for the next process to adopt,
    /// unless it was never started. Returns whether the container is kept for some time.
    pub(super) fn clean_up_on(
        &self,
        engine: &TaskEngine<'_>,
        left: &Leftover,
        settlement: Settlement,
    ) -> bool {
        if let Some(name) = &left.container {
            let container = &ContainerRef { name: name.clone(), id: left.id.clone() };
            if left.started && settlement == Settlement::Undelivered {
                info!("container left for the next start {} {container}", engine.key);
                return false;
            }
            if settlement == Settlement::Delivered && !self.options.cleanup {
                TaskContainer::ended(engine, container.clone()).keep();
                return false;
            }
            let keep = self.options.keep_failed;
            let is_kept =
                settlement == Settlement::Delivered && left.started && left.failed && !keep.is_zero();
            if is_kept && TaskContainer::ended(engine, container.clone()).keep_for(keep) {
                return true;
            }
            remove_container(engine, container);
        }
        for volume in &left.volumes {
            warn_if_left(engine, volume, remove_volume(engine, volume));
        }
        false
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

fn remove_container(engine: &TaskEngine<'_>, container: &ContainerRef) {
    let key = engine.key;
    let (start, mut attempts) = (Instant::now(), 0);
    let retryable = |error: &Error| {
        attempts += 1;
        let error = error_chain(error);
        warn!("container removal failed {key} {container} error={}", value(&error));
        attempts < REMOVE_ATTEMPTS && start.elapsed() < REMOVE_LIMIT
    };
    let remove =
        engine.cleanup_retrying(retryable, |docker, cancel| docker.container_remove(cancel, container.key()));
    match remove {
        Ok(()) => info!("container removed {key} {container}"),
        Err(error) => {
            warn!("container left {key} {container} error={}", value(&error_chain(&error)));
        }
    }
}

fn remove_volume(engine: &TaskEngine<'_>, volume: &str) -> Result<(), Error> {
    engine.cleanup(|docker, cancel| docker.volume_remove(cancel, volume))
}

fn warn_if_left(engine: &TaskEngine<'_>, volume: &str, removed: Result<(), Error>) {
    if let Err(error) = removed {
        let key = engine.key;
        warn!("volume left {key} volume={} error={}", value(volume), value(&error_chain(&error)));
    }
}
