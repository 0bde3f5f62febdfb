//! Populates a volume from an image without running anything.
//!
//! Two containers are created and never started: one of the image, which is exported, and one that mounts the volume, into which
//! the export is unpacked. So the image needs neither a shell nor tar.

use std::time::{Duration, Instant};

use log::warn;

use super::helper::{Helper, HelperSpec};
use super::{ENTRYPOINTS, Population, marker};
use crate::docker::{Error, Mount, VolumeOptions};
use crate::task::labels::WORKER_LABEL;
use crate::task::names::{self, ContainerRef};
use crate::task::plan::AGENT_DIR;

/// How long to wait for another worker's populator. After that, it is treated as a leftover of a crashed worker.
const POPULATOR_TIMEOUT: Duration = Duration::from_secs(600);

/// How often to check whether another worker's populator is done.
const POPULATOR_PAUSE: Duration = Duration::from_millis(500);

/// A helper container that mounts a volume. Its name acts as a lock: two workers cannot populate the same volume at once.
pub(super) struct VolumePopulator<'a> {
    spec: HelperSpec<'a>,
    population: &'a Population<'a>,
    helper: Helper<'a>,
}

impl<'a> VolumePopulator<'a> {
    /// Waits until no other worker populates the volume, and creates the helper.
    ///
    /// # Errors
    /// An engine error, or [`Error::Cancelled`].
    pub(super) fn create(spec: HelperSpec<'a>, population: &'a Population<'a>) -> Result<Self, Error> {
        let name = names::populator(population.volume);
        let mount = Mount {
            source: population.volume.to_owned(),
            target: AGENT_DIR.to_owned(),
            read_only: false,
            // Without `no_copy` the engine would copy files that the image has at this path into an empty volume.
            volume_options: Some(VolumeOptions { no_copy: true, labels: population.labels.clone() }),
        };
        let mut seen = None;
        while !spec.engine.cancel.is_cancelled() {
            match spec.create(&name, vec![mount.clone()]) {
                Ok(helper) => return Ok(Self { spec, population, helper }),
                Err(error) if error.is_conflict() => wait_for_other(spec, &name, &mut seen)?,
                Err(error) => return Err(error),
            }
        }
        Err(Error::Cancelled)
    }

    /// Returns whether the volume has its marker.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn is_complete(&self) -> Result<bool, Error> {
        let engine = self.spec.engine;
        marker::present(engine.docker, &engine.cancel, self.helper.id(), AGENT_DIR)
    }

    /// Unpacks the image into the volume and writes the marker. Files of an earlier, interrupted attempt are overwritten.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn populate(&self) -> Result<(), Error> {
        let engine = self.spec.engine;
        let source = self.spec.replace(&names::source(self.helper.name()))?;
        let mut export = engine.docker.container_export(&engine.cancel, source.id())?;
        engine.docker.archive_put(&engine.cancel, self.helper.id(), AGENT_DIR, &mut export)?;
        marker::write(engine.docker, &engine.cancel, self.helper.id(), AGENT_DIR, self.population.image_id)
    }

    /// Returns the path of the agent's script, or `None` if the volume has none.
    ///
    /// # Errors
    /// An engine error.
    pub(super) fn entrypoint(&self) -> Result<Option<&'static str>, Error> {
        let engine = self.spec.engine;
        for path in ENTRYPOINTS {
            let stat = engine.docker.archive_stat(&engine.cancel, self.helper.id(), path)?;
            if stat.is_some_and(|stat| !stat.is_dir()) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// Sleeps for [`POPULATOR_PAUSE`] while another worker's container has this name. A leftover is removed instead: a container that
/// has existed for [`POPULATOR_TIMEOUT`], or one with this worker's label, as two threads of one process never populate the same
/// volume. `seen` holds the container's id and when it was first seen.
fn wait_for_other(
    spec: HelperSpec<'_>,
    name: &str,
    seen: &mut Option<(String, Instant)>,
) -> Result<(), Error> {
    let engine = spec.engine;
    let other = match engine.docker.container_inspect(&engine.cancel, name) {
        Ok(other) => other,
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    };
    let since = match seen {
        Some((id, since)) if *id == other.id => *since,
        _ => seen.insert((other.id.clone(), Instant::now())).1,
    };
    let own = other.labels.get(WORKER_LABEL).is_some_and(|id| id == spec.worker_id);
    if own || since.elapsed() > POPULATOR_TIMEOUT {
        let container = ContainerRef { name: name.to_owned(), id: Some(other.id) };
        warn!("leftover helper removed {} {container}", engine.key);
        return engine.docker.container_remove(&engine.cancel, container.key());
    }
    if engine.cancel.sleep(POPULATOR_PAUSE) { Ok(()) } else { Err(Error::Cancelled) }
}
