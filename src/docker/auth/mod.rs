//! Credentials for registries, from where the Docker command line has them: `config.json` and credential helpers.
//!
//! Owns [`RegistryEnv`], which looks them up anew for each pull, since people log in while the worker runs. Whatever is wrong
//! there costs a warning and not the pull, which may be of a public image. It must not know tasks, or log.

mod config;
mod credential;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
mod helper;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use self::config::{DockerConfig, server};
use self::credential::Credential;
use self::helper::{CredentialHelper, HelperError};
use super::Error;
use crate::secret::Secret;
use crate::sys::cancel::CancelToken;
use crate::sys::files;

/// The largest `config.json` that is read, in bytes. Real ones have a few thousand.
const MAX_FILE: usize = 1024 * 1024;
/// What no helper gets to see.
const OWN_SECRET: &str = "OZ_API_KEY";

/// Where registry credentials come from. It holds the environment that helpers run in, so `Debug` shows the folder only.
#[derive(Clone, Default)]
pub struct RegistryEnv {
    folder: Option<PathBuf>,
    variables: Vec<(OsString, OsString)>,
}

/// What was found for one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The finished value of `X-Registry-Auth`, when there are credentials.
    pub auth: Option<Secret>,
    /// Where they come from, or where none were found: a file or a helper. For people.
    pub origin: String,
    /// What went wrong on the way, in one line without secrets.
    pub warning: Option<String>,
}

impl RegistryEnv {
    /// From the values of `DOCKER_CONFIG` (a folder; empty counts as unset) and `HOME`, under which `.docker` is the default,
    /// and all variables of the process, of which helpers get all but the worker's own key.
    pub fn new(
        docker_config: Option<&OsStr>,
        home: Option<&OsStr>,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let set = |value: Option<&OsStr>| value.filter(|text| !text.is_empty()).map(PathBuf::from);
        let folder = set(docker_config).or_else(|| set(home).map(|home| home.join(".docker")));
        let variables = variables.into_iter().filter(|(name, _)| name != OWN_SECRET).collect();
        Self { folder, variables }
    }

    /// Looks for the credentials of a registry, named as in [`Reference::domain`](super::Reference::domain). May run a helper,
    /// which takes 10 s at most.
    ///
    /// # Errors
    /// Only [`Error::Cancelled`].
    pub fn login(&self, cancel: &CancelToken, host: &str) -> Result<Login, Error> {
        let Some(folder) = &self.folder else {
            return Ok(Login::none("any config.json, as neither DOCKER_CONFIG nor HOME is set".to_owned()));
        };
        let path = folder.join("config.json");
        match read(&path) {
            Ok(Some(config)) => self.choose(cancel, host, &config, path.display().to_string()),
            Ok(None) => Ok(Login::none(format!("{}, which does not exist", path.display()))),
            Err(problem) => {
                let warning = format!("{}: {problem}", path.display());
                Ok(Login { warning: Some(warning), ..Login::none(path.display().to_string()) })
            }
        }
    }

    /// As Docker does it: a helper that knows none ends the search, one that is broken leaves what the file itself has.
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

    /// What to tell about the credentials when the registry has refused the pull.
    pub fn explain(&self, host: &str) -> String {
        match (&self.auth, &self.warning) {
            (Some(_), _) => format!("{host} refused the credentials from {}", self.origin),
            (None, Some(warning)) => format!("no credentials for {host} could be had: {warning}"),
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

/// The file, or `None` when there is none.
fn read(path: &Path) -> Result<Option<DockerConfig>, String> {
    match files::read(path, MAX_FILE) {
        Ok(bytes) => DockerConfig::parse(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests;
