//! The errors of the link: those that end it, and those of one attempt to connect.

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

/// Why the link ended permanently; its thread makes no further attempt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// 401.
    #[error(
        "the control plane answered 401: the API key is missing or unknown; check OZ_API_KEY or OZ_API_KEY_FILE"
    )]
    Unauthorized,
    /// 403.
    #[error(
        "the control plane answered 403: the API key is not an admin key; check OZ_API_KEY or OZ_API_KEY_FILE"
    )]
    Forbidden,
    /// 404.
    #[error("the control plane answered 404: check the path of --web-socket-url")]
    NotFound,
    /// Any other 4xx except 408, 425 and 429.
    #[error(
        "the control plane answered {status}: check --web-socket-url, and the API key in OZ_API_KEY or OZ_API_KEY_FILE"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// 3xx. Following it would send the API key to another host.
    #[error(
        "the control plane answered {status}: redirects are not followed; set --web-socket-url to the final URL"
    )]
    Redirected {
        /// The HTTP status.
        status: u16,
    },
    /// 2xx instead of 101.
    #[error(
        "the control plane answered {status} instead of opening a WebSocket: check the path of --web-socket-url"
    )]
    NotUpgraded {
        /// The HTTP status.
        status: u16,
    },
    /// The peer's certificate does not verify.
    #[error(
        "the certificate of {host} does not verify ({reason}): check the host name in --web-socket-url, the system \
         clock, and the CA (SSL_CERT_FILE names a file of trusted certificates)"
    )]
    Certificate {
        /// The host that was dialled.
        host: String,
        /// OpenSSL's verification error.
        reason: String,
    },
    /// The URL or the API key cannot be used in a request.
    #[error("{reason}")]
    Unusable {
        /// The URL or the key, and the problem.
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
            Self::GaveUp { .. } => LinkErrorKind::GaveUp,
            Self::Panicked => LinkErrorKind::Panicked,
            _ => LinkErrorKind::Permanent,
        }
    }
}

/// Why an attempt to connect failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DialError {
    /// Another attempt cannot succeed.
    Permanent(LinkError),
    /// Another attempt may succeed.
    Transient(String),
    /// The attempt was cut short because the link is closing.
    Closing,
}
