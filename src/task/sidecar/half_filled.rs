//! Removes shared volumes that an earlier process did not fill to their end, because their files may be what fills the disk.

use std::collections::BTreeMap;

use log::{debug, info, warn};

use super::populator::VOLUME_DIR;
use super::versions::PREFIX;
use super::{is_marked, marker};
use crate::docker::{CreateContainer, Docker, Error, HostConfig, Mount, VolumeOptions};
use crate::logging::{error_chain, value};
use crate::sys::cancel::CancelToken;
use crate::task::labels::{self, IMAGE_LABEL, PROCESS_LABEL, TASK_LABEL, WORKER_LABEL};
use crate::task::names;

/// Removes the worker's shared volumes without a marker of their image. A volume that is being filled, or that a container
/// mounts, stays; so does one whose image is gone, because nothing can be created to look into it. A failure is logged.
///
/// # Errors
/// When the volumes cannot be listed, or cancelled.
pub(in crate::task) fn remove_half_filled(
    docker: &Docker,
    cancel: &CancelToken,
    worker_id: &str,
    process_id: &str,
) -> Result<(), Error> {
    for volume in docker.volume_list(cancel, &[(WORKER_LABEL, worker_id)])? {
        let own = |label| volume.labels.get(label).map(String::as_str);
        let is_shared = volume.name.starts_with(PREFIX) && own(TASK_LABEL).is_none();
        let Some(image) = own(IMAGE_LABEL).filter(|_| is_shared && own(WORKER_LABEL) == Some(worker_id))
        else {
            continue;
        };
        let labels = labels::of_container(&[(WORKER_LABEL, worker_id), (PROCESS_LABEL, process_id)]);
        let look = Look { docker, cancel, volume: &volume.name };
        let name = value(&volume.name);
        match look.is_complete(image, labels) {
            Ok(true) => {}
            Ok(false) => match docker.volume_remove(cancel, &volume.name) {
                Ok(true) => info!("volume removed volume={name} reason=\"half filled\""),
                Ok(false) => debug!("volume already removed volume={name}"),
                Err(error) if error.is_conflict() => debug!("volume left volume={name} reason=\"in use\""),
                Err(error) => warn!("volume left volume={name} error={}", value(&error_chain(&error))),
            },
            Err(error) if error.is_cancelled() => return Err(error),
            // Another thread or worker fills it, or its image is gone.
            Err(error) => debug!("volume not checked volume={name} error={}", value(&error_chain(&error))),
        }
    }
    Ok(())
}

struct Look<'a> {
    docker: &'a Docker,
    cancel: &'a CancelToken,
    volume: &'a str,
}

impl Look<'_> {
    /// Reads the marker through a container with the populator's name, so that nobody begins to fill the volume meanwhile.
    fn is_complete(&self, image: &str, labels: BTreeMap<String, String>) -> Result<bool, Error> {
        let mount = Mount {
            source: self.volume.to_owned(),
            target: VOLUME_DIR.to_owned(),
            read_only: true,
            volume_options: Some(VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
        };
        let definition = CreateContainer {
            image: image.to_owned(),
            // The engine requires a command even for a container that is never started.
            entrypoint: Some(vec!["/never-started".to_owned()]),
            labels,
            host_config: HostConfig { mounts: vec![mount], ..HostConfig::default() },
            ..CreateContainer::default()
        };
        // Not cancellable: the engine completes a creation without its caller, and the container would be left behind.
        let name = names::populator(self.volume);
        let id = self.docker.container_create(&CancelToken::new(), &name, &definition)?.id;
        let marker = marker::send_get(self.docker, self.cancel, &id, VOLUME_DIR);
        let marker = marker.and_then(marker::PendingMarker::finish);
        // If a task needs the volume, it has removed the container already.
        let is_there = self.docker.container_inspect(self.cancel, &id);
        self.docker.container_remove(&CancelToken::new(), &id)?;
        is_there?;
        Ok(is_marked(self.volume, marker?.as_deref()))
    }
}
