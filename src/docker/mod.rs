//! A small client of the Docker Engine, over HTTP/1.1 on a Unix socket, plain TCP or TLS.
//!
//! Owns the handle [`Docker`] with one method a call; every call takes a [`CancelToken`] first, blocks its thread, has
//! a deadline for every wait and makes its own connection. It must not know tasks, sidecars or the control plane.

mod api;
mod archive;
mod auth;
mod body;
mod certificates;
mod conn;
mod connect;
mod containers;
mod discovery;
mod error;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http;
mod images;
mod reference;
mod request;
mod stream;
mod timeouts;
mod tls;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

pub use self::api::{
    ApiVersion, Container, ContainerSummary, CreateContainer, Created, Engine, HostConfig, Image, LogStream,
    Mount, MountKind, PathStat, PullProgress, State, Volume, VolumeOptions,
};
pub use self::auth::{Login, RegistryEnv};
pub use self::body::Body;
pub use self::certificates::CertificateError;
pub use self::containers::Wait;
pub use self::discovery::{
    Discovery, Endpoint, EndpointEnv, EndpointError, EndpointSource, FILE_LIMIT, Files,
};
pub use self::error::{Error, MAX_MESSAGE};
pub use self::exchange::Response;
pub use self::reference::{MAX_NAME, Reference, ReferenceError};
pub use self::request::{Method, Request, RequestTarget};
pub use self::timeouts::Timeouts;
pub use self::tls::{TlsClient, TlsError};
use crate::sys::cancel::CancelToken;

/// A ping says nothing but that the engine is well, which takes it no time.
const PING_WITHIN: Duration = Duration::from_secs(10);

/// An engine that has answered. Clones are cheap and may be used from any thread.
#[derive(Debug, Clone)]
pub struct Docker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    endpoint: Endpoint,
    timeouts: Timeouts,
    engine: Engine,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
    os: String,
    arch: String,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "NCPU", default)]
    cpus: u32,
    #[serde(rename = "MemTotal", default)]
    memory: u64,
    #[serde(rename = "Name", default)]
    host: String,
    #[serde(rename = "DockerRootDir", default)]
    root: String,
}

impl Docker {
    /// Asks the engine who it is and agrees on an API version: the smaller of its newest and [`ApiVersion::MAX`], or
    /// `pin` when that is given. Below [`ApiVersion::MIN`] is [`Error::TooOld`].
    pub fn connect(cancel: &CancelToken, endpoint: Endpoint, pin: Option<ApiVersion>) -> Result<Self, Error> {
        Self::connect_with(cancel, endpoint, pin, Timeouts::default())
    }

    /// As [`Docker::connect`], with other deadlines.
    pub fn connect_with(
        cancel: &CancelToken,
        endpoint: Endpoint,
        pin: Option<ApiVersion>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        let dialer = exchange::Dialer { endpoint: &endpoint, timeouts: &timeouts, version: None };
        let api_version = match pin {
            Some(version) => version,
            None => newest(&dialer, cancel)?.min(ApiVersion::MAX),
        };
        if api_version < ApiVersion::MIN {
            let (version, needed) = (api_version.to_string(), ApiVersion::MIN.to_string());
            return Err(Error::TooOld { version, needed });
        }
        let dialer = exchange::Dialer { version: Some(api_version), ..dialer };
        let version: Version =
            dialer.exchange(cancel, Request::get(RequestTarget::of("version")))?.success()?.json()?;
        let info: Info =
            dialer.exchange(cancel, Request::get(RequestTarget::of("info")))?.success()?.json()?;
        let engine = Engine {
            version: version.version,
            api_version,
            os: version.os,
            arch: version.arch,
            cpus: info.cpus,
            memory: info.memory,
            host: info.host,
            root: info.root,
        };
        Ok(Self(Arc::new(Inner { endpoint, timeouts, engine })))
    }

    /// The same engine with other deadlines.
    #[must_use]
    pub fn with_timeouts(&self, timeouts: Timeouts) -> Self {
        let (endpoint, engine) = (self.0.endpoint.clone(), self.0.engine.clone());
        Self(Arc::new(Inner { endpoint, timeouts, engine }))
    }

    /// What the engine said of itself at the connect.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Whether it is reached without a network. It may be on another machine all the same, behind a socket that is forwarded.
    pub fn is_local(&self) -> bool {
        matches!(self.0.endpoint, Endpoint::Unix(_))
    }

    /// Where it is, in the form of `DOCKER_HOST`; for messages.
    pub fn address(&self) -> String {
        self.0.endpoint.to_string()
    }

    /// Whether the engine is there: it answers within 10 s.
    pub fn ping(&self, cancel: &CancelToken) -> Result<(), Error> {
        let Inner { endpoint, timeouts, .. } = &*self.0;
        let dialer = exchange::Dialer { endpoint, timeouts, version: None };
        let request = Request::get(RequestTarget::of("_ping")).head_within(timeouts.head.min(PING_WITHIN));
        dialer.exchange(cancel, request)?.success().map(drop)
    }

    /// Sends any request (below `/vX.Y/`) and gives the answer, whatever its status; its body is still to be read. For
    /// calls that have no method here.
    pub fn exchange(&self, cancel: &CancelToken, request: Request<'_>) -> Result<Response, Error> {
        let inner = &self.0;
        let version = Some(inner.engine.api_version);
        let dialer = exchange::Dialer { endpoint: &inner.endpoint, timeouts: &inner.timeouts, version };
        dialer.exchange(cancel, request)
    }

    /// As [`Docker::exchange`], where everything but a 2xx is an error.
    fn call(&self, cancel: &CancelToken, request: Request<'_>) -> Result<Response, Error> {
        self.exchange(cancel, request)?.success()
    }

    fn timeouts(&self) -> &Timeouts {
        &self.0.timeouts
    }
}

/// The engine's newest API version, as every answer to a ping carries it. Some proxies let only `GET` through.
fn newest(dialer: &exchange::Dialer<'_>, cancel: &CancelToken) -> Result<ApiVersion, Error> {
    for method in [Method::Head, Method::Get] {
        let response = dialer.exchange(cancel, Request::new(method, RequestTarget::of("_ping")))?;
        let version = response.header("Api-Version").and_then(ApiVersion::parse);
        match version {
            Some(version) if response.status == 200 => return Ok(version),
            _ if method == Method::Get => {
                response.success()?;
            }
            _ => {}
        }
    }
    Err(Error::protocol("its ping names no API version"))
}
