//! A client of the Docker Engine API: HTTP/1.1 over a Unix socket, plain TCP or TLS.
//!
//! Every call takes a [`CancelToken`], blocks its thread, opens its own connection and has a deadline for every wait.

mod api;
mod archive;
mod auth;
mod body;
mod certificates;
mod clock;
mod conn;
mod connect;
mod containers;
mod create;
mod discovery;
mod error;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod http;
mod images;
mod json;
mod negotiate;
mod observe;
mod pending;
mod reference;
mod request;
mod stream;
mod timeouts;
mod tls;
mod version;
mod volumes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

pub use self::api::{
    ApiVersion, Container, ContainerSummary, Engine, Image, LogStream, PullProgress, State, Volume,
};
pub use self::archive::{Archive, PathStat, PendingStat};
pub use self::auth::{Login, RegistryEnv};
pub use self::body::Body;
pub use self::certificates::CertificateError;
pub use self::containers::{Log, Wait};
pub use self::create::{
    CreateContainer, Created, DeviceRequest, HostConfig, LogConfig, Mount, ProcessLimit, VolumeOptions,
};
pub use self::discovery::{
    ContextError, Discovery, Endpoint, EndpointEnv, EndpointError, EndpointSource, FILE_LIMIT, Files,
};
pub use self::error::{Error, MAX_MESSAGE};
pub use self::exchange::Response;
pub use self::negotiate::Negotiated;
pub use self::observe::{ListedContainer, Properties, Usage};
pub use self::pending::Pending;
pub use self::reference::{MAX_NAME, Reference, ReferenceError};
pub use self::request::{Method, Request, RequestTarget};
pub use self::timeouts::Timeouts;
pub use self::tls::{TlsClient, TlsError};
use self::version::Agreement;
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
    agreement: Agreement,
    clock: clock::Clock,
}

impl Docker {
    /// Returns what the engine reported about itself.
    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    /// Returns the time by the engine's clock.
    pub fn now(&self) -> OffsetDateTime {
        self.0.clock.now()
    }

    /// Returns whether the endpoint is a Unix socket. A forwarded socket may still lead to another machine.
    pub fn is_local(&self) -> bool {
        self.socket().is_some()
    }

    /// Returns the path of the endpoint, if it is a Unix socket.
    pub fn socket(&self) -> Option<&Path> {
        match &self.0.endpoint {
            Endpoint::Unix(path) => Some(path),
            Endpoint::Tcp { .. } | Endpoint::Tls { .. } | Endpoint::Proxied { .. } => None,
        }
    }

    /// Returns the endpoint in the form of `DOCKER_HOST`, for messages.
    pub fn address(&self) -> String {
        self.0.endpoint.to_string()
    }

    /// Checks that the engine answers, within 10 s, and has an API version for this client if it had none before.
    pub fn ping(&self, cancel: &CancelToken) -> Result<(), Error> {
        let dialer = exchange::Dialer { version: None, ..self.dialer() };
        dialer.exchange(cancel, &mut self.ping_request())?.success()?;
        if self.has_no_version() { self.negotiate(cancel) } else { Ok(()) }
    }

    /// Returns whether the engine answers but does not reach containerd, which it reached before. The call quotes nothing that
    /// others have chosen.
    ///
    /// # Errors
    /// An engine error. An engine that does not answer within 10 s waits for containerd.
    pub fn has_lost_runtime(&self, cancel: &CancelToken) -> Result<bool, Error> {
        if !self.engine().has_containerd {
            return Ok(false);
        }
        let request =
            Request::get(RequestTarget::of("version")).head_within(self.timeouts().head.min(PING_WITHIN));
        match self.call(cancel, request).and_then(Response::json::<negotiate::Version>) {
            Ok(version) => Ok(!version.has_containerd()),
            Err(Error::Timeout { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sends any request, below `/vX.Y/`. Returns the response for any status, with its body unread. If the engine refuses
    /// the API version, negotiates it again and repeats the request.
    ///
    /// # Errors
    /// The request cannot be sent or gets no answer; [`Error::Version`] without a common version, or if the request has a
    /// stream, which cannot be repeated.
    pub fn exchange(&self, cancel: &CancelToken, mut request: Request<'_>) -> Result<Response, Error> {
        let version = self.api_version();
        let response = self.dialer().exchange(cancel, &mut request)?;
        self.answer(cancel, version, response, &mut request)
    }

    /// Sends a request without headers and body, to be answered later by way of `decode`.
    fn send<T>(
        &self,
        cancel: &CancelToken,
        request: Request<'static>,
        decode: fn(Response) -> Result<T, Error>,
    ) -> Result<Pending<T>, Error> {
        Pending::send(self, cancel, request, decode)
    }

    fn dialer(&self) -> exchange::Dialer<'_> {
        let Inner { endpoint, timeouts, .. } = &*self.0;
        exchange::Dialer { endpoint, timeouts, version: Some(self.api_version()) }
    }

    /// Like [`Docker::exchange`], but any status other than 2xx is an error.
    fn call(&self, cancel: &CancelToken, request: Request<'_>) -> Result<Response, Error> {
        self.exchange(cancel, request)?.success()
    }

    fn timeouts(&self) -> &Timeouts {
        &self.0.timeouts
    }
}
