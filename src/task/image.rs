//! Has an image: pulled as the operator wants it, for the engine's platform, one pull at a time for one image.
//!
//! Owns the pull policy, the log of a long pull, and what is said when a registry refuses one. It must not know what the image
//! is for, or where credentials come from.

use std::time::Duration;

use log::{debug, info, warn};

use super::outcome::Failure;
use super::retry::{Retry, never};
use super::single_flight::{Cancelled, SingleFlight};
use crate::docker::{Docker, Error, Image, Login, PullProgress, Reference, RegistryEnv};
use crate::logging::error_chain;
use crate::logging::value;
use crate::policy::PullPolicy;
use crate::protocol::FailureReason;
use crate::sys::cancel::CancelToken;

/// How often a pull that takes long says how far it is.
const PROGRESS: Duration = Duration::from_secs(10);

/// The images of one engine.
pub(super) struct Images {
    docker: Docker,
    policy: PullPolicy,
    registries: RegistryEnv,
    pulls: SingleFlight<Result<Image, Failure>>,
}

impl Images {
    pub(super) fn new(docker: Docker, policy: PullPolicy, registries: RegistryEnv) -> Self {
        Self { docker, policy, registries, pulls: SingleFlight::default() }
    }

    /// The image, which is there when this returns. A task that needs one which another task is pulling waits for that pull
    /// and shares its result.
    ///
    /// # Errors
    /// `image_pull` or `docker_unreachable`, naming the image; or the token was cancelled.
    pub(super) fn have(
        &self,
        cancel: &CancelToken,
        image: &Reference,
        retry: &Retry<'_>,
    ) -> Result<Image, Failure> {
        let work = || match self.fetch(cancel, image, retry) {
            Err(Failure::Cancelled) => None,
            result => Some(result),
        };
        match self.pulls.run(&image.canonical(), cancel, work) {
            Ok(result) => result,
            Err(Cancelled) => Err(Failure::Cancelled),
        }
    }

    fn fetch(&self, cancel: &CancelToken, image: &Reference, retry: &Retry<'_>) -> Result<Image, Failure> {
        match self.policy {
            PullPolicy::Always => self.pull(cancel, image, retry),
            PullPolicy::Never => self.local(cancel, image, retry)?.ok_or_else(|| {
                failed(
                    image,
                    &format!("is not on this engine for {}, and the pull policy is never", self.platform()),
                )
            }),
            PullPolicy::Missing => match self.local(cancel, image, retry)? {
                Some(local) => Ok(local),
                None => self.pull(cancel, image, retry),
            },
            PullPolicy::Auto => match self.pull(cancel, image, retry) {
                Err(Failure::Failed { reason: FailureReason::ImagePull, message }) => {
                    self.fall_back(cancel, image, retry, message)
                }
                result => result,
            },
        }
    }

    /// A pull that fails is no harm when the image is there all the same, as one that was built on this host is.
    fn fall_back(
        &self,
        cancel: &CancelToken,
        image: &Reference,
        retry: &Retry<'_>,
        message: String,
    ) -> Result<Image, Failure> {
        let Some(local) = self.local(cancel, image, retry)? else {
            return Err(Failure::new(FailureReason::ImagePull, message));
        };
        let (task, name, error) = (value(retry.task_id), image.to_string(), value(&message));
        warn!("pull failed, local image used task={task} image={} error={error}", value(&name));
        Ok(local)
    }

    /// The image as it is on the engine, when it is there and for the engine's platform.
    fn local(
        &self,
        cancel: &CancelToken,
        image: &Reference,
        retry: &Retry<'_>,
    ) -> Result<Option<Image>, Failure> {
        match retry.call(cancel, never, || self.docker.image_inspect(cancel, &image.to_string())) {
            Ok(local) => Ok(Some(local).filter(|local| self.runs_here(local))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(engine_failure(image, &error)),
        }
    }

    fn pull(&self, cancel: &CancelToken, image: &Reference, retry: &Retry<'_>) -> Result<Image, Failure> {
        let name = image.to_string();
        let (task, name) = (value(retry.task_id), value(&name));
        let mut report = |progress: &PullProgress| {
            let PullProgress { layers, layers_done, bytes, bytes_total } = progress;
            info!(
                "pulling task={task} image={name} layers_done={layers_done} layers={layers} bytes={bytes} \
                 bytes_total={bytes_total}"
            );
        };
        let login = self.login(cancel, image, retry.task_id)?;
        info!("pull started task={task} image={name}");
        let platform = self.platform();
        let auth = login.auth.as_ref();
        let pull = || self.docker.image_pull(cancel, image, Some(&platform), auth, PROGRESS, &mut report);
        retry.call(cancel, never, pull).map_err(|error| pull_failure(image, &login, &error))?;
        info!("pull done task={task} image={name}");
        self.pulled(cancel, image, retry)
    }

    /// What goes wrong with credentials is told and goes no further: the image may be one that needs none.
    fn login(&self, cancel: &CancelToken, image: &Reference, task_id: &str) -> Result<Login, Failure> {
        let host = image.domain();
        let login = self.registries.login(cancel, host).map_err(|error| engine_failure(image, &error))?;
        let (task, registry) = (value(task_id), value(host));
        if let Some(warning) = &login.warning {
            warn!("registry credentials not usable task={task} registry={registry} error={}", value(warning));
        }
        let found = login.auth.is_some();
        debug!(
            "registry credentials task={task} registry={registry} found={found} origin={}",
            value(&login.origin)
        );
        Ok(login)
    }

    /// The engine may deliver an image of another platform than the one asked for.
    fn pulled(&self, cancel: &CancelToken, image: &Reference, retry: &Retry<'_>) -> Result<Image, Failure> {
        let pulled = retry.call(cancel, never, || self.docker.image_inspect(cancel, &image.to_string()));
        let pulled = pulled.map_err(|error| engine_failure(image, &error))?;
        if self.runs_here(&pulled) {
            return Ok(pulled);
        }
        let Image { os, architecture, .. } = &pulled;
        Err(failed(image, &format!("is for {os}/{architecture}, and this engine runs {}", self.platform())))
    }

    fn platform(&self) -> String {
        let engine = self.docker.engine();
        format!("{}/{}", engine.os, engine.arch)
    }

    fn runs_here(&self, image: &Image) -> bool {
        let engine = self.docker.engine();
        image.os == engine.os && image.architecture == engine.arch
    }
}

fn failed(image: &Reference, what: &str) -> Failure {
    Failure::new(FailureReason::ImagePull, format!("image {image} {what}"))
}

/// A registry that refuses says little; who it was and with what credentials is ours to add.
fn pull_failure(image: &Reference, login: &Login, error: &Error) -> Failure {
    if !error.is_access_denied() {
        return engine_failure(image, error);
    }
    failed(image, &format!("cannot be had: {}; {}", error_chain(error), login.explain(image.domain())))
}

fn engine_failure(image: &Reference, error: &Error) -> Failure {
    if error.is_cancelled() || error.is_unreachable() {
        return Failure::engine(FailureReason::ImagePull, &format!("image {image}"), error);
    }
    failed(image, &format!("cannot be had: {}", error_chain(error)))
}
