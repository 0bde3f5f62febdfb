//! Helper containers: created only to reach files through them, never started, removed when dropped.

use log::warn;

use crate::docker::{CreateContainer, Error, HostConfig, Mount};
use crate::logging::{error_chain, value};
use crate::sys::cancel::CancelToken;
use crate::task::cleanup::Cleanup;
use crate::task::engine::TaskEngine;
use crate::task::labels::{self, PROCESS_LABEL, WORKER_LABEL};
use crate::task::names::ContainerRef;

/// Creates helpers of one image.
#[derive(Clone, Copy)]
pub(in crate::task) struct HelperSpec<'a> {
    pub(in crate::task) engine: &'a TaskEngine<'a>,
    pub(in crate::task) worker_id: &'a str,
    pub(in crate::task) process_id: &'a str,
    /// As `sha256:…`.
    pub(in crate::task) image_id: &'a str,
}

/// A helper container, removed when this is dropped.
pub(in crate::task) struct Helper<'a> {
    engine: &'a TaskEngine<'a>,
    container: ContainerRef,
}

impl<'a> HelperSpec<'a> {
    /// Creates a helper with these mounts.
    ///
    /// # Errors
    /// A conflict if the name is taken, or any other error of the engine.
    pub(in crate::task) fn create(self, name: &str, mounts: Vec<Mount>) -> Result<Helper<'a>, Error> {
        let definition = CreateContainer {
            image: self.image_id.to_owned(),
            // The engine requires a command even for a container that is never started.
            entrypoint: Some(vec!["/never-started".to_owned()]),
            labels: labels::of_container(&[(WORKER_LABEL, self.worker_id), (PROCESS_LABEL, self.process_id)]),
            host_config: HostConfig { mounts, ..HostConfig::default() },
            ..CreateContainer::default()
        };
        let mut container = ContainerRef { name: name.to_owned(), id: None };
        // Not cancellable: the engine completes a creation without its caller, and the container would be left behind.
        match self.engine.docker.container_create(&CancelToken::new(), name, &definition) {
            Ok(created) => {
                container.id = Some(created.id);
                Ok(Helper { engine: self.engine, container })
            }
            Err(error) => {
                if error.is_ambiguous() {
                    remove(self.engine, &container);
                }
                Err(error)
            }
        }
    }

    /// Creates a helper without mounts. A container that has the name is removed first: the caller must know that it is a
    /// leftover.
    ///
    /// # Errors
    /// An engine error.
    pub(in crate::task) fn replace(self, name: &str) -> Result<Helper<'a>, Error> {
        match self.create(name, Vec::new()) {
            Err(error) if error.is_conflict() => {
                self.engine.docker.container_remove(&CancelToken::new(), name)?;
                self.create(name, Vec::new())
            }
            result => result,
        }
    }
}

impl Helper<'_> {
    pub(in crate::task) fn id(&self) -> &str {
        self.container.key()
    }

    pub(in crate::task) fn name(&self) -> &str {
        &self.container.name
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        remove(self.engine, &self.container);
    }
}

fn remove(engine: &TaskEngine<'_>, container: &ContainerRef) {
    let removed = engine.cleanup(|docker, cancel| docker.container_remove(cancel, container.key()));
    if let Err(error) = removed {
        let key = engine.key;
        warn!("helper container left {key} {container} error={}", value(&error_chain(&error)));
        let left = Cleanup { container: Some(container.clone()), ..Cleanup::default() };
        (engine.helper_left)(left.into_leftover(key, false));
    }
}
