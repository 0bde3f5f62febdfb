//! Prepares everything that a container needs, in parallel: its image and a populated volume for each sidecar.

use super::engine::TaskEngine;
use super::image::Images;
use super::outcome::Failure;
use super::plan::{AGENT_DIR, Plan, SidecarMount};
use super::sidecar::reservation::Reservation;
use super::sidecar::{
    ATTEMPTS, IMAGE_SCRIPT, PopulatedVolume, Population, Script, Sidecars, image_is_gone, script,
};
use crate::docker::{Image, Reference};
use crate::protocol::FailureReason;
use crate::sys::cancel::CancelReason;
use crate::sys::pool::beside;

/// What the container is created from.
pub(super) struct Prepared<'a> {
    /// The id of its image.
    pub(super) image: String,
    /// One for each sidecar of the plan, in its order.
    pub(super) volumes: Vec<PopulatedVolume>,
    /// The agent's script in the task container.
    pub(super) script: Script,
    /// Held until the container mounts the volumes.
    _reservations: Vec<Reservation<'a>>,
}

/// One of the parts that are prepared in parallel.
enum Part<'a> {
    Image,
    Sidecar(usize, &'a SidecarMount),
}

/// A part that is ready.
enum Ready<'a> {
    Image(String),
    Sidecar(PopulatedVolume, Option<Reservation<'a>>),
}

/// Returns what [`prepare`] returned for the last task with these images, if this process knows that of all of them. Calls
/// nothing, so all of it must be checked before the container is started. `None` if the task has volumes of its own.
pub(super) fn expected<'a>(images: &Images, sidecars: &'a Sidecars, plan: &Plan) -> Option<Prepared<'a>> {
    let image = images.known(&plan.image)?;
    let known = |mount: &SidecarMount| {
        let image = images.known(&mount.image).filter(|_| !mount.read_write)?;
        let (populated, reservation) = sidecars.known(&image)?;
        Some(Ready::Sidecar(populated, Some(reservation)))
    };
    let volumes = plan.sidecars.iter().map(known).collect::<Option<Vec<_>>>()?;
    assemble(plan, std::iter::once(Ready::Image(image)).chain(volumes)).ok()
}

/// Prepares all parts. The first failure cancels the others.
///
/// # Errors
/// The failure of the first part that failed, or cancelled.
pub(super) fn prepare<'a>(
    images: &Images,
    sidecars: &'a Sidecars,
    engine: &TaskEngine<'_>,
    plan: &Plan,
) -> Result<Prepared<'a>, Failure> {
    // The calling thread prepares the first part.
    prepare_beside(plan.sidecars.len(), || (), images, sidecars, engine, plan).1
}

/// As [`prepare`], on up to `threads` further threads while the calling thread runs `own`. Also returns the result of `own`.
pub(super) fn prepare_beside<'a, T>(
    threads: usize,
    own: impl FnOnce() -> T,
    images: &Images,
    sidecars: &'a Sidecars,
    engine: &TaskEngine<'_>,
    plan: &Plan,
) -> (T, Result<Prepared<'a>, Failure>) {
    let (token, _linked) = engine.cancel.child();
    let engine = engine.with_cancel(token);
    let mounts = plan.sidecars.iter().enumerate().map(|(index, mount)| Part::Sidecar(index, mount));
    let parts: Vec<Part<'_>> = std::iter::once(Part::Image).chain(mounts).collect();
    let work = |part: Part<'_>| {
        let result = match part {
            Part::Image => image(images, &engine, &plan.image).map(|image| Ready::Image(image.id)),
            Part::Sidecar(index, mount) => volume(images, sidecars, &engine, plan, index, mount),
        };
        result.inspect_err(|_| engine.cancel.cancel(CancelReason::Sibling))
    };
    let defect = || Err(Failure::new(FailureReason::Internal, "the worker failed to prepare the task"));
    let (own, results) = beside(threads, own, parts, work);
    let results = results.into_iter().map(|result| result.unwrap_or_else(defect));
    (own, all_or_cause(results.collect()).and_then(|parts| assemble(plan, parts)))
}

/// Puts the parts together.
fn assemble<'a>(plan: &Plan, parts: impl IntoIterator<Item = Ready<'a>>) -> Result<Prepared<'a>, Failure> {
    let (mut image, mut volumes, mut reservations) = (String::new(), Vec::new(), Vec::new());
    for part in parts {
        match part {
            Ready::Image(id) => image = id,
            Ready::Sidecar(populated, reservation) => {
                volumes.push(populated);
                reservations.extend(reservation);
            }
        }
    }
    let agent = volumes.iter().zip(&plan.sidecars).find(|(_, mount)| mount.mount_path == AGENT_DIR);
    let script = match agent {
        Some((populated, mount)) => script(populated, &mount.image.to_string())?,
        None => IMAGE_SCRIPT,
    };
    Ok(Prepared { image, volumes, script, _reservations: reservations })
}

/// Makes an image available on the engine.
fn image(images: &Images, engine: &TaskEngine<'_>, image: &Reference) -> Result<Image, Failure> {
    let in_step = |failure: Failure| {
        failure.in_step(&engine.cancel, FailureReason::ImagePull, &format!("image {image}"))
    };
    images.ensure(engine, image).map_err(in_step)
}

/// Returns the volume of one sidecar: the one that all tasks share, or the task's own if the task may write to it.
fn volume<'a>(
    images: &Images,
    sidecars: &'a Sidecars,
    engine: &TaskEngine<'_>,
    plan: &Plan,
    index: usize,
    mount: &SidecarMount,
) -> Result<Ready<'a>, Failure> {
    for _ in 1..ATTEMPTS {
        let image = image(images, engine, &mount.image)?;
        match volume_of(sidecars, engine, plan, index, mount, &image) {
            Err(Failure::Failed { .. }) if image_is_gone(engine, &image.id) => {}
            result => return result,
        }
    }
    let image = image(images, engine, &mount.image)?;
    volume_of(sidecars, engine, plan, index, mount, &image)
}

/// As [`volume`], of this image.
fn volume_of<'a>(
    sidecars: &'a Sidecars,
    engine: &TaskEngine<'_>,
    plan: &Plan,
    index: usize,
    mount: &SidecarMount,
    image: &Image,
) -> Result<Ready<'a>, Failure> {
    let name = mount.image.to_string();
    let labels = plan.volume_labels(mount);
    let ready = if mount.read_write {
        let volume = plan.own_volume(index);
        let population = Population { volume: &volume, image_id: &image.id, image: &name, labels: &labels };
        sidecars.populate(engine, &population).map(|populated| Ready::Sidecar(populated, None))
    } else {
        let shared = sidecars.shared(engine, &image.id, &name, &labels);
        shared.map(|(populated, reservation)| Ready::Sidecar(populated, Some(reservation)))
    };
    let step = format!("sidecar image {name}");
    ready.map_err(|failure| failure.in_step(&engine.cancel, FailureReason::SidecarPrep, &step))
}

/// Returns all results, or the failure that cancelled the others.
fn all_or_cause<T>(results: Vec<Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let failures = results.iter().filter_map(|result| result.as_ref().err());
    let cause = failures.min_by_key(|failure| **failure == Failure::Cancelled).cloned();
    match cause {
        Some(cause) => Err(cause),
        None => results.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_preferred_to_what_it_cancelled() {
        let cause = Failure::new(FailureReason::ImagePull, "gone");
        let results = vec![Ok(1), Err(Failure::Cancelled), Err(cause.clone()), Err(Failure::Cancelled)];
        assert_eq!(all_or_cause(results), Err(cause));
        assert_eq!(all_or_cause(vec![Ok(1), Err(Failure::Cancelled)]), Err(Failure::Cancelled));
        assert_eq!(all_or_cause(vec![Ok(1), Ok(2)]), Ok(vec![1, 2]));
    }
}
