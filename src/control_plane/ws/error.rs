//! Why the link ends for good.
//!
//! Owns the errors after which no other attempt is made, each with what to check. It must not know how they were
//! found, nor which exit code they become.

use thiserror::Error;

/// What an operator can do about a [`LinkError`]; the owner of the process maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkErrorKind {
    /// Trying again cannot help: something has to be set right first.
    Permanent,
    /// Every attempt that was allowed has failed.
    GaveUp,
    /// A bug in the worker.
    Panicked,
}

/// After this the link's thread is gone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// 401.
    #[error(
        "the control plane answered 401: the key is missing or unknown; check the key (OZ_API_KEY or OZ_API_KEY_FILE)"
    )]
    Unauthorized,
    /// 403.
    #[error(
        "the control plane answered 403: this is not the admin key; check the key (OZ_API_KEY or OZ_API_KEY_FILE)"
    )]
    Forbidden,
    /// 404.
    #[error("the control plane answered 404: check the path of the WebSocket URL")]
    NotFound,
    /// Any other 4xx but 408, 425 and 429.
    #[error(
        "the control plane answered {status}: it refuses this request; check the WebSocket URL and the key (OZ_API_KEY or \
         OZ_API_KEY_FILE)"
    )]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// 3xx. Following it would hand the key to another host.
    #[error(
        "the control plane answered {status}: a redirect is not followed; set the WebSocket URL to where it leads"
    )]
    Redirected {
        /// The HTTP status.
        status: u16,
    },
    /// 2xx instead of 101.
    #[error(
        "the answer was {status} without an upgrade: this is no WebSocket; check the path of the WebSocket URL"
    )]
    NotUpgraded {
        /// The HTTP status.
        status: u16,
    },
    /// The peer's certificate does not verify.
    #[error(
        "the certificate of {host} does not verify ({why}): check the host name in the URL, the date, and the CA \
         (SSL_CERT_FILE names a file of trusted ones)"
    )]
    Certificate {
        /// Whose certificate was asked for.
        host: String,
        /// What the TLS library said.
        why: String,
    },
    /// The URL or the key cannot be made into a request.
    #[error("no request can be made: {why}")]
    Unusable {
        /// Which part, and what is wrong with it.
        why: &'static str,
    },
    /// The give-up rule.
    #[error("gave up after {failures} failures in a row; the last: {why}")]
    GaveUp {
        /// How many attempts have failed.
        failures: u32,
        /// The last failure.
        why: String,
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

    /// Whether trying again could not help.
    pub fn permanent(&self) -> bool {
        self.kind() == LinkErrorKind::Permanent
    }
}
