//! Containers that are made only to reach files through them, are never started, and go when they are dropped.
//!
//! Owns their creation and removal. It must not know which files are wanted.

use std::collections::BTreeMap;

use log::warn;

use crate::docker::{CreateContainer, Docker, Error, HostConfig, Mount};
use crate::logging::error_chain;
use crate::logging::value;
use crate::sys::cancel::CancelToken;
use crate::task::plan::{PROCESS_LABEL, WORKER_LABEL};
use crate::task::retry::{Retry, never};

/// Makes helpers of one image.
#[derive(Clone, Copy)]
pub(in crate::task) struct HelperSpec<'a> {
    pub(in crate::task) docker: &'a Docker,
    pub(in crate::task) worker_id: &'a str,
    pub(in crate::task) process_id: &'a str,
    /// As `sha256:…`.
    pub(in crate::task) image_id: &'a str,
    /// For the removal: whoever makes a helper has waited for the engine before.
    pub(in crate::task) retry: &'a Retry<'a>,
}

/// A container that was never started and is removed when this is dropped.
pub(in crate::task) struct Helper<'a> {
    maker: HelperSpec<'a>,
    name: String,
    id: String,
}

impl<'a> HelperSpec<'a> {
    /// Makes one, with these mounts. Not cancellable: an engine that has begun to make a container goes on when its caller
    /// leaves, and then nobody would remove it.
    ///
    /// # Errors
    /// A conflict when the name is taken.
    pub(in crate::task) fn create(self, name: &str, mounts: Vec<Mount>) -> Result<Helper<'a>, Error> {
        let labels = [(WORKER_LABEL, self.worker_id), (PROCESS_LABEL, self.process_id)];
        let create = CreateContainer {
            image: self.image_id.to_owned(),
            // The engine wants a command even for what never runs.
            entrypoint: Some(vec!["/never-started".to_owned()]),
            labels: BTreeMap::from(labels.map(|(name, id)| (name.to_owned(), id.to_owned()))),
            host_config: HostConfig { mounts, ..HostConfig::default() },
            ..CreateContainer::default()
        };
        match self.docker.container_create(&CancelToken::new(), name, &create) {
            Ok(created) => Ok(Helper { maker: self, name: name.to_owned(), id: created.id }),
            Err(error) => {
                if error.is_ambiguous() {
                    self.remove(name);
                }
                Err(error)
            }
        }
    }

    /// As [`HelperSpec::create`] without mounts, for a name that only the caller can hold by now: whoever has it is a
    /// left-over and is removed.
    ///
    /// # Errors
    /// Those of the engine.
    pub(in crate::task) fn create_anew(self, name: &str) -> Result<Helper<'a>, Error> {
        match self.create(name, Vec::new()) {
            Err(error) if error.is_conflict() => {
                self.docker.container_remove(&CancelToken::new(), name)?;
                self.create(name, Vec::new())
            }
            result => result,
        }
    }

    fn remove(self, container: &str) {
        let remove = || self.docker.container_remove(&CancelToken::new(), container);
        if let Err(error) = self.retry.cleanup(never, remove) {
            let (task, container) = (value(self.retry.task_id), value(container));
            warn!(
                "helper container left task={task} container={container} error={}",
                value(&error_chain(&error))
            );
        }
    }
}

impl Helper<'_> {
    pub(in crate::task) fn id(&self) -> &str {
        &self.id
    }

    pub(in crate::task) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Helper<'_> {
    /// Under a token of its own: the work that needed the helper may have been cancelled.
    fn drop(&mut self) {
        self.maker.remove(&self.id);
    }
}
