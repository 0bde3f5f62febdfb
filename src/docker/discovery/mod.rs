//! Which engine: the variables, sockets and files that say so, in their order.
//!
//! Owns that order, the meaning of the TLS variables and what is warned about. Pure: the environment and the file system
//! come in as arguments. It must not connect, and it does not look into certificates.

pub(in crate::docker) mod context;
pub(in crate::docker) mod endpoint;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::context::{FILE_LIMIT, Files};
use self::endpoint::{Address, SYSTEM_SOCKET};
pub use self::endpoint::{Endpoint, EndpointError};
use crate::docker::ApiVersion;
use crate::docker::certificates::TlsFiles;
use crate::docker::tls::TlsClient;
use crate::logging::value;

/// The context that stands for none.
const NO_CONTEXT: &str = "default";

/// The environment variables that say which engine is used, and how. A blank value counts as unset, but for the two
/// that Docker asks only whether they are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointEnv {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`, the folder of Docker's own settings; by default `~/.docker`.
    pub docker_config: Option<String>,
    /// `DOCKER_TLS`: anything but empty encrypts.
    pub docker_tls: Option<String>,
    /// `DOCKER_TLS_VERIFY`: anything but empty encrypts and verifies, even `0`.
    pub docker_tls_verify: Option<String>,
    /// `DOCKER_CERT_PATH`.
    pub docker_cert_path: Option<String>,
    /// `DOCKER_API_VERSION`.
    pub docker_api_version: Option<String>,
    /// `XDG_RUNTIME_DIR`, under which a rootless engine listens.
    pub xdg_runtime_dir: Option<String>,
    /// `HOME`, under which Docker Desktop puts its socket.
    pub home: Option<String>,
}

/// What named the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSource {
    /// The variable.
    DockerHost,
    /// A default socket that is there.
    Socket,
    /// A context of this name.
    Context(String),
    /// Nothing: the system-wide socket, which is not there.
    Default,
}

impl fmt::Display for EndpointSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DockerHost => f.write_str("DOCKER_HOST"),
            Self::Socket => f.write_str("socket"),
            Self::Context(name) => write!(f, "context:{name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// An engine's address, and why it is that one.
#[derive(Debug)]
pub struct Discovery {
    address: Address,
    tls: Option<TlsFiles>,
    /// What named it.
    pub source: EndpointSource,
    /// What `DOCKER_API_VERSION` pins.
    pub api_version: Option<ApiVersion>,
    /// What an operator may not expect, each a line for the log.
    pub warnings: Vec<String>,
}

impl Discovery {
    /// Finds the engine: `DOCKER_HOST`; the first default socket that exists; `DOCKER_CONTEXT`; the current context of
    /// `config.json`; the system-wide socket, so that the error of the connect names it.
    ///
    /// # Errors
    /// When what comes first in that order cannot be used: nothing further down is taken in its place.
    pub fn discover(env: &EndpointEnv, files: Files<'_>) -> Result<Self, EndpointError> {
        let search = Finder { env, files, warnings: Vec::new() };
        search.run()
    }

    /// What to connect to; reads the certificates' contents. What is odd about them joins the warnings.
    ///
    /// # Errors
    /// For certificates and keys that cannot be used.
    pub fn endpoint(&mut self) -> Result<Endpoint, EndpointError> {
        let client = match &self.tls {
            None => None,
            Some(files) => {
                let (client, warnings) = TlsClient::new(files)?;
                self.warnings.extend(warnings);
                Some(client)
            }
        };
        Ok(Endpoint::new(self.address.clone(), client))
    }
}

struct Finder<'a> {
    env: &'a EndpointEnv,
    files: Files<'a>,
    warnings: Vec<String>,
}

impl Finder<'_> {
    fn run(mut self) -> Result<Discovery, EndpointError> {
        let api_version = pin(self.env)?;
        let (address, tls, source) = self.find()?;
        Ok(Discovery { address, tls, source, api_version, warnings: self.warnings })
    }

    fn find(&mut self) -> Result<(Address, Option<TlsFiles>, EndpointSource), EndpointError> {
        let wanted = set(self.env.docker_context.as_ref()).filter(|name| *name != NO_CONTEXT);
        if let Some(host) = set(self.env.docker_host.as_ref()) {
            let address = Address::parse("DOCKER_HOST", host)?;
            let tls = if address.is_tcp() { self.tls_of_environment(&address)? } else { None };
            self.unused(wanted, "DOCKER_HOST", host);
            return Ok((address, tls, EndpointSource::DockerHost));
        }
        if let Some(path) = default_sockets(self.env).into_iter().find(|path| (self.files.exists)(path)) {
            self.unused(wanted, "socket", &path.display().to_string());
            return Ok((Address::Unix(path), None, EndpointSource::Socket));
        }
        match set(self.env.docker_context.as_ref()) {
            Some(NO_CONTEXT) => {}
            Some(name) => return self.context(name, "DOCKER_CONTEXT"),
            None => {
                if let Some((name, path)) = self.current_context() {
                    return self.context(&name, &path.display().to_string());
                }
            }
        }
        Ok((Address::Unix(PathBuf::from(SYSTEM_SOCKET)), None, EndpointSource::Default))
    }

    fn unused(&mut self, context: Option<&str>, kind: &str, winner: &str) {
        if let Some(context) = context {
            self.warnings.push(format!(
                "DOCKER_CONTEXT is not used, another setting comes first context={} {kind}={}",
                value(context),
                value(winner)
            ));
        }
    }

    /// The folder of Docker's settings.
    fn config_dir(&self) -> Option<PathBuf> {
        let home = || set(self.env.home.as_ref()).map(|home| Path::new(home).join(".docker"));
        set(self.env.docker_config.as_ref()).map(PathBuf::from).or_else(home)
    }

    /// The name of the current context and the file that says so. A file that cannot be used is as good as none.
    fn current_context(&mut self) -> Option<(String, PathBuf)> {
        let path = self.config_dir()?.join("config.json");
        let name = self.files.load(&path).and_then(|json| match json {
            Some(json) => context::current_context(&json),
            None => Ok(None),
        });
        match name {
            Ok(name) => {
                let name = name.filter(|name| !name.is_empty() && name != NO_CONTEXT)?;
                Some((name, path))
            }
            Err(problem) => {
                let path = path.display().to_string();
                let (path, problem) = (value(&path), value(&problem));
                self.warnings.push(format!("docker's settings are not used file={path} problem={problem}"));
                None
            }
        }
    }

    fn context(
        &self,
        name: &str,
        origin: &str,
    ) -> Result<(Address, Option<TlsFiles>, EndpointSource), EndpointError> {
        let unknown = |looked_for: String| {
            let (name, origin) = (name.to_owned(), origin.to_owned());
            EndpointError::NoContext { name, origin, looked_for }
        };
        let Some(dir) = self.config_dir() else {
            return Err(unknown("nothing, since neither DOCKER_CONFIG nor HOME is set".to_owned()));
        };
        let path = context::meta_path(&dir, name);
        let shown = path.display().to_string();
        let broken = |problem| EndpointError::Context { name: name.to_owned(), path: shown.clone(), problem };
        let json = self.files.load(&path).map_err(broken)?.ok_or_else(|| unknown(shown.clone()))?;
        let meta = context::meta(&json).map_err(broken)?;
        let address =
            Address::parse(&format!("the host of the docker context {name:?} ({shown})"), meta.host.trim())?;
        let tls = if address.is_tcp() {
            let dir = context::tls_dir(&dir, name);
            let found = TlsFiles::of_context(&dir, self.files, !meta.skip_tls_verify)?;
            let wanted = meta.skip_tls_verify || address.is_https() || !found.is_empty();
            wanted.then_some(found)
        } else {
            None
        };
        Ok((address, tls, EndpointSource::Context(name.to_owned())))
    }

    /// Docker's rules: a path encrypts, `DOCKER_TLS` too, and `DOCKER_TLS_VERIFY` encrypts and verifies. What is only
    /// written as `https://` is as any web site: verified, and known by nobody in particular.
    fn tls_of_environment(&self, address: &Address) -> Result<Option<TlsFiles>, EndpointError> {
        let not_empty = |variable: &Option<String>| variable.as_ref().is_some_and(|text| !text.is_empty());
        let (on, verify) = (not_empty(&self.env.docker_tls), not_empty(&self.env.docker_tls_verify));
        match set(self.env.docker_cert_path.as_ref()) {
            Some(dir) => Ok(Some(TlsFiles::of_folder(Path::new(dir), self.files, verify, true)?)),
            None if on || verify => {
                let dir = self.config_dir().unwrap_or_default();
                Ok(Some(TlsFiles::of_folder(&dir, self.files, verify, false)?))
            }
            None if address.is_https() => Ok(Some(TlsFiles::verifying())),
            None => Ok(None),
        }
    }
}

fn set(variable: Option<&String>) -> Option<&str> {
    variable.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn default_sockets(env: &EndpointEnv) -> Vec<PathBuf> {
    let rootless = set(env.xdg_runtime_dir.as_ref()).map(|dir| Path::new(dir).join("docker.sock"));
    let desktop = set(env.home.as_ref()).map(|dir| Path::new(dir).join(".docker/run/docker.sock"));
    [Some(PathBuf::from(SYSTEM_SOCKET)), rootless, desktop].into_iter().flatten().collect()
}

fn pin(env: &EndpointEnv) -> Result<Option<ApiVersion>, EndpointError> {
    let Some(text) = set(env.docker_api_version.as_ref()) else { return Ok(None) };
    // Docker's own client takes it with a `v` as well.
    let version = ApiVersion::parse(text.strip_prefix('v').unwrap_or(text));
    version.map(Some).ok_or_else(|| EndpointError::ApiVersion { value: text.to_owned() })
}

#[cfg(test)]
mod tests;
