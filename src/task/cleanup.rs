//! The last step of a task: what becomes of its container and its own volumes once its report is settled.
//!
//! Owns what is removed, kept and left. It must not know how the task went.

use log::{error, info, warn};

use super::Job;
use super::plan::{Plan, container_name};
use super::retry::{Retry, never};
use super::run::{Cleanup, Tasks};
use crate::docker::Error;
use crate::job::Settlement;
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
    pub(super) fn clean_up(&self, left: &Cleanup, job: &Job, settlement: Settlement, retry: &Retry<'_>) {
        let task_id = job.work.task_id();
        if let Some(id) = &left.container {
            if left.started && settlement == Settlement::Undelivered {
                info!("container left for the next start task={} container={id}", value(task_id));
                return;
            }
            if settlement == Settlement::Delivered && !self.options.cleanup {
                let name = container_name(&self.options.settings.worker_id, task_id);
                return self.container(task_id, &name, id, retry).keep();
            }
            self.remove_container(id, retry);
        }
        for volume in &left.volumes {
            say_left(volume, self.remove_volume(volume, retry), retry);
        }
    }

    /// Names for the task's own volumes that no container holds. One that an earlier process has left may have been written
    /// to by its task, so it is removed; one of a container that is kept cannot be.
    pub(super) fn choose_volumes(&self, plan: &mut Plan, retry: &Retry<'_>) {
        for generation in 0..MAX_GENERATIONS {
            plan.generation = generation;
            let in_use = |volume: &String| match self.remove_volume(volume, retry) {
                Err(error) if error.is_conflict() => true,
                removed => {
                    say_left(volume, removed, retry);
                    false
                }
            };
            if !plan.own_volumes().iter().any(in_use) {
                return;
            }
        }
    }

    /// Tries a few times. An engine that is being restarted comes back; a worker that is stopping does not wait for that.
    fn remove_container(&self, container: &str, retry: &Retry<'_>) {
        let (task, mut left) = (value(retry.task_id), REMOVE_ATTEMPTS);
        let again = |error: &Error| {
            left -= 1;
            let error = error_chain(error);
            warn!("removal failed task={task} container={container} error={}", value(&error));
            left > 0
        };
        let removed = retry.cleanup(again, || self.docker.container_remove(&CancelToken::new(), container));
        match removed {
            Ok(()) => info!("container removed task={task} container={container}"),
            Err(error) => {
                let error = error_chain(&error);
                error!("container left task={task} container={container} error={}", value(&error));
            }
        }
    }

    fn remove_volume(&self, volume: &str, retry: &Retry<'_>) -> Result<(), Error> {
        retry.cleanup(never, || self.docker.volume_remove(&CancelToken::new(), volume))
    }
}

fn say_left(volume: &str, removed: Result<(), Error>, retry: &Retry<'_>) {
    if let Err(error) = removed {
        let (task, error) = (value(retry.task_id), error_chain(&error));
        warn!("volume left task={task} volume={volume} error={}", value(&error));
    }
}
