//! Finds the engine from environment variables, sockets and Docker's own files. Pure: both the environment and the file
//! system are arguments, and nothing is connected.

pub(in crate::docker) mod context;
pub(in crate::docker) mod endpoint;

use std::fmt;
use std::path::{Path, PathBuf};

pub use self::context::{ContextError, FILE_LIMIT, Files};
use self::endpoint::{Address, SYSTEM_SOCKET};
pub use self::endpoint::{Endpoint, EndpointError};
use crate::docker::ApiVersion;
use crate::docker::certificates::TlsFiles;
use crate::docker::tls::TlsClient;
use crate::logging::value;

/// The socket of a system-wide Podman. Its folder is closed to other users than root.
const PODMAN_SOCKET: &str = "/run/podman/podman.sock";
/// The name of the context that stands for no context.
const NO_CONTEXT: &str = "default";

/// The environment variables that choose the engine. A blank value counts as unset, except for `DOCKER_TLS` and
/// `DOCKER_TLS_VERIFY`, which count as set unless they are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointEnv {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG`, the folder of Docker's own settings; default `~/.docker`.
    pub docker_config: Option<String>,
    /// `DOCKER_TLS`; encrypts.
    pub docker_tls: Option<String>,
    /// `DOCKER_TLS_VERIFY`; encrypts and verifies the engine's certificate, even if it is `0`.
    pub docker_tls_verify: Option<String>,
    /// `DOCKER_CERT_PATH`.
    pub docker_cert_path: Option<String>,
    /// `DOCKER_API_VERSION`.
    pub docker_api_version: Option<String>,
    /// `XDG_RUNTIME_DIR`, which holds the socket of a rootless engine.
    pub xdg_runtime_dir: Option<String>,
    /// `HOME`, below which Docker Desktop has its socket.
    pub home: Option<String>,
}

/// The setting that chose the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSource {
    /// The variable `DOCKER_HOST`.
    DockerHost,
    /// An existing default socket.
    Socket,
    /// The context of this name.
    Context(String),
    /// No setting: the system-wide socket, which does not exist.
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

/// The engine's address and the setting that chose it.
#[derive(Debug)]
pub struct Discovery {
    address: Address,
    tls: Option<TlsFiles>,
    /// The setting that chose the engine.
    pub source: EndpointSource,
    /// The API version pinned by `DOCKER_API_VERSION`.
    pub api_version: Option<ApiVersion>,
    /// Warnings, one log line each.
    pub warnings: Vec<String>,
}

impl Discovery {
    /// Finds the engine. The first of these wins: `DOCKER_HOST`; an existing default socket; `DOCKER_CONTEXT`; the
    /// current context of `config.json`; an existing socket of Podman; the system-wide socket, so that the connect error
    /// names it.
    ///
    /// # Errors
    /// If the winner cannot be used. The later ones are not tried then.
    pub fn discover(env: &EndpointEnv, files: Files<'_>) -> Result<Self, EndpointError> {
        let mut finder = Finder { env, files, warnings: Vec::new() };
        let api_version = pin(env)?;
        let (address, tls, source) = finder.find()?;
        Ok(Self { address, tls, source, api_version, warnings: finder.warnings })
    }

    /// Returns the endpoint to connect to. Loads the certificates and adds their warnings to `warnings`.
    ///
    /// # Errors
    /// If a certificate or key cannot be used.
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
    fn find(&mut self) -> Result<(Address, Option<TlsFiles>, EndpointSource), EndpointError> {
        let context = set(self.env.docker_context.as_ref());
        let wanted = context.filter(|name| *name != NO_CONTEXT);
        if let Some(host) = set(self.env.docker_host.as_ref()) {
            let address = Address::parse("DOCKER_HOST", host)?;
            let tls = if address.is_tcp() { self.tls_of_environment(&address)? } else { None };
            self.warn_unused(wanted, "docker_host", host);
            return Ok((address, tls, EndpointSource::DockerHost));
        }
        if let Some(path) = default_sockets(self.env).into_iter().find(|path| (self.files.exists)(path)) {
            self.warn_unused(wanted, "socket", &path.display().to_string());
            return Ok((Address::Unix(path), None, EndpointSource::Socket));
        }
        if let Some(name) = wanted {
            return self.context(name, "DOCKER_CONTEXT");
        }
        if context.is_none()
            && let Some((name, path)) = self.current_context()
        {
            return self.context(&name, &path.display().to_string());
        }
        if let Some(path) = podman_sockets(self.env).into_iter().find(|path| (self.files.exists)(path)) {
            return Ok((Address::Unix(path), None, EndpointSource::Socket));
        }
        Ok((Address::Unix(PathBuf::from(SYSTEM_SOCKET)), None, EndpointSource::Default))
    }

    /// Warns that `DOCKER_CONTEXT`, if set, is not used; `kind` and `winner` are the setting that won.
    fn warn_unused(&mut self, context: Option<&str>, kind: &str, winner: &str) {
        if let Some(context) = context {
            self.warnings.push(format!(
                "DOCKER_CONTEXT is not used, another setting comes first context={} {kind}={}",
                value(context),
                value(winner)
            ));
        }
    }

    /// Returns the folder of Docker's own settings.
    fn config_dir(&self) -> Option<PathBuf> {
        let home = || set(self.env.home.as_ref()).map(|home| Path::new(home).join(".docker"));
        set(self.env.docker_config.as_ref()).map(PathBuf::from).or_else(home)
    }

    /// Returns the name of the current context and the file that sets it. An unusable file is ignored with a warning.
    fn current_context(&mut self) -> Option<(String, PathBuf)> {
        let path = self.config_dir()?.join("config.json");
        let name = match self.files.load(&path) {
            Ok(Some(json)) => context::current_context(&json),
            Ok(None) => Ok(None),
            Err(error) => Err(error.into()),
        };
        match name {
            Ok(name) => {
                let name = name.filter(|name| !name.is_empty() && name != NO_CONTEXT)?;
                Some((name, path))
            }
            Err(error) => {
                self.warnings.push(format!(
                    "docker's settings are not used file={} error={}",
                    value(&path.display().to_string()),
                    value(&error.to_string())
                ));
                None
            }
        }
    }

    fn context(
        &self,
        name: &str,
        origin: &str,
    ) -> Result<(Address, Option<TlsFiles>, EndpointSource), EndpointError> {
        let unknown = |looked_for: String| EndpointError::NoContext {
            name: name.to_owned(),
            origin: origin.to_owned(),
            looked_for,
        };
        let Some(dir) = self.config_dir() else {
            return Err(unknown("no file: neither DOCKER_CONFIG nor HOME is set".to_owned()));
        };
        let meta_path = context::meta_path(&dir, name);
        let file = meta_path.display().to_string();
        let broken = |problem: ContextError| EndpointError::Context {
            name: name.to_owned(),
            path: file.clone(),
            problem,
        };
        let json = self.files.load(&meta_path).map_err(|error| broken(error.into()))?;
        let json = json.ok_or_else(|| unknown(file.clone()))?;
        let meta = context::meta(&json).map_err(broken)?;
        let origin = format!("the host of docker context {name:?} ({file})");
        let address = Address::parse(&origin, meta.host.trim())?;
        let mut tls = None;
        if address.is_tcp() {
            let dir = context::tls_dir(&dir, name);
            let found = TlsFiles::of_context(&dir, self.files, !meta.skip_tls_verify)?;
            if meta.skip_tls_verify || address.is_https() || !found.is_empty() {
                tls = Some(found);
            }
        }
        Ok((address, tls, EndpointSource::Context(name.to_owned())))
    }

    /// Returns the TLS files for `DOCKER_HOST`, by Docker's rules: `DOCKER_CERT_PATH` and `DOCKER_TLS` encrypt,
    /// `DOCKER_TLS_VERIFY` also verifies. With only `https://`, the engine is verified like any web site and gets no
    /// client certificate.
    fn tls_of_environment(&self, address: &Address) -> Result<Option<TlsFiles>, EndpointError> {
        let is_set = |variable: &Option<String>| variable.as_ref().is_some_and(|text| !text.is_empty());
        let verify = is_set(&self.env.docker_tls_verify);
        match set(self.env.docker_cert_path.as_ref()) {
            Some(dir) => Ok(Some(TlsFiles::of_folder(Path::new(dir), self.files, verify, true)?)),
            None if verify || is_set(&self.env.docker_tls) => {
                let dir = self.config_dir().unwrap_or_default();
                Ok(Some(TlsFiles::of_folder(&dir, self.files, verify, false)?))
            }
            None if address.is_https() => Ok(Some(TlsFiles::verifying())),
            None => Ok(None),
        }
    }
}

/// Returns the trimmed value of a variable, or `None` if it is unset or blank.
fn set(variable: Option<&String>) -> Option<&str> {
    variable.map(|text| text.trim()).filter(|text| !text.is_empty())
}

fn default_sockets(env: &EndpointEnv) -> Vec<PathBuf> {
    let rootless = set(env.xdg_runtime_dir.as_ref()).map(|dir| Path::new(dir).join("docker.sock"));
    let desktop = set(env.home.as_ref()).map(|dir| Path::new(dir).join(".docker/run/docker.sock"));
    [Some(PathBuf::from(SYSTEM_SOCKET)), rootless, desktop].into_iter().flatten().collect()
}

fn podman_sockets(env: &EndpointEnv) -> Vec<PathBuf> {
    let rootless = set(env.xdg_runtime_dir.as_ref()).map(|dir| Path::new(dir).join("podman/podman.sock"));
    [Some(PathBuf::from(PODMAN_SOCKET)), rootless].into_iter().flatten().collect()
}

fn pin(env: &EndpointEnv) -> Result<Option<ApiVersion>, EndpointError> {
    let Some(text) = set(env.docker_api_version.as_ref()) else { return Ok(None) };
    // Docker's own client accepts a leading `v`.
    let version = ApiVersion::parse(text.strip_prefix('v').unwrap_or(text));
    version.map(Some).ok_or_else(|| EndpointError::ApiVersion { value: text.to_owned() })
}

#[cfg(test)]
mod tests;
