//! Looks up the state of runs over the control plane's REST API.
//!
//! The API key goes to the configured host only: redirects are not followed, and a proxy only opens a tunnel. A look-up that times
//! out while it resolves the host leaves a thread behind until the system's resolver gives up.

mod answer;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod poller;
mod proxy;
mod resolver;
mod scan;
mod tls;

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, CONTENT_LENGTH, DATE};
use http::{Response, StatusCode, Uri};
use time::OffsetDateTime;
use ureq::unversioned::transport::Connector;
use ureq::{Agent, Body};

use self::answer::view;
use self::proxy::{ProxyTcp, ProxyTls, Route, Tunnel};
use self::resolver::TimedResolver;
use self::scan::Scanner;
use self::tls::{CertificateError, TlsConnector};
use super::Network;
use crate::control_plane::key::ApiKey;
use crate::job::MAX_LOOKUPS;
use crate::net::date;
use crate::net::proxy::ProxyError;
use crate::net::url::authority;
use crate::net::user_agent;
use crate::protocol::RunView;

pub use self::answer::AnswerError;
pub use self::error::{ControlPlaneError, LookupError};
pub use self::poller::RunPoller;

/// The path of the page about the health.
const HEALTH: &str = "/health";
/// The most bytes of a body that are read. A run repeats its task's output, of up to 64 MiB, and its bytes may be escaped.
const MAX_BODY: u64 = 512 << 20;
/// How much of a body is read at once, in bytes, on the stack.
const PIECE: usize = 8 << 10;
/// The largest head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// ureq's input buffer, in bytes. It must hold the largest head.
const INPUT_BUFFER: usize = 2 * MAX_HEAD;
/// ureq's output buffer, in bytes. It must hold any request; `http::Uri` allows 64 KiB.
const OUTPUT_BUFFER: usize = 128 << 10;
/// How long a connection without a look-up is used again. Servers close theirs after 5 s or more.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// The most characters of a [`LookupError::Unreachable`] reason.
const MAX_REASON: usize = 400;

/// A client of the control plane's REST API.
#[derive(Clone)]
pub struct ControlPlane {
    root: String,
    origin: Origin,
    /// `scheme://host:port`, for log lines.
    at: String,
    key: ApiKey,
    max_body: u64,
    network: Network,
}

/// The part of a URL that names the peer.
#[derive(Debug, Clone)]
struct Origin {
    tls: bool,
    /// A host name, or an IP address without brackets.
    host: String,
    port: u16,
}

impl ControlPlane {
    /// Creates a client for the API below `rest_url`, an `http` or `https` URL without user info and query.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn new(rest_url: &str, api_key: &ApiKey) -> Result<Self, ControlPlaneError> {
        let uri: Uri = rest_url.parse().map_err(|_| ControlPlaneError::Root)?;
        let origin = Origin::of(&uri).ok_or(ControlPlaneError::Root)?;
        let scheme = if origin.tls { "https" } else { "http" };
        let at = format!("{scheme}://{}", authority(&origin.host, origin.port));
        let root = rest_url.trim_end_matches('/').to_owned();
        let (key, network) = (api_key.clone(), Network::default());
        Ok(Self { root, origin, at, key, max_body: MAX_BODY, network })
    }

    /// Sets the proxies and the certificates.
    #[must_use]
    pub fn with_network(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// Replaces the most bytes of a body that are read.
    #[must_use]
    pub fn with_max_body(self, max_body: u64) -> Self {
        Self { max_body, ..self }
    }

    /// Looks up the run `task_id`; blocks for at most `limit`, from DNS to the last byte that is read of the body.
    ///
    /// # Errors
    /// There is no valid response. [`LookupError::Unknown`] means that the run does not exist, or that the API key may not
    /// see it.
    pub fn look_up(&self, task_id: &str, limit: Duration) -> Result<RunView, LookupError> {
        self.session().look_up(task_id, limit)
    }

    /// Asks whether the control plane is well, without the API key; blocks for at most `limit`.
    ///
    /// # Errors
    /// There is no answer.
    pub fn health(&self, limit: Duration) -> Result<Health, LookupError> {
        self.session().health(limit)
    }

    /// Starts a series of look-ups that share connections if the control plane keeps them open.
    fn session(&self) -> Session {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_response_header_size(MAX_HEAD)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .max_idle_age(KEEP_ALIVE)
            .max_idle_connections(MAX_LOOKUPS)
            .max_idle_connections_per_host(MAX_LOOKUPS)
            .user_agent(user_agent())
            .accept("application/json")
            .build();
        let Origin { tls, host, port } = &self.origin;
        let proxy = self.network.proxies.choose(*tls, host, *port).cloned();
        let trust = &self.network.trust;
        let route = proxy.map(|proxy| Route { proxy, host: host.clone(), port: *port });
        let resolver = TimedResolver { proxy: route.as_ref().map(|route| Arc::clone(&route.proxy)) };
        let connector =
            ().chain(ProxyTcp::new(route.as_ref()))
                .chain(ProxyTls { route: route.clone(), trust: trust.clone() })
                .chain(Tunnel { route })
                .chain(TlsConnector { trust: trust.clone() });
        let agent = Agent::with_parts(config, connector, resolver);
        Session { plane: self.clone(), agent }
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlPlane({})", self.at)
    }
}

/// The answer of the page about the health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The HTTP status.
    pub status: u16,
    /// The control plane's time; `None` if it does not tell.
    pub date: Option<OffsetDateTime>,
}

/// A series of look-ups. Dropping it closes the idle connections.
struct Session {
    plane: ControlPlane,
    agent: Agent,
}

impl Session {
    fn look_up(&self, task_id: &str, limit: Duration) -> Result<RunView, LookupError> {
        let path = answer::path(task_id).ok_or(LookupError::InvalidId)?;
        let uri: Uri = format!("{}{path}", self.plane.root).parse().map_err(|_| LookupError::InvalidId)?;
        let start = Instant::now();
        let explain = |error| self.explain(error, start.elapsed(), limit);
        let request = self.agent.get(uri).config().timeout_global(Some(limit)).build();
        let call = request.header(AUTHORIZATION, self.plane.key.current().header).call();
        let response = call.map_err(explain)?;
        if response.status() != StatusCode::OK {
            return Err(self.classify(response.status().as_u16()));
        }
        let scanner = self.scan(response).map_err(|error| match error {
            ScanError::Http(error) => explain(error),
            ScanError::Answer(source) => self.invalid(source),
        })?;
        scanner.finish().and_then(|found| view(task_id, found)).map_err(|source| self.invalid(source))
    }

    fn health(&self, limit: Duration) -> Result<Health, LookupError> {
        let start = Instant::now();
        let uri = format!("{}{HEALTH}", self.plane.root);
        let request = self.agent.get(uri).config().timeout_global(Some(limit)).build();
        let response = request.call().map_err(|error| self.explain(error, start.elapsed(), limit))?;
        let date = response.headers().get(DATE).and_then(|date| date::parse(date.to_str().ok()?));
        Ok(Health { status: response.status().as_u16(), date })
    }

    /// Reads the body until the fields are found. The connection is closed if more of the body follows.
    fn scan(&self, mut response: Response<Body>) -> Result<Scanner, ScanError> {
        let length =
            response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut scanner = Scanner::new();
        let mut reader = response.body_mut().with_config().limit(self.plane.max_body).reader();
        let mut piece = [0; PIECE];
        let mut received = 0;
        loop {
            let count = reader.read(&mut piece).map_err(ureq::Error::from)?;
            received += count;
            if count == 0 || scanner.feed(piece.get(..count).unwrap_or_default())? {
                break;
            }
        }
        if length == Some(received) {
            // Does not wait, and lets the connection be used again.
            let _ = reader.read(&mut piece);
        }
        Ok(scanner)
    }

    fn invalid(&self, source: AnswerError) -> LookupError {
        LookupError::Answer { at: self.plane.at.clone(), source }
    }

    /// Returns the error for a status other than 200.
    fn classify(&self, status: u16) -> LookupError {
        let at = self.plane.at.clone();
        match status {
            404 => LookupError::Unknown,
            401 | 403 => LookupError::Refused { at, status },
            300..=399 => LookupError::Redirected { at, status },
            _ => LookupError::Status { at, status },
        }
    }

    /// Returns the error for a request that failed after `elapsed`.
    fn explain(&self, error: ureq::Error, elapsed: Duration, within: Duration) -> LookupError {
        let at = self.plane.at.clone();
        match error {
            ureq::Error::BodyExceedsLimit(limit) => self.invalid(AnswerError::TooLong { limit }),
            ureq::Error::LargeResponseHeader(_, limit) => self.invalid(AnswerError::LongHead { limit }),
            ureq::Error::Timeout(_) => LookupError::TimedOut { at, within },
            ureq::Error::Other(error) if error.is::<ProxyError>() => {
                LookupError::Unreachable { at, reason: one_line(&error.to_string()) }
            }
            // TLS reports a time-out as a separate error.
            _ if elapsed >= within => LookupError::TimedOut { at, within },
            ureq::Error::Other(error) => match error.downcast::<CertificateError>() {
                Ok(error) => LookupError::Certificate { at, reason: error.0 },
                Err(error) => LookupError::Unreachable { at, reason: one_line(&error.to_string()) },
            },
            ureq::Error::Protocol(error) if !self.plane.origin.tls => {
                let reason = format!(
                    "it does not answer with HTTP ({error}); a port with TLS needs https:// in the URL"
                );
                LookupError::Unreachable { at, reason: one_line(&reason) }
            }
            error => LookupError::Unreachable { at, reason: one_line(&error.to_string()) },
        }
    }
}

impl Origin {
    /// Returns the peer of a root URL, or `None` if it cannot be one.
    fn of(root: &Uri) -> Option<Self> {
        let (tls, default_port) = match root.scheme_str()? {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let authority = root.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = Some(authority.host()).filter(|host| !host.is_empty())?;
        // Only URLs have brackets around IPv6 addresses.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = root.port_u16().unwrap_or(default_port);
        root.query().is_none().then_some(Self { tls, host, port })
    }
}

/// Why a body could not be scanned.
enum ScanError {
    Http(ureq::Error),
    Answer(AnswerError),
}

impl From<ureq::Error> for ScanError {
    fn from(error: ureq::Error) -> Self {
        Self::Http(error)
    }
}

impl From<AnswerError> for ScanError {
    fn from(error: AnswerError) -> Self {
        Self::Answer(error)
    }
}

/// Replaces control characters and cuts the text, parts of which may come from the peer.
fn one_line(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn plane(root: &str) -> Result<ControlPlane, ControlPlaneError> {
        ControlPlane::new(root, &ApiKey::new(Secret::new("k3y")).unwrap())
    }

    #[test]
    fn debug_shows_neither_path_nor_key() {
        let cases = [
            ("http://h", "http://h:80"),
            ("https://h.example/base/", "https://h.example:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ];
        for (root, at) in cases {
            let plane = plane(root).unwrap();
            assert_eq!(plane.at, at);
            assert_eq!(format!("{plane:?}"), format!("ControlPlane({at})"));
        }
    }

    #[test]
    fn invalid_roots_are_refused() {
        for root in
            ["", "h", "/p", "ws://h", "ftp://h/", "http://", "http://u:p@h", "http://h/?q=1", "http://a b"]
        {
            assert_eq!(plane(root).unwrap_err(), ControlPlaneError::Root, "{root}");
        }
    }

    #[test]
    fn an_id_that_cannot_be_in_a_url_is_not_looked_up() {
        // Nothing listens on port 1, so a request would fail with another error.
        let plane = plane("http://127.0.0.1:1").unwrap();
        for id in ["", ".", "..", &"x".repeat(70_000)] {
            assert_eq!(plane.look_up(id, Duration::from_secs(1)), Err(LookupError::InvalidId));
        }
    }

    #[test]
    fn errors_of_ureq_become_one_short_line() {
        assert_eq!(one_line("a\r\nb\u{1b}"), "a  b ");
        assert_eq!(one_line(&"ü".repeat(500)).chars().count(), MAX_REASON);
    }
}
