//! Tries the images of a task for an operator who asks: pulls them, fills a volume, runs `true`, and removes what that made.

use std::collections::BTreeMap;

use super::definition::host_config;
use super::engine::TaskEngine;
use super::labels::{self, IMAGE_LABEL, PROCESS_LABEL, TASK_LABEL, WORKER_LABEL};
use super::limits::limits;
use super::names::{self, is_of_check};
use super::outcome::Failure;
use super::plan::AGENT_DIR;
use super::run::Tasks;
use super::sidecar::{Population, script};
use super::wait;
use crate::docker::{CreateContainer, Error, HostConfig, Image, Mount, Reference, VolumeOptions};
use crate::job::JobId;
use crate::logging::error_chain;
use crate::protocol::{ExecutionKey, InstanceShape};
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;

/// A step of a trial, and what it has shown.
pub(crate) type Tried = (&'static str, Result<String, String>);

impl Tasks {
    /// Tries `image` as that of a task, and `sidecar` as that of its agent. `name` tells it from other trials. Returns the steps up to the
    /// first that failed. Removes what it made, also after a cancel, and what trials of killed processes have left.
    pub(crate) fn try_images(
        &self,
        cancel: &CancelToken,
        name: &str,
        image: Option<&Reference>,
        sidecar: Option<&Reference>,
    ) -> Vec<Tried> {
        let name = names::check(name);
        let key = ExecutionKey::new(name.as_str(), None);
        self.with_engine(JobId(0), &key, cancel, |engine| {
            let mut steps = self.remove_of_killed(engine);
            let trial = Trial { tasks: self, engine, name: &name };
            let failure = trial.run(image, sidecar, &mut steps).err();
            if let Some((step, failure)) = failure {
                steps.push((step, Err(text(failure))));
            }
            if sidecar.is_some()
                && let Err(error) = engine.cleanup(|docker, cancel| docker.volume_remove(cancel, &name))
            {
                steps.push(("clean-up", Err(format!("volume {name} is left: {}", error_chain(&error)))));
            }
            steps
        })
    }

    /// Removes what trials of processes that have ended have made. Returns what is left of them.
    fn remove_of_killed(&self, engine: &TaskEngine<'_>) -> Vec<Tried> {
        let (docker, cancel) = (engine.docker, &engine.cancel);
        let label = [(WORKER_LABEL, self.options.settings.worker_id.as_str())];
        let is_left = |name: &str, labels: &BTreeMap<String, String>| {
            let process = labels::get(labels, PROCESS_LABEL);
            is_of_check(name) && process.is_some() && engine.processes.owns(process)
        };
        let mut steps: Vec<Tried> = Vec::new();
        let mut left = |what: &str, name: &str, error: Error| {
            steps.push(("clean-up", Err(format!("{what} {name} is left: {}", error_chain(&error)))));
        };
        // An engine that does not list them fails the steps to come.
        for container in docker.container_list(cancel, &label).unwrap_or_default() {
            let name = container.name().to_owned();
            if is_left(&name, &container.labels)
                && let Err(error) = docker.container_remove(cancel, &container.id)
            {
                left("container", &name, error);
            }
        }
        for volume in docker.volume_list(cancel, &label).unwrap_or_default() {
            if is_left(&volume.name, &volume.labels)
                && let Err(error) = docker.volume_remove(cancel, &volume.name)
            {
                left("volume", &volume.name, error);
            }
        }
        steps
    }
}

struct Trial<'a> {
    tasks: &'a Tasks,
    engine: &'a TaskEngine<'a>,
    /// Of the volume and of the container.
    name: &'a str,
}

impl Trial<'_> {
    /// # Errors
    /// The step that failed.
    fn run(
        &self,
        image: Option<&Reference>,
        sidecar: Option<&Reference>,
        steps: &mut Vec<Tried>,
    ) -> Result<(), (&'static str, Failure)> {
        let of = |step: &'static str| move |failure: Failure| (step, failure);
        let mut found = None;
        if let Some(image) = image {
            let local = self.ensure(image).map_err(of("image"))?;
            steps.push(("image", Ok(format!("{image} is {}", local.id))));
            found = Some(local);
        }
        if let Some(sidecar) = sidecar {
            let script = self.fill(sidecar).map_err(of("sidecar"))?;
            steps.push(("sidecar", Ok(format!("{sidecar} fills a volume, and has {script}"))));
        }
        if let Some(image) = found {
            self.start(&image, sidecar.is_some()).map_err(of("run"))?;
            let with = if sidecar.is_some() { " with the sidecar" } else { "" };
            steps.push(("run", Ok(format!("a container of the image{with} runs `true`"))));
        }
        Ok(())
    }

    fn ensure(&self, image: &Reference) -> Result<Image, Failure> {
        self.tasks.images.ensure(self.engine, image)
    }

    /// Fills the volume, and returns the path of the agent's script.
    fn fill(&self, sidecar: &Reference) -> Result<&'static str, Failure> {
        let (image, name) = (self.ensure(sidecar)?, sidecar.to_string());
        let settings = &self.tasks.options.settings;
        // As those of a task's own volume: the worker removes it at its start if this process is killed.
        let labels = [
            (WORKER_LABEL, settings.worker_id.as_str()),
            (PROCESS_LABEL, &settings.process_id),
            (TASK_LABEL, self.name),
            (IMAGE_LABEL, &name),
        ];
        let labels: BTreeMap<_, _> =
            labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
        let population = Population { volume: self.name, image_id: &image.id, image: &name, labels: &labels };
        let populated = self.tasks.sidecars.populate(self.engine, &population)?;
        script(&populated, &name).map(|script| script.path)
    }

    /// Runs `true` with the shell that tasks use, the operator's settings for containers, and the sidecar.
    fn start(&self, image: &Image, with_sidecar: bool) -> Result<(), Failure> {
        let settings = &self.tasks.options.settings;
        let options = &settings.container;
        let limits = limits(InstanceShape::default(), options, self.engine.docker.engine().cpus);
        let mount = Mount {
            source: self.name.to_owned(),
            target: AGENT_DIR.to_owned(),
            read_only: true,
            volume_options: Some(VolumeOptions { no_copy: true, ..VolumeOptions::default() }),
        };
        let definition = CreateContainer {
            image: image.id.clone(),
            entrypoint: Some(Vec::new()),
            cmd: ["/bin/sh", "-c", "true"].map(Secret::new).into(),
            labels: labels::of_container(&[
                (WORKER_LABEL, &settings.worker_id),
                (PROCESS_LABEL, &settings.process_id),
            ]),
            user: options.user.clone(),
            host_config: HostConfig {
                binds: settings.volumes.iter().map(ToString::to_string).collect(),
                mounts: with_sidecar.then_some(mount).into_iter().collect(),
                ..host_config(options, &limits)
            },
            ..CreateContainer::default()
        };
        // Not cancellable: the engine completes a creation without its caller.
        let uncancelled = CancelToken::new();
        let docker = self.engine.docker;
        let ran = docker
            .container_create(&uncancelled, self.name, &definition)
            .and_then(|created| wait::run(self.engine, &created.id));
        let removed = self.engine.cleanup(|docker, cancel| docker.container_remove(cancel, self.name));
        match (ran, removed) {
            (Ok(0), Ok(_)) => Ok(()),
            (Ok(0), Err(error)) => Err(failed(&format!("container {} is left", self.name), &error)),
            (Ok(code), _) => Err(internal(format!("`/bin/sh -c true` ended with {code}"))),
            (Err(error), _) => Err(failed("the container does not run", &error)),
        }
    }
}

fn failed(what: &str, error: &Error) -> Failure {
    if error.is_cancelled() {
        Failure::Cancelled
    } else {
        internal(format!("{what}: {}", error_chain(error)))
    }
}

fn internal(message: String) -> Failure {
    Failure::new(crate::protocol::FailureReason::Internal, message)
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Cancelled => "it did not end in time".to_owned(),
        Failure::Failed { message, .. } => message,
    }
}
