//! Sidecar volumes: the file system of a sidecar image, unpacked once for each image and shared by all tasks.
//!
//! A marker file, written last, says that a volume is complete. A container name, taken while a volume is populated, keeps two
//! workers from populating it at once.
//!
//! Images are not mounted directly (`Mounts: [{Type: image}]`, API 1.48), for these reasons, measured on engine 28.5: it is no
//! faster than a filled volume. `docker image prune` can still remove the image. With the containerd store, each restart of the
//! engine leaves a snapshot behind. Podman's implementation is incomplete.

pub(in crate::task) mod half_filled;
mod helper;
pub(in crate::task) mod marker;
pub(in crate::task) mod populator;
pub(in crate::task) mod reservation;
mod versions;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use log::{debug, info, warn};

pub(super) use self::helper::HelperSpec;
use self::populator::VolumePopulator;
use self::reservation::{Reservation, Reservations};
use self::versions::{PREFIX, superseded};
use crate::docker::Error;
use crate::logging::{error_chain, value};
use crate::metrics::Steps;
use crate::protocol::FailureReason;
use crate::task::engine::TaskEngine;
use crate::task::labels::WORKER_LABEL;
use crate::task::outcome::Failure;
use crate::task::plan::TaskSettings;
use crate::task::single_flight::{Cancelled, SingleFlight};

/// The two places of the agent's script, in the order in which they are tried.
const ENTRYPOINTS: [&str; 2] = ["/agent/entrypoint.sh", "/agent/agent/entrypoint.sh"];

/// How often something is made again that was removed before it was used.
pub(in crate::task) const ATTEMPTS: usize = 10;

/// How often a volume is filled whose helper containers are removed meanwhile. The pauses between take a second and a half.
const FILL_ATTEMPTS: usize = 5;

/// A volume that holds all files of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::task) struct PopulatedVolume {
    /// The volume's name.
    pub(in crate::task) volume: String,
    /// The agent's script; `None` if there is none.
    pub(in crate::task) script: Option<Script>,
}

/// The agent's script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::task) struct Script {
    /// Its path in a container that mounts its volume at `/agent`.
    pub(in crate::task) path: &'static str,
    /// Whether Linux executes it: it is executable, and says by what or is a program. Its interpreter may be missing.
    pub(in crate::task) is_executable: bool,
}

/// The script of an image that has the agent itself. Nothing is known about it before the start.
pub(in crate::task) const IMAGE_SCRIPT: Script = Script { path: ENTRYPOINTS[0], is_executable: true };

/// The intended contents of a volume.
pub(in crate::task) struct Population<'a> {
    /// The volume's name; it is created if it does not exist.
    pub(in crate::task) volume: &'a str,
    /// The image, as `sha256:…`.
    pub(in crate::task) image_id: &'a str,
    /// The image's name, for messages and for finding its older versions.
    pub(in crate::task) image: &'a str,
    /// The volume's labels.
    pub(in crate::task) labels: &'a BTreeMap<String, String>,
}

/// The sidecar volumes of one engine.
pub(in crate::task) struct Sidecars {
    worker_id: String,
    process_id: String,
    /// How many versions of one image are kept.
    keep: usize,
    steps: Arc<Steps>,
    populations: SingleFlight<Result<PopulatedVolume, Failure>>,
    /// Volumes that this process has seen complete. Others may remove them, so each task container is checked for the markers
    /// before its start.
    complete: Mutex<HashMap<String, PopulatedVolume>>,
    reservations: Reservations,
}

impl Sidecars {
    /// `keep` is how many versions of one image are kept, at least 1.
    pub(in crate::task) fn new(settings: &TaskSettings, keep: usize, steps: Arc<Steps>) -> Self {
        Self {
            worker_id: settings.worker_id.clone(),
            process_id: settings.process_id.clone(),
            keep,
            steps,
            populations: SingleFlight::default(),
            complete: Mutex::default(),
            reservations: Reservations::default(),
        }
    }

    /// Returns the populated volume that all tasks share for this image (`sha256:…`). This process does not remove it while
    /// the reservation lives.
    ///
    /// # Errors
    /// `sidecar_prep`, `docker_unreachable` or cancelled.
    pub(in crate::task) fn shared(
        &self,
        engine: &TaskEngine<'_>,
        image_id: &str,
        image: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(PopulatedVolume, Reservation<'_>), Failure> {
        let volume = shared_volume(image_id);
        // Reserved before `complete` is read, so that the volume is not removed in between.
        let reservation = self.reservations.reserve(&volume);
        if let Some(populated) = self.lock().get(&volume) {
            return Ok((populated.clone(), reservation));
        }
        let population = Population { volume: &volume, image_id, image, labels };
        let work = || match self.populate(engine, &population) {
            Err(Failure::Cancelled) => None,
            result => Some(result),
        };
        match self.populations.run(&volume, &engine.cancel, work) {
            Ok(result) => {
                let populated = result?;
                self.lock().insert(volume, populated.clone());
                Ok((populated, reservation))
            }
            Err(Cancelled) => Err(Failure::Cancelled),
        }
    }

    /// As [`Sidecars::shared`], but only if this process has seen the volume complete. Calls nothing.
    pub(in crate::task) fn known(&self, image_id: &str) -> Option<(PopulatedVolume, Reservation<'_>)> {
        let volume = shared_volume(image_id);
        let reservation = self.reservations.reserve(&volume);
        let populated = self.lock().get(&volume).cloned()?;
        Some((populated, reservation))
    }

    /// Forgets that a volume is complete.
    pub(in crate::task) fn forget(&self, volume: &str) {
        self.lock().remove(volume);
    }

    /// Creates and populates a volume, unless it is complete already.
    ///
    /// # Errors
    /// As [`Sidecars::shared`].
    pub(in crate::task) fn populate(
        &self,
        engine: &TaskEngine<'_>,
        population: &Population<'_>,
    ) -> Result<PopulatedVolume, Failure> {
        let is_filling = Cell::new(false);
        let mut attempts = 0;
        // A helper container, which was never started, is removed by `docker container prune`.
        let retryable = |error: &Error| {
            attempts += 1;
            error.is_not_found() && attempts < FILL_ATTEMPTS && !image_is_gone(engine, population.image_id)
        };
        // All steps are repeated after an outage; the marker tells whether there is still something to do.
        let populated =
            engine.call_retrying(retryable, |_, _| self.try_populate(engine, population, &is_filling));
        if populated.is_err() && is_filling.get() {
            remove_half_filled(engine, population.volume);
        }
        populated.map_err(|error| {
            let step = format!("sidecar image {}", population.image);
            Failure::engine(FailureReason::SidecarPrep, &step, &error)
        })
    }

    /// `is_filling` is set while the volume has a part of the files.
    fn try_populate(
        &self,
        engine: &TaskEngine<'_>,
        population: &Population<'_>,
        is_filling: &Cell<bool>,
    ) -> Result<PopulatedVolume, Error> {
        let Population { volume, image_id, image, labels } = *population;
        // Not left to the mount, because not every engine labels a volume that a mount creates.
        engine.docker.volume_create(&engine.cancel, volume, labels)?;
        let spec = HelperSpec { engine, worker_id: &self.worker_id, process_id: &self.process_id, image_id };
        let populator = VolumePopulator::create(spec, population)?;
        if !populator.is_complete()? {
            let start = Instant::now();
            let key = engine.key;
            let image = value(image);
            info!("sidecar volume filling {key} image={image} volume={volume}");
            is_filling.set(true);
            populator.populate()?;
            is_filling.set(false);
            let took = start.elapsed();
            self.steps.sidecars.observe(took);
            let took = took.as_millis();
            info!("sidecar volume ready {key} image={image} volume={volume} took_ms={took}");
            self.prune(engine, volume, population.image);
        } else if !populator.is_marked_by_name()? {
            populator.mark()?;
        }
        Ok(PopulatedVolume { volume: volume.to_owned(), script: populator.script()? })
    }

    /// Removes the volumes of older versions of the image, except `current` and reserved ones. Failures are only logged: they do
    /// not concern the task.
    pub(in crate::task) fn prune(&self, engine: &TaskEngine<'_>, current: &str, image: &str) {
        if !current.starts_with(PREFIX) {
            return;
        }
        let key = engine.key;
        let shown = value(image);
        let volumes = match engine.docker.volume_list(&engine.cancel, &[(WORKER_LABEL, &self.worker_id)]) {
            Ok(volumes) => volumes,
            Err(error) => {
                let error = error_chain(&error);
                return warn!("sidecar volumes not pruned {key} error={}", value(&error));
            }
        };
        for volume in superseded(volumes, current, image, self.keep) {
            if !self.reservations.unless_reserved(&volume, || self.forget(&volume)) {
                continue;
            }
            let name = value(&volume);
            match engine.docker.volume_remove(&engine.cancel, &volume) {
                Ok(true) => info!("sidecar volume removed {key} volume={name} image={shown}"),
                Ok(false) => debug!("sidecar volume already removed {key} volume={name}"),
                Err(error) if error.is_conflict() => {
                    debug!("sidecar volume in use {key} volume={name}");
                }
                Err(error) => {
                    let error = error_chain(&error);
                    warn!("sidecar volume left {key} volume={name} error={}", value(&error));
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, PopulatedVolume>> {
        // Nothing that can panic runs under the lock.
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a volume that could not be filled, because its files may be what fills the disk. A volume that another worker has begun to
/// fill is in use.
fn remove_half_filled(engine: &TaskEngine<'_>, volume: &str) {
    let name = value(volume);
    match engine.cleanup(|docker, cancel| docker.volume_remove(cancel, volume)) {
        Ok(true) => info!("sidecar volume removed {} volume={name} reason=\"half filled\"", engine.key),
        Ok(false) => debug!("sidecar volume already removed {} volume={name}", engine.key),
        Err(error) => {
            let error = error_chain(&error);
            warn!("sidecar volume left {} volume={name} error={}", engine.key, value(&error));
        }
    }
}

/// Returns whether the engine no longer has an image (`sha256:…`).
pub(in crate::task) fn image_is_gone(engine: &TaskEngine<'_>, image_id: &str) -> bool {
    engine.docker.image_inspect(&engine.cancel, image_id).is_err_and(|error| error.is_not_found())
}

/// Whether a volume is complete that has a marker with this content. The name of a task's own volume does not tell its image.
pub(in crate::task) fn is_marked(volume: &str, marker: Option<&str>) -> bool {
    marker.is_some_and(|image_id| !volume.starts_with(PREFIX) || shared_volume(image_id) == volume)
}

/// Returns the name of the volume that all tasks share for this image (`sha256:…`).
fn shared_volume(image_id: &str) -> String {
    format!("{PREFIX}{}", short_digest(image_id))
}

/// Returns the first 32 digits of the image's id (`sha256:…`).
fn short_digest(image_id: &str) -> &str {
    let digest = image_id.rsplit(':').next().unwrap_or(image_id);
    digest.get(..32).unwrap_or(digest)
}

/// Returns the agent's script.
///
/// # Errors
/// `sidecar_prep` with the places that were tried.
pub(in crate::task) fn script(populated: &PopulatedVolume, image: &str) -> Result<Script, Failure> {
    populated.script.ok_or_else(|| {
        let [first, second] = ENTRYPOINTS.map(|path| path.strip_prefix("/agent").unwrap_or(path));
        let message = format!(
            "sidecar image {image} has no entrypoint.sh: looked for {first} and {second} in the image"
        );
        Failure::new(FailureReason::SidecarPrep, message)
    })
}

#[cfg(test)]
#[path = "fill_tests.rs"]
mod tests;
