//! The errors of the link: those that end it, and those of one attempt to connect.

use std::time::Duration;

use thiserror::Error;

/// What an operator can do about a [`LinkError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkErrorKind {
    /// Another attempt cannot succeed until an operator corrects a setting.
    Permanent,
    /// Every allowed attempt has failed.
    GaveUp,
    /// A bug in the worker.
    Panicked,
}

/// Why the link ended; its thread makes no further attempt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The URL cannot be used in a request.
    #[error("{reason}")]
    Unusable {
        /// The problem.
        reason: &'static str,
    },
    /// Too many attempts have failed, see [`LinkConfig::max_attempts`](super::LinkConfig::max_attempts).
    #[error("gave up after {failures} failures in a row; the last: {reason}")]
    GaveUp {
        /// How many attempts have failed since the last success.
        failures: u32,
        /// The last failure.
        reason: String,
    },
    /// A bug.
    #[error("the link's thread has panicked")]
    Panicked,
}

impl LinkError {
    /// What can be done about it.
    pub fn kind(&self) -> LinkErrorKind {
        match self {
            Self::Unusable { .. } => LinkErrorKind::Permanent,
            Self::GaveUp { .. } => LinkErrorKind::GaveUp,
            Self::Panicked => LinkErrorKind::Panicked,
        }
    }
}

/// Why the control plane, or a proxy that answered in its place, did not accept the connection. An operator may have to correct a
/// setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// 401.
    #[error(
        "the control plane answered 401: the API key is missing or unknown; check OZ_API_KEY or OZ_API_KEY_FILE"
    )]
    Unauthorized,
    /// 403.
    #[error(
        "the control plane answered 403: it does not accept this API key; check OZ_API_KEY or OZ_API_KEY_FILE"
    )]
    Forbidden,
    /// 404.
    #[error(
        "the control plane answered 404: check the path of the URL (--server-root-url or --web-socket-url)"
    )]
    NotFound,
    /// 407 from a proxy that intercepts the connection.
    #[error(
        "a proxy answered 407: set HTTPS_PROXY to it, with user name and password, or check the host in the URL \
         (--server-root-url or --web-socket-url)"
    )]
    ProxyLogin,
    /// Any other 4xx except 408, 425 and 429.
    #[error(
        "the control plane answered {status}: check the URL (--server-root-url or --web-socket-url), and the API key in \
         OZ_API_KEY or OZ_API_KEY_FILE"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// 3xx. Following it would send the API key to another host.
    #[error(
        "the control plane answered {status}: redirects are not followed; set the final URL \
         (--server-root-url or --web-socket-url)"
    )]
    Redirected {
        /// The HTTP status.
        status: u16,
    },
    /// 2xx instead of 101.
    #[error(
        "the control plane answered {status} instead of opening a WebSocket: check the path of the URL \
         (--server-root-url or --web-socket-url)"
    )]
    NotUpgraded {
        /// The HTTP status.
        status: u16,
    },
    /// The peer's certificate has expired or is not valid yet, by this machine's clock.
    #[error(
        "the certificate of {host} does not verify ({reason}): check the system clock, and renew the certificate if the \
         clock is right"
    )]
    CertificateDate {
        /// The host that was dialled.
        host: String,
        /// OpenSSL's verification error.
        reason: String,
    },
    /// The peer's certificate does not verify for another reason.
    #[error(
        "the certificate of {host} does not verify ({reason}): check the host name in the URL \
         (--server-root-url or --web-socket-url), the system clock, and the CA (--ca-file or SSL_CERT_FILE)"
    )]
    Certificate {
        /// The host that was dialled.
        host: String,
        /// OpenSSL's verification error.
        reason: String,
    },
}

impl Refusal {
    /// Whether it may pass without a change of the settings even if the worker was never connected: a machine may start before
    /// its clock is set.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::CertificateDate { .. })
    }
}

/// What an answer says besides its status.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// The beginning of its body, without the API key. Log it escaped.
    pub(super) body: String,
    /// The headers with `error` in their name, without the API key. Log it escaped.
    pub(super) error: String,
    /// How long not to try again, as the peer asks for.
    pub(super) retry_after: Option<Duration>,
}

/// What to do about [`DialError::Unreachable`].
pub(super) const CHECK_URL: &str =
    "check the host and the port of the URL (--server-root-url or --web-socket-url)";

/// Why an attempt to connect failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DialError {
    /// An operator may have to correct something.
    Refused(Refusal, Details),
    /// Another attempt may succeed.
    Transient(String, Details),
    /// The peer that the URL names cannot be reached: an outage, or a mistake in the URL, see [`CHECK_URL`].
    Unreachable(String),
    /// Another attempt cannot succeed.
    Permanent(LinkError),
    /// The attempt was cut short because the link is closing.
    Closing,
}

impl DialError {
    /// A failure without an answer.
    pub(super) fn transient(reason: impl Into<String>) -> Self {
        Self::Transient(reason.into(), Details::default())
    }
}
