//! Errors of engine calls. Messages of the engine are reduced to one line of at most [`MAX_MESSAGE`] bytes.

use std::io;
use std::time::Duration;

use super::ApiVersion;
use super::tls::TlsError;

/// The most bytes kept of an engine message.
pub const MAX_MESSAGE: usize = 1024;

/// Parts of messages about refused credentials, in lower case. `denied` is the registry API's code for an image without
/// access; Docker Hub also uses it for an image that does not exist.
const ACCESS_DENIED: [&str; 6] = [
    "unauthorized",
    "denied",
    "authentication required",
    "no basic auth credentials",
    "invalid username/password",
    "forbidden",
];

/// Parts of messages of an engine that is shutting down or has no connection to containerd. A message also quotes what others
/// have chosen, such as a path or the answer of a registry, so they prove nothing.
const OUTAGE: [&str; 4] =
    ["transport is closing", "connection closed: unavailable", "connection error: desc", "context canceled"];

/// Why a call to the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call's token was cancelled. Takes precedence over any other error.
    #[error("cancelled")]
    Cancelled,
    /// No connection could be made.
    #[error("the docker engine at {address} is not reachable")]
    Unreachable {
        /// The endpoint as it would be written in `DOCKER_HOST`.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// This process or the system has no file descriptor left, or no process or thread. It says nothing about the engine.
    #[error("the worker has no file descriptor or process left; raise LimitNOFILE=, TasksMax= or ulimit")]
    Exhausted {
        /// The cause.
        source: io::Error,
    },
    /// A deadline passed.
    #[error("docker call stalled for {after:?}: {what}")]
    Timeout {
        /// The call and its phase, such as `GET /info: reading the body`.
        what: String,
        /// The time limit.
        after: Duration,
    },
    /// The engine answered with an error status.
    #[error("the docker engine answered {status}: {message}")]
    Engine {
        /// The HTTP status.
        status: u16,
        /// The engine's message: one line of at most [`MAX_MESSAGE`] bytes.
        message: String,
    },
    /// A proxy in front of the engine does not allow the call.
    #[error(
        "{address} does not allow {call}: allow it in the proxy there; oz-agent-worker(1) lists the calls under ENGINE"
    )]
    Forbidden {
        /// The method and the path.
        call: String,
        /// The endpoint as it would be written in `DOCKER_HOST`.
        address: String,
    },
    /// The pull failed after the engine had answered 200.
    #[error("pull failed: {message}")]
    Pull {
        /// The engine's message, as in [`Error::Engine`].
        message: String,
    },
    /// The answer is not HTTP, not the expected JSON, or exceeds a limit.
    #[error("unexpected answer from the docker engine: {what}")]
    Protocol {
        /// The problem.
        what: String,
    },
    /// The connection was lost during a call. The engine may or may not have executed the request.
    #[error("lost the connection to the docker engine: {what}")]
    Io {
        /// The call and its phase.
        what: String,
        /// The cause; `UnexpectedEof` if the engine closed the connection.
        source: io::Error,
    },
    /// The data of an upload could not be read, so the upload was aborted.
    #[error("cannot read the data to upload to the docker engine")]
    Upload {
        /// The reader's error.
        source: io::Error,
    },
    /// An argument that cannot be part of a request, such as an empty id or a control character.
    #[error("{what} cannot be sent to the docker engine")]
    Invalid {
        /// The argument.
        what: String,
    },
    /// The engine refuses the API version, and no other one can be used, as after an upgrade; or the request must be repeated
    /// by the caller. Nothing was executed.
    #[error("the docker engine at {address} refuses API version {version}: {message}")]
    Version {
        /// The endpoint as it would be written in `DOCKER_HOST`.
        address: String,
        /// The refused version.
        version: ApiVersion,
        /// The reason: the engine's message, as in [`Error::Engine`], or this client's.
        message: String,
    },
    /// The engine's newest API version, or the pinned one, is too old.
    #[error("docker API version {version} is too old: at least {needed} is needed")]
    TooOld {
        /// The version of the engine or the pin.
        version: String,
        /// The oldest supported version.
        needed: String,
    },
}

impl Error {
    /// Returns whether the container, image, volume or path does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Engine { status: 404, .. })
    }

    /// Returns whether a name is taken, or an object is in use or being removed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Engine { status: 409, .. })
    }

    /// Returns whether the engine cannot be used now: no connection could be made, or there is no common API version.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Version { .. })
    }

    /// Returns whether this process or the system has no file descriptor left.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Self::Exhausted { .. })
    }

    /// Returns whether the connection was lost during the call, such as by an engine restart.
    pub fn is_connection_lost(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// Returns whether the call's token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Returns whether there is currently no engine, such as during its restart.
    pub fn is_gone(&self) -> bool {
        self.is_unreachable() || self.is_connection_lost()
    }

    /// Returns whether the message is like one of an engine that is about to go away. That decides nothing, because the message
    /// may quote anything: ask the engine again.
    pub fn hints_at_outage(&self) -> bool {
        match self {
            Self::Engine { status: 500.., message } | Self::Pull { message } => {
                OUTAGE.iter().any(|words| message.contains(words))
            }
            _ => false,
        }
    }

    /// Returns whether the message says that the engine could not reach containerd, so that the request was not executed. It may
    /// quote anything, so it counts only if the engine has lost its container runtime.
    pub fn was_not_executed(&self) -> bool {
        matches!(self, Self::Engine { status: 500.., message } if message.contains("while dialing"))
    }

    /// Converts the last error into [`Error::Unreachable`], for an engine at `address` that did not come back. [`Error::Exhausted`]
    /// stays.
    #[must_use]
    pub fn into_unreachable(self, address: String) -> Self {
        if self.is_unreachable() || self.is_exhausted() {
            return self;
        }
        Self::Unreachable { address, source: io::Error::other(self) }
    }

    /// Returns whether the engine may have executed the request although the call failed.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Io { .. } | Self::Protocol { .. } | Self::Cancelled)
    }

    /// Returns whether the registry refused a pull because of its credentials or their absence. The engine passes on only
    /// the message, which differs between registries and engines.
    pub fn is_access_denied(&self) -> bool {
        let (Self::Pull { message } | Self::Engine { message, .. }) = self else { return false };
        // "permission denied" is about the engine's own disk.
        let message = message.to_lowercase().replace("permission denied", "");
        ACCESS_DENIED.iter().any(|words| message.contains(words))
    }

    /// Returns the TLS error behind this one, if any.
    pub fn tls(&self) -> Option<&TlsError> {
        match self {
            Self::Unreachable { source, .. } | Self::Io { source, .. } => TlsError::within(source),
            _ => None,
        }
    }

    /// Recovers the error from a failed read of a [`Body`](super::Body). Any other reader's error is [`Error::Upload`].
    pub fn from_read(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|source| Self::Upload { source })
    }

    pub(super) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }

    /// Wraps the error for `std::io::Read`. Its kind is never `Interrupted`, on which readers retry.
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

/// Returns `text` as one line of at most [`MAX_MESSAGE`] bytes, without control characters.
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
    fn refused_credentials_are_distinguished_from_other_failed_pulls() {
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
    fn a_message_hints_at_an_outage_only_if_the_engine_failed() {
        let engine = |status, message: &str| Error::Engine { status, message: message.into() };
        for message in [
            "transport is closing: unavailable",
            "connection closed: unavailable",
            "connection error: desc = \"transport: Error while dialing dial unix /c.sock: connect: connection refused\": unavailable",
            "download failed: context canceled",
        ] {
            assert!(
                engine(500, message).hints_at_outage() && !engine(400, message).hints_at_outage(),
                "{message}"
            );
            assert!(Error::Pull { message: message.into() }.hints_at_outage());
        }
        assert!(
            !engine(500, "Get \"http://127.0.0.1:1/v2/\": connect: connection refused").hints_at_outage()
        );
    }

    #[test]
    fn an_error_passes_through_read() {
        assert!(Error::from_read(Error::Cancelled.into_read()).is_cancelled());
        let timeout = Error::Timeout { what: "x".into(), after: Duration::from_secs(1) };
        assert_eq!(timeout.into_read().kind(), io::ErrorKind::TimedOut);
        let external = Error::from_read(io::Error::other("disk"));
        assert!(matches!(external, Error::Upload { .. }), "{external:?}");
    }
}
