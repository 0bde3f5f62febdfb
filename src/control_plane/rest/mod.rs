//! The control plane's REST side: where a run stands, asked for by id.
//!
//! Owns one look-up with its deadline and its bounds ([`ControlPlane`]), and the thread that makes them ([`RunPoller`]). It
//! must not know what follows from a state. Neither a redirect nor a proxy in the environment has a say in where it goes,
//! and the key goes to the configured host only.
//!
//! A name is resolved in a short-lived thread of ureq's, since that is all that keeps the deadline: a resolver that is
//! stuck is left behind until it gives up by itself.

mod answer;
mod error;
mod poller;
mod tls;

use std::fmt;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Response, StatusCode, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Body};

use self::tls::{Distrusted, Tls};
use crate::protocol::RunState;
use crate::secret::Secret;

pub use self::answer::{AnswerError, state_of};
pub use self::error::{ControlPlaneError, LookupError};
pub use self::poller::{RunPoller, RunStates};

/// How long a look-up may take, from the name to the last byte.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The largest body, in bytes. A run's is some hundred, and its prompt.
const MAX_BODY: u64 = 1 << 20;
/// The largest head, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Holds the largest head.
const INPUT_BUFFER: usize = 2 * MAX_HEAD;
/// Holds the head of any request: a URL has at most 64 KiB.
const OUTPUT_BUFFER: usize = 128 << 10;
/// Characters of somebody else's words that are shown.
const LONGEST_WHY: usize = 200;
const AGENT: &str = concat!("oz-agent-worker/", env!("CARGO_PKG_VERSION"));

/// Where the control plane is, who asks, and how long a look-up may take.
#[derive(Clone)]
pub struct ControlPlane {
    root: String,
    /// `scheme://host:port`, for people.
    at: String,
    bearer: HeaderValue,
    deadline: Duration,
}

impl ControlPlane {
    /// The control plane below `server_root_url`: `http` or `https`, without user info, query and fragment.
    ///
    /// # Errors
    /// The URL or the key cannot be used.
    pub fn new(server_root_url: &str, api_key: &Secret) -> Result<Self, ControlPlaneError> {
        let uri: Uri = server_root_url.parse().map_err(|_| ControlPlaneError::Root)?;
        let at = place(&uri).ok_or(ControlPlaneError::Root)?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", api_key.expose()))
            .map_err(|_| ControlPlaneError::Key)?;
        bearer.set_sensitive(true);
        let root = server_root_url.trim_end_matches('/').to_owned();
        Ok(Self { root, at, bearer, deadline: DEADLINE })
    }

    /// The same with another deadline for each look-up.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Where the run `task_id` stands. It blocks, for the deadline at most.
    ///
    /// # Errors
    /// There is no answer, or none that tells a state. [`LookupError::Unknown`] says as little as the others about the
    /// run: it is also the answer to a key that may not see it.
    pub fn run_state(&self, task_id: &str) -> Result<RunState, LookupError> {
        self.session().run_state(task_id)
    }

    /// For look-ups one after the other, over one connection if the control plane keeps it.
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
            .user_agent(AGENT)
            .accept("application/json")
            .build();
        let connector = ().chain(TcpConnector::default()).chain(Tls);
        let agent = Agent::with_parts(config, connector, DefaultResolver::default());
        Session { plane: self.clone(), agent }
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlPlane({})", self.at)
    }
}

/// Look-ups that share a connection, which ends with this.
struct Session {
    plane: ControlPlane,
    agent: Agent,
}

impl Session {
    fn run_state(&self, task_id: &str) -> Result<RunState, LookupError> {
        let path = answer::path(task_id).ok_or(LookupError::Unaskable)?;
        let uri: Uri = format!("{}{path}", self.plane.root).parse().map_err(|_| LookupError::Unaskable)?;
        let start = Instant::now();
        let failed = |error| self.failed(error, start.elapsed());
        let call = self.agent.get(uri).header(AUTHORIZATION, self.plane.bearer.clone()).call();
        let mut response = call.map_err(failed)?;
        self.judge(response.status())?;
        let body = read(&mut response).map_err(failed)?;
        state_of(task_id, &body).map_err(|source| LookupError::Answer { at: self.at(), source })
    }

    fn at(&self) -> String {
        self.plane.at.clone()
    }

    fn judge(&self, status: StatusCode) -> Result<(), LookupError> {
        let (at, status) = (self.at(), status.as_u16());
        Err(match status {
            200 => return Ok(()),
            404 => LookupError::Unknown,
            401 | 403 => LookupError::Refused { at, status },
            300..=399 => LookupError::Redirected { at, status },
            _ => LookupError::Status { at, status },
        })
    }

    fn failed(&self, error: ureq::Error, after: Duration) -> LookupError {
        let (at, within) = (self.at(), self.plane.deadline);
        let unusable = |source| LookupError::Answer { at: at.clone(), source };
        match error {
            ureq::Error::BodyExceedsLimit(limit) => unusable(AnswerError::TooLong { limit }),
            ureq::Error::LargeResponseHeader(_, limit) => unusable(AnswerError::LongHead { limit }),
            // TLS may tell a time-out in words of its own.
            ureq::Error::Timeout(_) => LookupError::TimedOut { at, within },
            _ if after >= within => LookupError::TimedOut { at, within },
            ureq::Error::Other(error) => match error.downcast::<Distrusted>() {
                Ok(distrusted) => LookupError::Certificate { at, why: distrusted.0 },
                Err(error) => LookupError::Unreachable { at, why: one_line(&error.to_string()) },
            },
            error => LookupError::Unreachable { at, why: one_line(&error.to_string()) },
        }
    }
}

fn read(response: &mut Response<Body>) -> Result<Vec<u8>, ureq::Error> {
    response.body_mut().with_config().limit(MAX_BODY).read_to_vec()
}

/// `scheme://host:port` of a URL that can be a root.
fn place(root: &Uri) -> Option<String> {
    let scheme = root.scheme_str()?;
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let authority = root.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let host = Some(authority.host()).filter(|host| !host.is_empty())?;
    let port = root.port_u16().unwrap_or(port);
    root.query().is_none().then(|| format!("{scheme}://{host}:{port}"))
}

/// Some of these words are the peer's.
fn one_line(words: &str) -> String {
    words.chars().take(LONGEST_WHY).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(root: &str) -> Result<ControlPlane, ControlPlaneError> {
        ControlPlane::new(root, &Secret::new("k3y"))
    }

    #[test]
    fn the_place_is_shown_without_path_and_key() {
        let cases = [
            ("http://h", "http://h:80"),
            ("https://h.example/base/", "https://h.example:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ];
        for (root, at) in cases {
            let plane = plane(root).unwrap();
            assert_eq!(plane.at, at);
            assert_eq!(format!("{plane:?} {:?}", plane.bearer), format!("ControlPlane({at}) Sensitive"));
        }
    }

    #[test]
    fn what_is_no_root_is_refused() {
        for root in
            ["", "h", "/p", "ws://h", "ftp://h/", "http://", "http://u:p@h", "http://h/?q=1", "http://a b"]
        {
            assert_eq!(plane(root).unwrap_err(), ControlPlaneError::Root, "{root}");
        }
        let broken = ControlPlane::new("http://h", &Secret::new("a\nb"));
        assert_eq!(broken.unwrap_err(), ControlPlaneError::Key);
    }

    #[test]
    fn an_id_that_no_url_can_name_is_not_asked_for() {
        // Nobody listens on port 1, so anything that is sent would fail in another way.
        let plane = plane("http://127.0.0.1:1").unwrap();
        for id in ["", ".", "..", &"x".repeat(70_000)] {
            assert_eq!(plane.run_state(id), Err(LookupError::Unaskable));
        }
    }

    #[test]
    fn the_words_of_others_are_one_short_line() {
        assert_eq!(one_line("a\r\nb\u{1b}"), "a  b ");
        assert_eq!(one_line(&"ü".repeat(500)).chars().count(), LONGEST_WHY);
    }
}
