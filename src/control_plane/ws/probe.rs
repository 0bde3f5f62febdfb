//! One attempt to connect for an operator who asks whether the worker can, step by step.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::LinkConfig;
use super::dial::{Origin, Passed, dial_in_steps};
use super::error::{CHECK_URL, Details, DialError};
use super::outbox;
use super::session::finish;
use super::socket::CloseReason;

/// How long the close may take.
const CLOSE: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotConnected {
    /// The cause and the remedy, for people.
    pub reason: String,
    /// The beginning of the answer's body, at most 8 KiB, without the API key. Show it escaped.
    pub body: String,
    /// The headers of the answer with `error` in their name, without the API key. Show it escaped.
    pub error: String,
    /// How long not to try again.
    pub retry_after: Option<Duration>,
}

/// Connects with the API key, and closes the connection at once. Passes each step that has succeeded to `passed`. What the control
/// plane sends meanwhile is dropped, so it gives a run to another worker.
///
/// # Errors
/// There is no connection.
pub fn probe(link: &LinkConfig, passed: &dyn Fn(Passed)) -> Result<(), NotConnected> {
    let (_outbox, inbox) = outbox::pair().map_err(|error: io::Error| plain(error.to_string()))?;
    let inbox = Rc::new(inbox);
    let mut socket = dial_in_steps(link, &inbox, passed).map_err(|error| match error {
        DialError::Refused(refusal, details) => with(refusal.to_string(), details),
        DialError::Transient(reason, details) => with(reason, details),
        DialError::Unreachable(reason) => plain(format!("{reason}; {CHECK_URL}")),
        DialError::Permanent(error) => plain(error.to_string()),
        DialError::Closing => plain("cancelled".to_owned()),
    })?;
    // The peer may have closed already.
    if socket.queue_close(CloseReason::Leaving).is_ok() {
        finish(&mut socket, &inbox, CLOSE, true);
    }
    Ok(())
}

/// Returns the proxy on the way to the control plane, without credentials.
pub fn proxy_of(link: &LinkConfig) -> Option<String> {
    Origin::of(&link.url).ok()?.proxy(&link.network).map(ToString::to_string)
}

fn plain(reason: String) -> NotConnected {
    with(reason, Details::default())
}

fn with(reason: String, details: Details) -> NotConnected {
    let Details { body, error, retry_after } = details;
    NotConnected { reason, body, error, retry_after }
}
