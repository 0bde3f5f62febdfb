//! Gets everything that a container needs, all at the same time: its image and a filled volume for each sidecar.
//!
//! Owns the parallel part of a task. It must not know the container that is made of it.

use super::image::Images;
use super::outcome::Failure;
use super::plan::{Plan, SidecarMount};
use super::retry::Retry;
use super::sidecar::versions::Reservation;
use super::sidecar::{PopulatedVolume, Population, Sidecars, entrypoint};
use crate::protocol::FailureReason;
use crate::sys::cancel::{CancelReason, CancelToken};
use crate::sys::pool::parallel;

/// What the container will be made of.
pub(super) struct Prepared<'a> {
    /// One for each sidecar of the plan, in its order.
    pub(super) volumes: Vec<PopulatedVolume>,
    /// The agent's script in the task container.
    pub(super) entrypoint: &'static str,
    /// Until the container holds them.
    _promises: Vec<Reservation<'a>>,
}

/// One of the parts that are prepared at the same time.
enum Part<'a> {
    Image,
    Sidecar(usize, &'a SidecarMount),
}

/// Prepares all parts. The first that fails ends the others.
///
/// # Errors
/// Of the first part that failed; or the token was cancelled.
pub(super) fn prepare<'a>(
    images: &Images,
    sidecars: &'a Sidecars,
    cancel: &CancelToken,
    plan: &Plan,
    retry: &Retry<'_>,
) -> Result<Prepared<'a>, Failure> {
    let (token, _linked) = cancel.child();
    let mounts = plan.sidecars.iter().enumerate().map(|(index, mount)| Part::Sidecar(index, mount));
    let parts: Vec<Part<'_>> = std::iter::once(Part::Image).chain(mounts).collect();
    let work = |part: Part<'_>| {
        let result = match part {
            Part::Image => images.have(&token, &plan.image, retry).map(|_| None),
            Part::Sidecar(index, mount) => {
                volume(images, sidecars, &token, plan, index, mount, retry).map(Some)
            }
        };
        result.inspect_err(|_| token.cancel(CancelReason::Sibling))
    };
    let defect = || Err(Failure::new(FailureReason::Internal, "a part of the preparation failed"));
    let results = parallel(parts, work).into_iter().map(|result| result.unwrap_or_else(defect));
    let volumes = first_cause(results.collect())?.into_iter().flatten();
    let (volumes, reservations): (Vec<PopulatedVolume>, Vec<_>) = volumes.unzip();
    let agent = volumes.first().zip(plan.sidecars.first());
    let (filled, mount) =
        agent.ok_or_else(|| Failure::new(FailureReason::Internal, "a plan without a sidecar"))?;
    let entrypoint = entrypoint(filled, &mount.image.to_string())?;
    Ok(Prepared { volumes, entrypoint, _promises: reservations.into_iter().flatten().collect() })
}

/// The volume of one sidecar: the shared one of its image, or, to write in, one of the task's own.
fn volume<'a>(
    images: &Images,
    sidecars: &'a Sidecars,
    cancel: &CancelToken,
    plan: &Plan,
    index: usize,
    mount: &SidecarMount,
    retry: &Retry<'_>,
) -> Result<(PopulatedVolume, Option<Reservation<'a>>), Failure> {
    let image = images.have(cancel, &mount.image, retry)?;
    let name = mount.image.to_string();
    let labels = plan.volume_labels(mount);
    if !mount.read_write {
        let shared = sidecars.shared(cancel, &image.id, &name, &labels, retry)?;
        return Ok((shared.0, Some(shared.1)));
    }
    let volume = plan.own_volume(index);
    let filling = Population { volume: &volume, image_id: &image.id, image: &name, retry, labels: &labels };
    sidecars.fill(cancel, &filling).map(|filled| (filled, None))
}

/// All results, or the failure that cancelled the others rather than one of those that it cancelled.
fn first_cause<T>(results: Vec<Result<T, Failure>>) -> Result<Vec<T>, Failure> {
    let cause = results.iter().filter_map(|result| result.as_ref().err());
    let cause = cause.min_by_key(|failure| **failure == Failure::Cancelled).cloned();
    match cause {
        Some(cause) => Err(cause),
        None => results.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_comes_before_what_it_cancelled() {
        let cause = Failure::new(FailureReason::ImagePull, "gone");
        let results = vec![Ok(1), Err(Failure::Cancelled), Err(cause.clone()), Err(Failure::Cancelled)];
        assert_eq!(first_cause(results), Err(cause));
        assert_eq!(first_cause(vec![Ok(1), Err(Failure::Cancelled)]), Err(Failure::Cancelled));
        assert_eq!(first_cause(vec![Ok(1), Ok(2)]), Ok(vec![1, 2]));
    }
}
