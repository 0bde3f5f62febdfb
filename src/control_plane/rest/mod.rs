//! Looks up the state of runs over the control plane's REST API.
//!
//! The API key goes to the configured host only: redirects are not followed, and a proxy only opens a tunnel. A look-up that times
//! out while it resolves the host leaves a thread behind until the system's resolver gives up.

mod answer;
mod error;
mod poller;
mod proxy;
mod resolver;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{StatusCode, Uri};
use ureq::Agent;
use ureq::unversioned::transport::Connector;

use self::answer::state_of;
use self::proxy::{ProxyTcp, ProxyTls, Route, Tunnel};
use self::resolver::TimedResolver;
use self::tls::{CertificateError, TlsConnector};
use super::Network;
use crate::control_plane::key::ApiKey;
use crate::net::proxy::ProxyError;
use crate::net::url::authority;
use crate::net::user_agent;
use crate::protocol::RunState;

pub use self::answer::AnswerError;
pub use self::error::{ControlPlaneError, LookupError};
pub use self::poller::{RunPoller, RunStates};

/// The limit for a look-up, from DNS to the last byte of the body.
const DEADLINE: Duration = Duration::from_secs(10);

/// The largest body, in bytes. A run has a few hundred and its prompt.
const MAX_BODY: u64 = 1 << 20;
/// The largest head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// ureq's input buffer, in bytes. It must hold the largest head.
const INPUT_BUFFER: usize = 2 * MAX_HEAD;
/// ureq's output buffer, in bytes. It must hold any request; `http::Uri` allows 64 KiB.
const OUTPUT_BUFFER: usize = 128 << 10;
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
    deadline: Duration,
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
    /// Creates a client for the API below `server_root_url`, an `http` or `https` URL without user info and query.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn new(server_root_url: &str, api_key: &ApiKey) -> Result<Self, ControlPlaneError> {
        let uri: Uri = server_root_url.parse().map_err(|_| ControlPlaneError::Root)?;
        let origin = Origin::of(&uri).ok_or(ControlPlaneError::Root)?;
        let scheme = if origin.tls { "https" } else { "http" };
        let at = format!("{scheme}://{}", authority(&origin.host, origin.port));
        let root = server_root_url.trim_end_matches('/').to_owned();
        let (key, network) = (api_key.clone(), Network::default());
        Ok(Self { root, origin, at, key, deadline: DEADLINE, network })
    }

    /// Sets the proxies and the certificates.
    #[must_use]
    pub fn with_network(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// Replaces the limit for a look-up.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Returns the state of the run `task_id`; blocks for at most the deadline.
    ///
    /// # Errors
    /// There is no valid response. [`LookupError::Unknown`] means that the run does not exist, or that the API key may not
    /// see it.
    pub fn run_state(&self, task_id: &str) -> Result<RunState, LookupError> {
        self.session().run_state(task_id)
    }

    /// Starts a series of look-ups with the key of now, which share one connection if the control plane keeps it open.
    fn session(&self) -> Session {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(self.deadline))
            .max_response_header_size(MAX_HEAD)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .max_idle_connections(1)
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
        Session { plane: self.clone(), bearer: self.key.current().header, agent }
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlPlane({})", self.at)
    }
}

/// A series of look-ups on one connection. Dropping it closes the connection.
struct Session {
    plane: ControlPlane,
    bearer: HeaderValue,
    agent: Agent,
}

impl Session {
    fn run_state(&self, task_id: &str) -> Result<RunState, LookupError> {
        let path = answer::path(task_id).ok_or(LookupError::InvalidId)?;
        let uri: Uri = format!("{}{path}", self.plane.root).parse().map_err(|_| LookupError::InvalidId)?;
        let start = Instant::now();
        let explain = |error| self.explain(error, start.elapsed());
        let call = self.agent.get(uri).header(AUTHORIZATION, self.bearer.clone()).call();
        let mut response = call.map_err(explain)?;
        if response.status() != StatusCode::OK {
            return Err(self.classify(response.status().as_u16()));
        }
        let body = response.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(explain)?;
        state_of(task_id, &body).map_err(|source| LookupError::Answer { at: self.plane.at.clone(), source })
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
    fn explain(&self, error: ureq::Error, elapsed: Duration) -> LookupError {
        let at = self.plane.at.clone();
        let within = self.plane.deadline;
        match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                LookupError::Answer { at, source: AnswerError::TooLong { limit } }
            }
            ureq::Error::LargeResponseHeader(_, limit) => {
                LookupError::Answer { at, source: AnswerError::LongHead { limit } }
            }
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
            assert_eq!(plane.run_state(id), Err(LookupError::InvalidId));
        }
    }

    #[test]
    fn errors_of_ureq_become_one_short_line() {
        assert_eq!(one_line("a\r\nb\u{1b}"), "a  b ");
        assert_eq!(one_line(&"ü".repeat(500)).chars().count(), MAX_REASON);
    }
}
