//! Makes an image available on the engine: pulls it as the pull policy says, once for all tasks that need it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::engine::TaskEngine;
use super::failed_pulls::FailedPulls;
use super::outcome::Failure;
use super::sidecar::ATTEMPTS;
use super::single_flight::{Cancelled, SingleFlight};
use crate::docker::{Docker, Error, Image, Login, PullProgress, Reference, RegistryEnv};
use crate::logging::{error_chain, value};
use crate::metrics::Steps;
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
    steps: Arc<Steps>,
    pulls: SingleFlight<Result<Image, Failure>>,
    /// The id that each image had for the last task, by its name.
    known: Mutex<HashMap<String, String>>,
    failed_pulls: Mutex<FailedPulls>,
}

impl Images {
    pub(super) fn new(policy: PullPolicy, registries: RegistryEnv, steps: Arc<Steps>) -> Self {
        Self {
            policy,
            registries,
            steps,
            pulls: SingleFlight::default(),
            known: Mutex::default(),
            failed_pulls: Mutex::default(),
        }
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

    /// Whether an image that is on the engine is still looked up in its registry.
    pub(super) fn asks_registry(&self) -> bool {
        matches!(self.policy, PullPolicy::Always | PullPolicy::Auto)
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
            PullPolicy::Always => self.pull(engine, image, &self.login(engine, image)?),
            PullPolicy::Never => match local(engine, image)? {
                Local::Usable(local) => Ok(local),
                Local::Foreign(local) => Err(foreign(engine, image, &local)),
                Local::Missing => {
                    let platform = platform(engine.docker);
                    let problem =
                        format!("is not on this engine for {platform}, and the pull policy is never");
                    Err(failed(image, &problem))
                }
            },
            PullPolicy::Missing => match local(engine, image)? {
                Local::Usable(local) => Ok(local),
                found => {
                    let pulled = self.pull(engine, image, &self.login(engine, image)?);
                    pulled.map_err(|failure| found.mention(engine, image, failure))
                }
            },
            PullPolicy::Auto => self.pull_or_local(engine, image),
        }
    }

    /// Pulls the image. If that fails, returns the local image, as for one that was built on this host; without one, the pull's
    /// failure. A pull that has just failed with the same credentials is not repeated if there is a local image.
    fn pull_or_local(&self, engine: &TaskEngine<'_>, image: &Reference) -> Result<Image, Failure> {
        let key = engine.key;
        let name = image.to_string();
        let canonical = image.canonical();
        let login = self.login(engine, image)?;
        let has_failed = self.failed_pulls().is_recent(&canonical, login.auth.as_ref(), Instant::now());
        if has_failed && let Local::Usable(local) = local(engine, image)? {
            info!("pull left out {key} image={} reason=\"it has just failed\"", value(&name));
            return Ok(local);
        }
        let message = match self.pull(engine, image, &login) {
            Err(Failure::Failed { reason: FailureReason::ImagePull, message, .. }) => message,
            result => {
                self.failed_pulls().forget(&canonical);
                return result;
            }
        };
        self.failed_pulls().record(canonical, login.auth, Instant::now());
        match local(engine, image)? {
            Local::Usable(local) => {
                warn!("pull failed, local image used {key} image={} error={}", value(&name), value(&message));
                Ok(local)
            }
            found => Err(found.mention(engine, image, Failure::new(FailureReason::ImagePull, message))),
        }
    }

    fn failed_pulls(&self) -> MutexGuard<'_, FailedPulls> {
        // Nothing that can panic runs under the lock.
        self.failed_pulls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pull(&self, engine: &TaskEngine<'_>, image: &Reference, login: &Login) -> Result<Image, Failure> {
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
        if let Some(warning) = &login.warning {
            let registry = value(image.domain());
            warn!("registry credentials not usable {key} registry={registry} error={}", value(warning));
        }
        info!("pull started {key} image={name}");
        let platform = platform(engine.docker);
        let auth = login.auth.as_ref();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let start = Instant::now();
            let pulled = engine.call(|docker, cancel| {
                docker.image_pull(cancel, image, Some(&platform), auth, PROGRESS, &mut log_progress)
            });
            pulled.map_err(|error| pull_failure(image, login, &error))?;
            self.steps.pulls.observe(start.elapsed());
            info!("pull done {key} image={name}");
            match local(engine, image)? {
                Local::Usable(pulled) => return Ok(pulled),
                Local::Foreign(pulled) => return Err(foreign(engine, image, &pulled)),
                // Removed at once, such as by `docker image prune -a`.
                Local::Missing if attempts < ATTEMPTS => {}
                Local::Missing => return Err(failed(image, "is removed by another process after each pull")),
            }
        }
    }

    /// Returns the credentials for the image's registry. Credentials that cannot be read only cause a warning of the pull, because
    /// the image may be public.
    fn login(&self, engine: &TaskEngine<'_>, image: &Reference) -> Result<Login, Failure> {
        let host = image.domain();
        let login = engine.call(|_, cancel| self.registries.login(cancel, host));
        let login = login.map_err(|error| engine_failure(image, &error))?;
        let key = engine.key;
        let registry = value(host);
        debug!(
            "registry credentials {key} registry={registry} found={} origin={}",
            login.auth.is_some(),
            value(&login.origin)
        );
        Ok(login)
    }
}

/// What the engine has under an image's name.
enum Local {
    /// The image, for the engine's platform.
    Usable(Image),
    /// An image for another platform.
    Foreign(Image),
    Missing,
}

impl Local {
    /// Adds to the failure of a pull what there is instead, unless that is what the pull has delivered.
    fn mention(&self, engine: &TaskEngine<'_>, image: &Reference, failure: Failure) -> Failure {
        match (self, failure) {
            (Self::Foreign(local), failure) if failure == foreign(engine, image, local) => failure,
            (Self::Foreign(local), Failure::Failed { reason, step, message }) => {
                let Image { os, architecture, .. } = local;
                let message = format!("{message}; the image on this engine is for {os}/{architecture}");
                Failure::Failed { reason, step, message }
            }
            (_, failure) => failure,
        }
    }
}

fn local(engine: &TaskEngine<'_>, image: &Reference) -> Result<Local, Failure> {
    match engine.call(|docker, cancel| docker.image_inspect(cancel, &image.to_string())) {
        Ok(local) if runs_on(engine.docker, &local) => Ok(Local::Usable(local)),
        Ok(local) => Ok(Local::Foreign(local)),
        Err(error) if error.is_not_found() => Ok(Local::Missing),
        Err(error) => Err(engine_failure(image, &error)),
    }
}

/// The failure for an image that the engine does not run. A pull may deliver such an image, too.
fn foreign(engine: &TaskEngine<'_>, image: &Reference, found: &Image) -> Failure {
    let Image { os, architecture, .. } = found;
    let platform = platform(engine.docker);
    failed(image, &format!("is for {os}/{architecture}, and this engine runs {platform}"))
}

fn platform(docker: &Docker) -> String {
    let engine = docker.engine();
    format!("{}/{}", engine.os, engine.arch)
}

/// Whether the engine runs the image. An image that does not name its platform runs on any.
fn runs_on(docker: &Docker, image: &Image) -> bool {
    let engine = docker.engine();
    let fits = |named: &str, own: &str| named.is_empty() || named == own;
    fits(&image.os, &engine.os) && fits(&image.architecture, &engine.arch)
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
    if error.is_cancelled() || error.is_unreachable() || error.is_exhausted() {
        return Failure::engine(FailureReason::ImagePull, &format!("image {image}"), error);
    }
    failed(image, &format!("is not available: {}", error_chain(error)))
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
