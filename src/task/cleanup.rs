//! The last step of a task: what becomes of its container and its own volumes once its report is settled.
//!
//! Owns what is removed, kept and left. It must not know how the task went.

use log::{error, info, warn};

use super::Job;
use super::plan::{Plan, container_name};
use super::retry::{Patience, never};
use super::run::{Leftovers, Tasks};
use crate::coordinator::Settlement;
use crate::docker::Error;
use crate::logging::error_chain;
use crate::logging::value;
use crate::sys::cancel::CancelToken;

/// How often the removal of a container is tried on an engine that is there.
const REMOVE_ATTEMPTS: u32 = 6;

/// How many earlier executions of one task may be kept with volumes of their own.
const MAX_GENERATIONS: u32 = 100;

impl Tasks {
    /// Under tokens of its own: nothing may keep a container from being removed. One whose report nobody has stays as it
    /// is, for the process that comes next; it would find no use for one that was never started.
    pub(super) fn clean_up(
        &self,
        left: &Leftovers,
        job: &Job,
        settlement: Settlement,
        patience: &Patience<'_>,
    ) {
        let task_id = job.work.task_id();
        if let Some(id) = &left.container {
            if left.started && settlement == Settlement::Undelivered {
                info!("container left for the next start task={} container={id}", value(task_id));
                return;
            }
            if settlement == Settlement::Delivered && !self.options.cleanup {
                let name = container_name(&self.options.settings.worker_id, task_id);
                return self.container(task_id, &name, id, patience).keep();
            }
            self.remove_container(id, patience);
        }
        for volume in &left.volumes {
            say_left(volume, self.remove_volume(volume, patience), patience);
        }
    }

    /// Names for the task's own volumes that no container holds. One that an earlier process has left may have been written
    /// to by its task, so it is removed; one of a container that is kept cannot be.
    pub(super) fn choose_volumes(&self, plan: &mut Plan, patience: &Patience<'_>) {
        for generation in 0..MAX_GENERATIONS {
            plan.generation = generation;
            let in_use = |volume: &String| match self.remove_volume(volume, patience) {
                Err(error) if error.is_conflict() => true,
                removed => {
                    say_left(volume, removed, patience);
                    false
                }
            };
            if !plan.own_volumes().iter().any(in_use) {
                return;
            }
        }
    }

    /// Tries a few times. An engine that is being restarted comes back; a worker that is stopping does not wait for that.
    fn remove_container(&self, container: &str, patience: &Patience<'_>) {
        let (task, mut left) = (value(patience.task_id), REMOVE_ATTEMPTS);
        let again = |error: &Error| {
            left -= 1;
            let error = error_chain(error);
            warn!("removal failed task={task} container={container} error={}", value(&error));
            left > 0
        };
        let removed =
            patience.at_the_end(again, || self.docker.container_remove(&CancelToken::new(), container));
        match removed {
            Ok(()) => info!("container removed task={task} container={container}"),
            Err(error) => {
                let error = error_chain(&error);
                error!("container left task={task} container={container} error={}", value(&error));
            }
        }
    }

    fn remove_volume(&self, volume: &str, patience: &Patience<'_>) -> Result<(), Error> {
        patience.at_the_end(never, || self.docker.volume_remove(&CancelToken::new(), volume))
    }
}

fn say_left(volume: &str, removed: Result<(), Error>, patience: &Patience<'_>) {
    if let Err(error) = removed {
        let (task, error) = (value(patience.task_id), error_chain(&error));
        warn!("volume left task={task} volume={volume} error={}", value(&error));
    }
}
