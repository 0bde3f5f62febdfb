//! Containers that are made only to reach files through them, are never started, and go when they are dropped.
//!
//! Owns their creation and removal. It must not know which files are wanted.

use std::collections::BTreeMap;

use log::warn;

use super::plan::WORKER_LABEL;
use crate::cancel::CancelToken;
use crate::docker::{CreateContainer, Docker, Error, HostConfig, Mount};
use crate::error_chain;
use crate::logging::value;

/// A container that was never started and is removed when this is dropped.
pub(super) struct Helper {
    docker: Docker,
    name: String,
    id: String,
}

impl Helper {
    /// Makes one, with these mounts. Not cancellable: an engine that has begun to make a container goes on when its caller
    /// leaves, and then nobody would remove it.
    ///
    /// # Errors
    /// A conflict when the name is taken.
    pub(super) fn create(
        docker: &Docker,
        name: &str,
        image_id: &str,
        mounts: Vec<Mount>,
        worker_id: &str,
    ) -> Result<Self, Error> {
        let create = CreateContainer {
            image: image_id.to_owned(),
            // The engine wants a command even for what never runs.
            entrypoint: Some(vec!["/never-started".to_owned()]),
            labels: BTreeMap::from([(WORKER_LABEL.to_owned(), worker_id.to_owned())]),
            host_config: HostConfig { mounts, ..HostConfig::default() },
            ..CreateContainer::default()
        };
        match docker.container_create(&CancelToken::new(), name, &create) {
            Ok(created) => Ok(Self { docker: docker.clone(), name: name.to_owned(), id: created.id }),
            Err(error) => {
                if error.is_ambiguous() {
                    remove(docker, name);
                }
                Err(error)
            }
        }
    }

    /// As [`Helper::create`] without mounts, for a name that only the caller can hold by now: whoever has it is a
    /// left-over and is removed.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn create_anew(
        docker: &Docker,
        name: &str,
        image_id: &str,
        worker_id: &str,
    ) -> Result<Self, Error> {
        match Self::create(docker, name, image_id, Vec::new(), worker_id) {
            Err(error) if error.is_conflict() => {
                docker.container_remove(&CancelToken::new(), name)?;
                Self::create(docker, name, image_id, Vec::new(), worker_id)
            }
            result => result,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Helper {
    /// Under a token of its own: the work that needed the helper may have been cancelled.
    fn drop(&mut self) {
        remove(&self.docker, &self.id);
    }
}

fn remove(docker: &Docker, container: &str) {
    if let Err(error) = docker.container_remove(&CancelToken::new(), container) {
        warn!("helper container left container={} error={}", value(container), value(&error_chain(&error)));
    }
}
