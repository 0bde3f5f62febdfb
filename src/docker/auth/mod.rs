//! Registry credentials from the docker command line's `config.json` and credential helpers.
//!
//! They are looked up for each pull, as users may log in while the worker runs. A failed look-up is a warning: the image may
//! be public.

mod config;
mod credential;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod helper;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use self::config::{DockerConfig, DockerConfigError, server};
use self::credential::Credential;
use self::helper::{CredentialHelper, HelperError};
use super::Error;
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;
use crate::sys::files;
use crate::sys::limits::{is_exhausted, is_spawn_exhausted};

/// The most bytes of a `config.json`. Real files have a few thousand.
const MAX_FILE: usize = 1024 * 1024;
/// The variables that helpers do not inherit: each may hold the worker's API key, or secrets of tasks.
const OWN_SECRETS: [&str; 4] = ["OZ_API_KEY", "WARP_API_KEY", "OZ_ENV", "OZ_WORKER_ARGS"];

/// Where to look for credentials. `Debug` hides the environment of the helpers.
#[derive(Clone, Default)]
pub struct RegistryEnv {
    folder: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
}

/// The result of a look-up for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The value of `X-Registry-Auth`, if credentials were found.
    pub auth: Option<Secret>,
    /// The file or helper that was asked, for messages.
    pub origin: String,
    /// The error of the look-up, if any: one line without secrets.
    pub warning: Option<String>,
}

impl RegistryEnv {
    /// Uses the folder `docker_config` (`DOCKER_CONFIG`), else `.docker` in `home`; empty values count as unset. Helpers get
    /// all `variables` except [`OWN_SECRETS`].
    pub fn new(
        docker_config: Option<&OsStr>,
        home: Option<&OsStr>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let set = |value: Option<&OsStr>| value.filter(|text| !text.is_empty()).map(PathBuf::from);
        let folder = set(docker_config).or_else(|| set(home).map(|home| home.join(".docker")));
        let variables =
            variables.into_iter().filter(|(name, _)| !OWN_SECRETS.iter().any(|own| name == own)).collect();
        Self { folder, variables }
    }

    /// Looks up the credentials for a registry, named as by [`Reference::domain`](super::Reference::domain). A helper may take
    /// up to 10 s.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or [`Error::Exhausted`] if the file could not be opened or the helper not be run for that reason.
    pub fn login(&self, cancel: &CancelToken, host: &str) -> Result<Login, Error> {
        let Some(folder) = &self.folder else {
            return Ok(Login::none("config.json: neither DOCKER_CONFIG nor HOME is set".to_owned()));
        };
        let path = folder.join("config.json");
        match read(&path) {
            Ok(Some(config)) => self.choose(cancel, host, &config, path.display().to_string()),
            Ok(None) => Ok(Login::none(format!("{}, which does not exist", path.display()))),
            Err(DockerConfigError::Unreadable(source)) if is_exhausted(&source) => {
                Err(Error::Exhausted { source })
            }
            Err(error) => {
                let warning = format!("{}: {error}", path.display());
                Ok(Login { warning: Some(warning), ..Login::none(path.display().to_string()) })
            }
        }
    }

    /// Like Docker: a helper without credentials ends the look-up; after a failed helper, the entry in the file is used.
    fn choose(
        &self,
        cancel: &CancelToken,
        host: &str,
        config: &DockerConfig,
        file: String,
    ) -> Result<Login, Error> {
        let Some(name) = config.helper(host) else { return Ok(from_file(host, config, file)) };
        let helper = format!("docker-credential-{name}");
        match CredentialHelper::new(name, &self.variables).get(server(host), cancel) {
            Ok(Some(credential)) => Ok(Login::found(&credential, host, helper)),
            Ok(None) => Ok(Login::none(helper)),
            Err(HelperError::Cancelled) => Err(Error::Cancelled),
            Err(HelperError::Run(source)) if is_spawn_exhausted(&source) => Err(Error::Exhausted { source }),
            Err(error) => {
                let login = from_file(host, config, file);
                Ok(Login { warning: Some(format!("credential helper {helper}: {error}")), ..login })
            }
        }
    }
}

impl fmt::Debug for RegistryEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryEnv").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Login {
    fn none(origin: String) -> Self {
        Self { auth: None, origin, warning: None }
    }

    fn found(credential: &Credential, host: &str, origin: String) -> Self {
        Self { auth: Some(credential.header(server(host))), origin, warning: None }
    }

    /// Describes the credentials of a pull that the registry refused.
    pub fn explain(&self, host: &str) -> String {
        match (&self.auth, &self.warning) {
            (Some(_), _) => format!("{host} refused the credentials from {}", self.origin),
            (None, Some(warning)) => format!("cannot get credentials for {host}: {warning}"),
            (None, None) => format!("no credentials for {host} were found in {}", self.origin),
        }
    }
}

fn from_file(host: &str, config: &DockerConfig, file: String) -> Login {
    match config.entry(host) {
        Ok(Some(credential)) => Login::found(&credential, host, file),
        Ok(None) => Login::none(file),
        Err(error) => Login { warning: Some(format!("{file}: {error}")), ..Login::none(file) },
    }
}

/// Returns the parsed file, or `None` if it does not exist.
fn read(path: &Path) -> Result<Option<DockerConfig>, DockerConfigError> {
    match files::read(path, MAX_FILE) {
        Ok(bytes) => DockerConfig::parse(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
