//! What can go wrong between us and the engine.
//!
//! Owns the one error type of this room and the rule for what an engine may put into our logs: one line, bounded.
//! It must not know which task a call was for.

use std::io;
use std::time::Duration;

use super::tls::TlsError;

/// The longest engine message that is kept, in bytes.
pub const MAX_MESSAGE: usize = 1024;

/// What is said when a registry does not let somebody in, in lower case. `denied` is the registry API's code for an image
/// that one may not have, which Docker Hub also answers for one that does not exist.
const ACCESS_DENIED: [&str; 6] = [
    "unauthorized",
    "denied",
    "authentication required",
    "no basic auth credentials",
    "invalid username/password",
    "forbidden",
];

/// What an engine says while it has lost the program that runs its containers, or is losing it because it ends itself.
const UNWELL: [&str; 3] =
    ["transport is closing", "connection closed: unavailable", "connection error: desc"];

/// What an engine says when its own work for a call was ended, as when it ends itself.
const CUT_SHORT: &str = "context canceled";

/// A call to the engine that did not give what it was for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token of the call was cancelled, whatever else happened meanwhile.
    #[error("cancelled")]
    Cancelled,
    /// No connection: nobody listens there, no permission, or no answer to the connect in time.
    #[error("the docker engine at {address} is not reachable")]
    Unreachable {
        /// The endpoint as it would be written in `DOCKER_HOST`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A deadline passed.
    #[error("docker call stalled: {what}: nothing for {after:?}")]
    Timeout {
        /// The call and its phase, as `GET /info: reading the body`.
        what: String,
        /// The time that was allowed.
        after: Duration,
    },
    /// The engine answered with a status that is not a success.
    #[error("the docker engine answered {status}: {message}")]
    Engine {
        /// The HTTP status.
        status: u16,
        /// The engine's own words: one line of at most [`MAX_MESSAGE`] bytes.
        message: String,
    },
    /// The pull failed after its status 200, in the stream.
    #[error("pull failed: {message}")]
    Pull {
        /// The engine's own words, as in [`Error::Engine`].
        message: String,
    },
    /// What came back is not HTTP, not the promised JSON, or beyond a limit.
    #[error("unexpected answer from the docker engine: {what}")]
    Protocol {
        /// What was wrong with it.
        what: String,
    },
    /// The connection broke in the middle of a call; the engine may or may not have done what was asked.
    #[error("the connection to the docker engine broke: {what}")]
    Io {
        /// The call and its phase.
        what: String,
        /// Why; `UnexpectedEof` when the engine closed it.
        source: io::Error,
    },
    /// What was to be uploaded could not be read, so the upload was cut off.
    #[error("the source of an upload failed")]
    Upload {
        /// The reader's own error.
        source: io::Error,
    },
    /// An argument that can never be part of a request: an empty id, a control character.
    #[error("{what} cannot be sent to the docker engine")]
    Invalid {
        /// Which argument.
        what: String,
    },
    /// The engine is too old for us, or the pinned version is.
    #[error("docker API version {version} is too old: at least {needed} is needed")]
    TooOld {
        /// What the engine (or the pin) offers.
        version: String,
        /// What we need.
        needed: String,
    },
}

impl Error {
    /// The engine knows no such container, image, volume or path.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Engine { status: 404, .. })
    }

    /// The name is taken, or the object is in use or being removed. Podman 4 answers 500 for a name that is taken, so
    /// that its words have to tell.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Engine { status, message } => {
                *status == 409 || *status == 500 && message.contains("is already in use")
            }
            _ => false,
        }
    }

    /// There was no connection at all.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// A connection that was there broke, as happens when the engine restarts.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// The call ended because its token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// There is no engine at the moment, as while it is being restarted.
    pub fn is_gone(&self) -> bool {
        self.is_unreachable() || self.is_connection_lost()
    }

    /// The engine answers, but cannot do what needs its containers for the moment.
    pub fn is_degraded(&self) -> bool {
        match self {
            Self::Engine { status: 500.., message } => UNWELL.iter().any(|words| message.contains(words)),
            _ => false,
        }
    }

    /// The engine has not finished what was asked, and says so itself.
    pub fn is_interrupted(&self) -> bool {
        match self {
            Self::Engine { status: 500.., message } | Self::Pull { message } => message.contains(CUT_SHORT),
            _ => false,
        }
    }

    /// The engine says itself that what was asked never got to the program that runs its containers.
    pub fn was_not_executed(&self) -> bool {
        matches!(self, Self::Engine { status: 500.., message } if message.contains("while dialing"))
    }

    /// What is said of an engine that never came back; `address` is where it was.
    #[must_use]
    pub fn into_unreachable(self, address: String) -> Self {
        if self.is_unreachable() {
            return self;
        }
        Self::Unreachable { address, source: io::Error::other(self) }
    }

    /// The engine may have done what was asked all the same: the request was on its way and the answer was lost.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Io { .. } | Self::Protocol { .. } | Self::Cancelled)
    }

    /// A pull that the registry refused for its credentials, or for want of any. Registries, engines and Podman each have
    /// their own words for it, and the engine passes them on as text only.
    pub fn is_access_denied(&self) -> bool {
        let (Self::Pull { message } | Self::Engine { message, .. }) = self else { return false };
        // That is the engine's own disk.
        let message = message.to_lowercase().replace("permission denied", "");
        ACCESS_DENIED.iter().any(|words| message.contains(words))
    }

    /// What TLS has against the engine, or the engine against us, if that is it.
    pub fn tls(&self) -> Option<&TlsError> {
        match self {
            Self::Unreachable { source, .. } | Self::Io { source, .. } => TlsError::within(source),
            _ => None,
        }
    }

    /// The error behind a failed read of a [`Body`](super::Body), which can only hand out an [`io::Error`].
    pub fn from_read(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|source| Self::Upload { source })
    }

    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// Wraps it so that `std::io::Read` can carry it. Never `Interrupted`: readers retry on that.
    pub(super) fn into_read(self) -> io::Error {
        let kind = match &self {
            Self::Timeout { .. } => io::ErrorKind::TimedOut,
            Self::Cancelled => io::ErrorKind::ConnectionAborted,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::UnexpectedEof => {
                io::ErrorKind::UnexpectedEof
            }
            Self::Protocol { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

/// One line of at most [`MAX_MESSAGE`] bytes, without control characters.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut gap = false;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            gap = !line.is_empty();
            continue;
        }
        if line.len() + usize::from(gap) + c.len_utf8() + '…'.len_utf8() > MAX_MESSAGE {
            line.push('…');
            return line;
        }
        if std::mem::take(&mut gap) {
            line.push(' ');
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_one_bounded_line() {
        assert_eq!(one_line("  no such\r\n\timage\u{1b}[31m: x \0"), "no such image [31m: x");
        assert_eq!(one_line(""), "");
        let long = one_line(&"ü".repeat(5000));
        assert!(long.len() <= MAX_MESSAGE && long.ends_with('…'), "{} bytes", long.len());
        let words = one_line(&"a ".repeat(5000));
        assert!(words.len() <= MAX_MESSAGE && words.ends_with('…'), "{} bytes", words.len());
    }

    #[test]
    fn a_refused_pull_is_told_from_one_that_failed() {
        let pull = |message: &str| Error::Pull { message: message.into() };
        for refused in [
            "Get \"https://registry-1.docker.io/v2/\": unauthorized: incorrect username or password",
            "Head \"https://ghcr.io/v2/a/b/manifests/t\": denied: denied",
            "Head \"http://127.0.0.1:1/v2/a/manifests/t\": no basic auth credentials",
            "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized",
            "initializing source docker://h/a:t: unable to retrieve auth token: invalid username/password",
            "failed to resolve reference \"h/a:t\": unexpected status from HEAD request: 403 Forbidden",
        ] {
            assert!(pull(refused).is_access_denied(), "{refused}");
        }
        let message = "pull access denied for a, repository does not exist or may require 'docker login'";
        assert!(Error::Engine { status: 404, message: message.into() }.is_access_denied());
        for failed in
            ["manifest unknown", "failed to register layer: mkdir /x: Permission denied", "no space"]
        {
            assert!(!pull(failed).is_access_denied(), "{failed}");
        }
        assert!(!Error::Cancelled.is_access_denied());
    }

    #[test]
    fn an_engine_without_its_containerd_is_unwell_and_a_registry_that_is_away_is_not() {
        let engine = |status, message: &str| Error::Engine { status, message: message.into() };
        for message in [
            "transport is closing: unavailable",
            "connection closed: unavailable",
            "connection error: desc = \"transport: Error while dialing dial unix /c.sock: connect: connection refused\": unavailable",
        ] {
            assert!(engine(500, message).is_degraded() && !engine(400, message).is_degraded(), "{message}");
        }
        let dialled =
            engine(500, "connection error: desc = \"transport: Error while dialing dial unix /c.sock\"");
        assert!(dialled.was_not_executed() && !engine(500, "transport is closing").was_not_executed());
        let cut = Error::Pull { message: "download failed: context canceled".into() };
        assert!(cut.is_interrupted() && !cut.is_degraded());
        let registry = "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused";
        let pull = Error::Pull { message: registry.into() };
        assert!(!engine(500, registry).is_degraded() && !pull.is_degraded() && !pull.is_interrupted());
    }

    #[test]
    fn an_error_survives_the_way_through_read() {
        assert!(Error::from_read(Error::Cancelled.into_read()).is_cancelled());
        let timeout = Error::Timeout { what: "x".into(), after: Duration::from_secs(1) };
        assert_eq!(timeout.into_read().kind(), io::ErrorKind::TimedOut);
        let foreign = Error::from_read(io::Error::other("disk"));
        assert!(matches!(foreign, Error::Upload { .. }), "{foreign:?}");
    }
}
