//! Makes an image available on the engine: pulls it as the pull policy says, once for all tasks that need it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{debug, info, warn};

use super::engine::TaskEngine;
use super::outcome::Failure;
use super::single_flight::{Cancelled, SingleFlight};
use crate::docker::{Docker, Error, Image, Login, PullProgress, Reference, RegistryEnv};
use crate::logging::{error_chain, value};
use crate::policy::PullPolicy;
use crate::protocol::FailureReason;

/// How often the progress of a pull is logged.
const PROGRESS: Duration = Duration::from_secs(10);

/// The most images that are remembered.
const MAX_KNOWN: usize = 256;

/// The images of one engine.
pub(super) struct Images {
    policy: PullPolicy,
    registries: RegistryEnv,
    pulls: SingleFlight<Result<Image, Failure>>,
    /// The id that each image had for the last task, by its name.
    known: Mutex<HashMap<String, String>>,
}

impl Images {
    pub(super) fn new(policy: PullPolicy, registries: RegistryEnv) -> Self {
        Self { policy, registries, pulls: SingleFlight::default(), known: Mutex::default() }
    }

    /// Returns the image once it is on the engine. A task that needs an image which another task is pulling waits for that
    /// pull and shares its result.
    ///
    /// # Errors
    /// `image_pull`, `docker_unreachable` or cancelled; the message names the image.
    pub(super) fn ensure(&self, engine: &TaskEngine<'_>, image: &Reference) -> Result<Image, Failure> {
        let work = || match self.apply_policy(engine, image) {
            Err(Failure::Cancelled) => None,
            result => Some(result),
        };
        let name = image.canonical();
        let result = match self.pulls.run(&name, &engine.cancel, work) {
            Ok(result) => result,
            Err(Cancelled) => Err(Failure::Cancelled),
        };
        self.remember(name, &result);
        result
    }

    /// Returns the id that the image had for the last task of this process, unless that task could not use it. Calls nothing.
    pub(super) fn known(&self, image: &Reference) -> Option<String> {
        self.lock().get(&image.canonical()).cloned()
    }

    fn remember(&self, name: String, result: &Result<Image, Failure>) {
        let mut known = self.lock();
        match result {
            Ok(image) => {
                if known.len() >= MAX_KNOWN && !known.contains_key(&name) {
                    known.clear();
                }
                known.insert(name, image.id.clone());
            }
            Err(Failure::Cancelled) => {}
            Err(Failure::Failed { .. }) => drop(known.remove(&name)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, String>> {
        // Nothing that can panic runs under the lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply_policy(&self, engine: &TaskEngine<'_>, image: &Reference) -> Result<Image, Failure> {
        match self.policy {
            PullPolicy::Always => self.pull(engine, image),
            PullPolicy::Never => local(engine, image)?.ok_or_else(|| {
                let platform = platform(engine.docker);
                failed(image, &format!("is not on this engine for {platform}, and the pull policy is never"))
            }),
            PullPolicy::Missing => match local(engine, image)? {
                Some(local) => Ok(local),
                None => self.pull(engine, image),
            },
            PullPolicy::Auto => match self.pull(engine, image) {
                Err(Failure::Failed { reason: FailureReason::ImagePull, message }) => {
                    fall_back(engine, image, message)
                }
                result => result,
            },
        }
    }

    fn pull(&self, engine: &TaskEngine<'_>, image: &Reference) -> Result<Image, Failure> {
        let name = image.to_string();
        let name = value(&name);
        let key = engine.key;
        let mut log_progress = |progress: &PullProgress| {
            let PullProgress { layers, layers_done, bytes, bytes_total } = progress;
            info!(
                "pulling {key} image={name} layers_done={layers_done} layers={layers} bytes={bytes} \
                 bytes_total={bytes_total}"
            );
        };
        let login = self.login(engine, image)?;
        info!("pull started {key} image={name}");
        let platform = platform(engine.docker);
        let auth = login.auth.as_ref();
        let pulled = engine.call(|docker, cancel| {
            docker.image_pull(cancel, image, Some(&platform), auth, PROGRESS, &mut log_progress)
        });
        pulled.map_err(|error| pull_failure(image, &login, &error))?;
        info!("pull done {key} image={name}");
        pulled_image(engine, image)
    }

    /// Returns the credentials for the image's registry. Credentials that cannot be read only cause a warning, because
    /// the image may be public.
    fn login(&self, engine: &TaskEngine<'_>, image: &Reference) -> Result<Login, Failure> {
        let host = image.domain();
        let login =
            self.registries.login(&engine.cancel, host).map_err(|error| engine_failure(image, &error))?;
        let key = engine.key;
        let registry = value(host);
        if let Some(warning) = &login.warning {
            warn!("registry credentials not usable {key} registry={registry} error={}", value(warning));
        }
        debug!(
            "registry credentials {key} registry={registry} found={} origin={}",
            login.auth.is_some(),
            value(&login.origin)
        );
        Ok(login)
    }
}

/// Returns the local image after a failed pull, as for one that was built on this host; without one, the pull's failure.
fn fall_back(engine: &TaskEngine<'_>, image: &Reference, message: String) -> Result<Image, Failure> {
    let Some(local) = local(engine, image)? else {
        return Err(Failure::new(FailureReason::ImagePull, message));
    };
    let key = engine.key;
    let name = image.to_string();
    warn!("pull failed, local image used {key} image={} error={}", value(&name), value(&message));
    Ok(local)
}

/// Returns the image if the engine has it for its own platform.
fn local(engine: &TaskEngine<'_>, image: &Reference) -> Result<Option<Image>, Failure> {
    match engine.call(|docker, cancel| docker.image_inspect(cancel, &image.to_string())) {
        Ok(local) => Ok(Some(local).filter(|local| runs_on(engine.docker, local))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(engine_failure(image, &error)),
    }
}

/// Returns the image that a pull has delivered, which may be for another platform than the one asked for.
fn pulled_image(engine: &TaskEngine<'_>, image: &Reference) -> Result<Image, Failure> {
    let pulled = engine.call(|docker, cancel| docker.image_inspect(cancel, &image.to_string()));
    let pulled = pulled.map_err(|error| engine_failure(image, &error))?;
    if runs_on(engine.docker, &pulled) {
        return Ok(pulled);
    }
    let Image { os, architecture, .. } = &pulled;
    let platform = platform(engine.docker);
    Err(failed(image, &format!("is for {os}/{architecture}, and this engine runs {platform}")))
}

fn platform(docker: &Docker) -> String {
    let engine = docker.engine();
    format!("{}/{}", engine.os, engine.arch)
}

fn runs_on(docker: &Docker, image: &Image) -> bool {
    let engine = docker.engine();
    image.os == engine.os && image.architecture == engine.arch
}

fn failed(image: &Reference, problem: &str) -> Failure {
    Failure::new(FailureReason::ImagePull, format!("image {image} {problem}"))
}

/// Adds to a refusal which registry it was and which credentials were used; registries say neither.
fn pull_failure(image: &Reference, login: &Login, error: &Error) -> Failure {
    if !error.is_access_denied() {
        return engine_failure(image, error);
    }
    failed(image, &format!("is not available: {}; {}", error_chain(error), login.explain(image.domain())))
}

fn engine_failure(image: &Reference, error: &Error) -> Failure {
    if error.is_cancelled() || error.is_unreachable() {
        return Failure::engine(FailureReason::ImagePull, &format!("image {image}"), error);
    }
    failed(image, &format!("is not available: {}", error_chain(error)))
}
