//! A client of the Docker Engine API: HTTP/1.1 over a Unix socket, plain TCP or TLS.
//!
//! Every call takes a [`CancelToken`], blocks its thread, opens its own connection and has a deadline for every wait.

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
    Mount, PathStat, PullProgress, State, Volume, VolumeOptions,
};
pub use self::auth::{Login, RegistryEnv};
pub use self::body::Body;
pub use self::certificates::CertificateError;
pub use self::containers::Wait;
pub use self::discovery::{
    ContextError, Discovery, Endpoint, EndpointEnv, EndpointError, EndpointSource, FILE_LIMIT, Files,
};
pub use self::error::{Error, MAX_MESSAGE};
pub use self::exchange::Response;
pub use self::reference::{MAX_NAME, Reference, ReferenceError};
pub use self::request::{Method, Request, RequestTarget};
pub use self::timeouts::Timeouts;
pub use self::tls::{TlsClient, TlsError};
use crate::sys::cancel::CancelToken;

/// How long an engine may take to answer a ping.
const PING_WITHIN: Duration = Duration::from_secs(10);

/// A client of one engine. Clones are cheap and share nothing mutable.
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
    #[serde(rename = "Name", default)]
    host: String,
    #[serde(rename = "DockerRootDir", default)]
    root: String,
}

impl Docker {
    /// Connects and negotiates the API version: `pin` if given, else the engine's newest, at most
    /// [`ApiVersion::MAX`]. A version below [`ApiVersion::MIN`] is [`Error::TooOld`].
    pub fn connect(cancel: &CancelToken, endpoint: Endpoint, pin: Option<ApiVersion>) -> Result<Self, Error> {
        Self::connect_with(cancel, endpoint, pin, Timeouts::default())
    }

    /// Like [`Docker::connect`], with other deadlines. Until the client is connected, only `timeouts.connect` applies.
    pub fn connect_with(
        cancel: &CancelToken,
        endpoint: Endpoint,
        pin: Option<ApiVersion>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        let hello = Timeouts { connect: timeouts.connect, ..Timeouts::default() };
        let dialer = exchange::Dialer { endpoint: &endpoint, timeouts: &hello, version: None };
        let api_version = match pin {
            Some(version) => version,
            None => newest(&dialer, cancel)?.min(ApiVersion::MAX),
        };
        if api_version < ApiVersion::MIN {
            let version = api_version.to_string();
            return Err(Error::TooOld { version, needed: ApiVersion::MIN.to_string() });
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
            host: info.host,
            root: info.root,
        };
        Ok(Self(Arc::new(Inner { endpoint, timeouts, engine })))
    }

    /// Returns what the engine reported about itself.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Returns whether the endpoint is a Unix socket. A forwarded socket may still lead to another machine.
    pub fn is_local(&self) -> bool {
        matches!(self.0.endpoint, Endpoint::Unix(_))
    }

    /// Returns the endpoint in the form of `DOCKER_HOST`, for messages.
    pub fn address(&self) -> String {
        self.0.endpoint.to_string()
    }

    /// Checks that the engine answers, within 10 s.
    pub fn ping(&self, cancel: &CancelToken) -> Result<(), Error> {
        let Inner { endpoint, timeouts, .. } = &*self.0;
        let dialer = exchange::Dialer { endpoint, timeouts, version: None };
        let request = Request::get(RequestTarget::of("_ping")).head_within(timeouts.head.min(PING_WITHIN));
        dialer.exchange(cancel, request)?.success().map(drop)
    }

    /// Sends any request, below `/vX.Y/`. Returns the response for any status, with its body unread.
    pub fn exchange(&self, cancel: &CancelToken, request: Request<'_>) -> Result<Response, Error> {
        let inner = &self.0;
        let version = Some(inner.engine.api_version);
        let dialer = exchange::Dialer { endpoint: &inner.endpoint, timeouts: &inner.timeouts, version };
        dialer.exchange(cancel, request)
    }

    /// Like [`Docker::exchange`], but any status other than 2xx is an error.
    fn call(&self, cancel: &CancelToken, request: Request<'_>) -> Result<Response, Error> {
        self.exchange(cancel, request)?.success()
    }

    fn timeouts(&self) -> &Timeouts {
        &self.0.timeouts
    }
}

/// Returns the engine's newest API version, from the header of a ping. Falls back to `GET`: some proxies refuse `HEAD`.
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
    Err(Error::protocol("the ping response has no Api-Version header"))
}
