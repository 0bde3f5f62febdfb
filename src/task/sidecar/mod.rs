//! A sidecar image as a volume: its whole file system, unpacked once for each content and shared by all tasks.
//!
//! Owns the volumes' names, the filling, the marker that says a volume is complete, and the name that one filler
//! holds on the engine so that no two fill the same volume at once. It must not know the task that mounts it.
//!
//! Nothing of the image is run: a container is made from it, never started, exported, and the stream is put into a second such
//! container that has the volume mounted. That works with images that have neither a shell nor tar.

pub(in crate::task) mod helper;
pub(in crate::task) mod marker;
pub(in crate::task) mod versions;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use self::helper::{Helper, HelperSpec};
use self::versions::{PREFIX, Reservation, Reservations, superseded};
use crate::docker::{Docker, Error, Mount, VolumeOptions};
use crate::logging::error_chain;
use crate::logging::value;
use crate::protocol::FailureReason;
use crate::sys::cancel::CancelToken;
use crate::task::names;
use crate::task::outcome::Failure;
use crate::task::plan::{AGENT_DIR, TaskSettings, WORKER_LABEL};
use crate::task::retry::{Retry, never};
use crate::task::single_flight::{Cancelled, SingleFlight};

/// After so long the name of a filler that another worker holds is taken from it: it has crashed.
const FILLER_PATIENCE: Duration = Duration::from_secs(600);

/// How often to look whether another worker's filler is done.
const FILLER_LOOK: Duration = Duration::from_millis(500);

/// The two places of the agent's script, in the order in which they are looked for.
const ENTRYPOINTS: [&str; 2] = ["/agent/entrypoint.sh", "/agent/agent/entrypoint.sh"];

/// A volume that holds all of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::task) struct PopulatedVolume {
    /// The volume's name.
    pub(in crate::task) volume: String,
    /// The agent's script, as its path is when the volume is mounted at [`AGENT_DIR`]; `None` when there is none.
    pub(in crate::task) entrypoint: Option<&'static str>,
}

/// What is to be in a volume.
pub(in crate::task) struct Population<'a> {
    /// The volume's name; it is made when it does not exist.
    pub(in crate::task) volume: &'a str,
    /// The image, as `sha256:…`.
    pub(in crate::task) image_id: &'a str,
    /// The image's name, for people.
    pub(in crate::task) image: &'a str,
    /// Of the task that needs it.
    pub(in crate::task) retry: &'a Retry<'a>,
    /// Labels of the volume.
    pub(in crate::task) labels: &'a BTreeMap<String, String>,
}

/// The sidecar volumes of one engine.
pub(in crate::task) struct Sidecars {
    docker: Docker,
    worker_id: String,
    process_id: String,
    /// Versions of one image that are kept.
    keep: usize,
    fillings: SingleFlight<Result<PopulatedVolume, Failure>>,
    /// What this process has seen complete. A volume may be removed behind its back, so the marker is looked at again
    /// in every task container before it starts.
    complete: Mutex<HashMap<String, PopulatedVolume>>,
    reservations: Reservations,
}

impl Sidecars {
    pub(in crate::task) fn new(docker: Docker, settings: &TaskSettings, keep: usize) -> Self {
        let (worker_id, process_id) = (settings.worker_id.clone(), settings.process_id.clone());
        let (fillings, complete, reservations) =
            (SingleFlight::default(), Mutex::default(), Reservations::default());
        Self { docker, worker_id, process_id, keep, fillings, complete, reservations }
    }

    /// The volume that all tasks share for the image with this id (`sha256:…`), filled. It stays as long as the reservation lives.
    ///
    /// # Errors
    /// `sidecar_prep` or `docker_unreachable`; or the token was cancelled.
    pub(in crate::task) fn shared(
        &self,
        cancel: &CancelToken,
        image_id: &str,
        image: &str,
        labels: &BTreeMap<String, String>,
        retry: &Retry<'_>,
    ) -> Result<(PopulatedVolume, Reservation<'_>), Failure> {
        let digest = image_id.rsplit(':').next().unwrap_or(image_id);
        let volume = format!("{PREFIX}{}", digest.get(..32).unwrap_or(digest));
        // Before the look at what is complete, so that nothing is removed in between.
        let reservation = self.reservations.make(&volume);
        if let Some(filled) = self.lock().get(&volume) {
            return Ok((filled.clone(), reservation));
        }
        let filling = Population { volume: &volume, image_id, image, retry, labels };
        let work = || match self.fill(cancel, &filling) {
            Err(Failure::Cancelled) => None,
            result => Some(result),
        };
        match self.fillings.run(&volume, cancel, work) {
            Ok(result) => {
                let filled = result?;
                self.lock().insert(volume, filled.clone());
                Ok((filled, reservation))
            }
            Err(Cancelled) => Err(Failure::Cancelled),
        }
    }

    /// Forgets that a volume is complete, because it was seen not to be.
    pub(in crate::task) fn forget(&self, volume: &str) {
        self.lock().remove(volume);
    }

    /// Makes and fills a volume, or finds it complete.
    ///
    /// # Errors
    /// As [`Sidecars::shared`].
    pub(in crate::task) fn fill(
        &self,
        cancel: &CancelToken,
        filling: &Population<'_>,
    ) -> Result<PopulatedVolume, Failure> {
        // Begun anew when the engine was away: the marker says whether there is anything left to do.
        filling.retry.call(cancel, never, || self.try_fill(cancel, filling)).map_err(|error| {
            let step = format!("sidecar image {}", filling.image);
            Failure::engine(FailureReason::SidecarPrep, &step, &error)
        })
    }

    fn try_fill(&self, cancel: &CancelToken, filling: &Population<'_>) -> Result<PopulatedVolume, Error> {
        // By itself and not by the mount: not every engine gives labels to a volume that a mount makes.
        self.docker.volume_create(cancel, filling.volume, filling.labels)?;
        let filler = self.filler(cancel, filling)?;
        if !marker::present(&self.docker, cancel, filler.id(), AGENT_DIR)? {
            let Population { volume, image, retry, .. } = *filling;
            let (start, task, image) = (Instant::now(), value(retry.task_id), value(image));
            info!("sidecar volume filling task={task} image={image} volume={volume}");
            self.copy(cancel, &filler, filling)?;
            let took = start.elapsed().as_millis();
            info!("sidecar volume ready task={task} image={image} volume={volume} took_ms={took}");
            self.prune(cancel, filling);
        }
        let entrypoint = self.entrypoint(cancel, filler.id())?;
        Ok(PopulatedVolume { volume: filling.volume.to_owned(), entrypoint })
    }

    /// A container that has the volume mounted and whose name nobody else can have meanwhile.
    fn filler<'a>(&'a self, cancel: &CancelToken, filling: &Population<'a>) -> Result<Helper<'a>, Error> {
        let name = names::filler(filling.volume);
        let mount = Mount {
            source: filling.volume.to_owned(),
            target: AGENT_DIR.to_owned(),
            read_only: false,
            // An image may have files at this very path, which the engine would copy into an empty volume.
            volume_options: Some(VolumeOptions { no_copy: true, labels: filling.labels.clone() }),
        };
        let mut seen: Option<(String, Instant)> = None;
        while !cancel.is_cancelled() {
            match self.maker(filling).create(&name, vec![mount.clone()]) {
                Err(error) if error.is_conflict() => {
                    self.wait_for_filler(cancel, filling, &name, &mut seen)?;
                }
                result => return result,
            }
        }
        Err(Error::Cancelled)
    }

    /// One step of waiting for the one who has the name. One that an earlier process of this worker has left is
    /// removed at once: within this process no two fill the same volume.
    fn wait_for_filler(
        &self,
        cancel: &CancelToken,
        filling: &Population<'_>,
        name: &str,
        seen: &mut Option<(String, Instant)>,
    ) -> Result<(), Error> {
        let other = match self.docker.container_inspect(cancel, name) {
            Ok(other) => other,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let since = match seen {
            Some((id, since)) if *id == other.id => *since,
            _ => seen.insert((other.id.clone(), Instant::now())).1,
        };
        let ours = other.labels.get(WORKER_LABEL) == Some(&self.worker_id);
        if ours || since.elapsed() > FILLER_PATIENCE {
            warn!("left-over helper removed task={} container={name}", value(filling.retry.task_id));
            return self.docker.container_remove(cancel, &other.id);
        }
        if cancel.sleep(FILLER_LOOK) { Ok(()) } else { Err(Error::Cancelled) }
    }

    /// Streams the image into the volume, and then the marker. What an interrupted filling has left is overwritten
    /// with the same files.
    fn copy(&self, cancel: &CancelToken, filler: &Helper<'_>, filling: &Population<'_>) -> Result<(), Error> {
        let name = names::source(filler.name());
        let source = self.maker(filling).create_anew(&name)?;
        let mut export = self.docker.container_export(cancel, source.id())?;
        self.docker.archive_put(cancel, filler.id(), AGENT_DIR, &mut export)?;
        marker::write(&self.docker, cancel, filler.id(), AGENT_DIR, filling.image_id)
    }

    /// Removes what the new volume has made old. What goes wrong with that is no harm to the task.
    fn prune(&self, cancel: &CancelToken, filling: &Population<'_>) {
        if !filling.volume.starts_with(PREFIX) {
            return;
        }
        let (task, image) = (value(filling.retry.task_id), value(filling.image));
        let volumes = self.docker.volume_list(cancel, &[(WORKER_LABEL, &self.worker_id)]);
        let volumes = volumes.unwrap_or_else(|error| {
            warn!("old sidecar volumes unknown task={task} error={}", value(&error_chain(&error)));
            Vec::new()
        });
        for volume in superseded(volumes, filling.volume, filling.image, self.keep) {
            if !self.reservations.unless_reserved(&volume, || self.forget(&volume)) {
                continue;
            }
            match self.docker.volume_remove(cancel, &volume) {
                Ok(()) => info!("sidecar volume removed task={task} volume={} image={image}", value(&volume)),
                Err(error) if error.is_conflict() => {
                    debug!("sidecar volume in use task={task} volume={}", value(&volume));
                }
                Err(error) => {
                    let error = error_chain(&error);
                    warn!(
                        "sidecar volume left task={task} volume={} error={}",
                        value(&volume),
                        value(&error)
                    );
                }
            }
        }
    }

    fn maker<'a>(&'a self, filling: &Population<'a>) -> HelperSpec<'a> {
        let Population { image_id, retry, .. } = *filling;
        let (worker_id, process_id) = (&self.worker_id, &self.process_id);
        HelperSpec { docker: &self.docker, worker_id, process_id, image_id, retry }
    }

    fn entrypoint(&self, cancel: &CancelToken, filler: &str) -> Result<Option<&'static str>, Error> {
        for path in ENTRYPOINTS {
            let stat = self.docker.archive_stat(cancel, filler, path)?;
            if stat.is_some_and(|stat| !stat.is_dir()) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, PopulatedVolume>> {
        // Nothing that can panic runs under the lock.
        self.complete.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent's script in a volume, or what was looked for.
///
/// # Errors
/// `sidecar_prep`.
pub(in crate::task) fn entrypoint(filled: &PopulatedVolume, image: &str) -> Result<&'static str, Failure> {
    filled.entrypoint.ok_or_else(|| {
        let [first, second] = ENTRYPOINTS;
        let message = format!("sidecar image {image} has no entrypoint.sh: looked for {first} and {second}");
        Failure::new(FailureReason::SidecarPrep, message)
    })
}
