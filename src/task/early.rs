//! Creates the container of a warm task beside the checks of its images, which can take longer than the creation.
//!
//! The container is created from what the last task with the same images used. It is not started before all of that was
//! checked: if a pull has brought another image, the container is replaced.

use log::info;

use super::cleanup::Cleanup;
use super::container::{Checked, TaskContainer};
use super::engine::TaskEngine;
use super::no_output;
use super::outcome::Failure;
use super::plan::Plan;
use super::prepare::{Prepared, expected, prepare_beside};
use super::run::Tasks;
use super::sidecar::PopulatedVolume;
use crate::docker::Wait;

/// The outcome of [`Tasks::create_early`].
pub(super) enum Early<'a, 'b> {
    /// The container is ready to start.
    Ready(TaskContainer<'a>, Wait),
    /// There is no container yet; with what it is to be created from, if that is known.
    Later(Option<Prepared<'b>>),
}

impl Tasks {
    /// Creates the container from what is expected, and prepares its parts meanwhile.
    ///
    /// # Errors
    /// As `prepare`. A failed creation is no error, because it may be due to what was expected.
    // Not inlined: a task that waits keeps the stack of its creation.
    #[inline(never)]
    pub(super) fn create_early<'a>(
        &self,
        engine: &'a TaskEngine<'a>,
        uncreated: &TaskContainer<'a>,
        plan: &Plan,
        cleanup: &mut Cleanup,
    ) -> Result<Early<'a, '_>, Failure> {
        let Some(expected) = expected(&self.images, &self.sidecars, plan) else {
            return Ok(Early::Later(None));
        };
        let create = || {
            let container = uncreated.create(plan, &expected, cleanup)?;
            container
                .check(plan, &expected, self.looks_for_output(plan, &expected))
                .map(|checked| (container, checked))
        };
        // Without a registry, one thread checks all images before the container is created.
        let threads = if self.images.asks_registry() { 1 + plan.sidecars.len() } else { 1 };
        let (created, prepared) = prepare_beside(threads, create, &self.images, &self.sidecars, engine, plan);
        let prepared = prepared?;
        let mut complete = true;
        if let Ok((container, checked)) = created {
            let Some(checked) = checked else {
                cleanup.container = None;
                return Ok(Early::Later(Some(prepared)));
            };
            complete = self.are_complete(engine.key, &expected, &checked);
            if complete && checked.is_alone && is_made_of(&expected, &checked, &prepared) {
                let (container, wait) = checked.ready(container, no_output::key(plan, &expected));
                return Ok(Early::Ready(container, wait));
            }
            discard(&container, cleanup);
        }
        let outdated = expected.volumes.clone();
        // Ends the reservations.
        drop(expected);
        self.prune_outdated(engine, plan, &outdated, &prepared);
        // If a volume was incomplete, what was prepared may rely on it.
        Ok(Early::Later(Some(prepared).filter(|_| complete)))
    }

    /// Removes the older versions of each sidecar image that has changed: those that the task had reserved were kept.
    fn prune_outdated(
        &self,
        engine: &TaskEngine<'_>,
        plan: &Plan,
        outdated: &[PopulatedVolume],
        prepared: &Prepared<'_>,
    ) {
        let volumes = outdated.iter().zip(&prepared.volumes);
        for (sidecar, (before, now)) in plan.sidecars.iter().zip(volumes) {
            if before.volume != now.volume {
                self.sidecars.prune(engine, &now.volume, &sidecar.image.to_string());
            }
        }
    }
}

/// Returns whether the container, which was created from `expected`, is as one that is created from `prepared`.
fn is_made_of(expected: &Prepared<'_>, checked: &Checked, prepared: &Prepared<'_>) -> bool {
    // The name of the image may have been given to another one since the last task, so the container's own image counts.
    digest(&checked.image) == digest(&prepared.image) && expected.volumes == prepared.volumes
}

/// Returns an image's id without its algorithm, which some engines leave out.
pub(super) fn digest(id: &str) -> &str {
    id.trim_start_matches("sha256:")
}

/// Removes a container that was created from something else than it should be. If that fails, it is removed as a leftover.
fn discard(container: &TaskContainer<'_>, cleanup: &mut Cleanup) {
    let TaskContainer { engine, container, .. } = container;
    info!("container replaced {} {container}", engine.key);
    let removed = engine.call(|docker, cancel| docker.container_remove(cancel, container.key()));
    if removed.is_ok() {
        cleanup.container = None;
    }
}
