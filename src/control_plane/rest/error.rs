//! Why a look-up failed. No error contains the API key, a path or a query, and each text is one line.

use std::time::Duration;

use thiserror::Error;

use super::answer::AnswerError;

/// The root URL cannot be used in a request. The configuration checks it first, so this is a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlPlaneError {
    /// The root is not an `http` or `https` URL of a host and an optional path.
    #[error("the REST URL must be http:// or https:// with a host and an optional path")]
    Root,
}

/// Why one look-up failed. `at` is the control plane as `scheme://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// 404: the run does not exist, or the API key may not see it.
    #[error("the control plane does not know this run")]
    Unknown,
    /// The id is too long for a URL or would change its path, so no request was made.
    #[error("the run's id cannot be part of a URL")]
    InvalidId,
    /// 401 or 403.
    #[error("{at} answered {status}: check the API key in OZ_API_KEY or OZ_API_KEY_FILE")]
    Refused {
        /// The control plane.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// 3xx. Following it could send the API key to another host.
    #[error("{at} answered {status}: redirects are not followed; set --rest-url to the final URL")]
    Redirected {
        /// The control plane.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// Any other status except 200.
    #[error("{at} answered {status}")]
    Status {
        /// The control plane.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// 200 with a head or a body that cannot be used.
    #[error("invalid response from {at}")]
    Answer {
        /// The control plane.
        at: String,
        /// Why it cannot be used.
        #[source]
        source: AnswerError,
    },
    /// The certificate does not verify.
    #[error(
        "the certificate of {at} does not verify ({reason}): check the host name in --rest-url, the system \
         clock, and the CA (--ca-file or SSL_CERT_FILE)"
    )]
    Certificate {
        /// The control plane.
        at: String,
        /// OpenSSL's verification error.
        reason: String,
    },
    /// No complete response before the deadline.
    #[error("{at} did not answer within {within:?}")]
    TimedOut {
        /// The control plane.
        at: String,
        /// The limit for a look-up.
        within: Duration,
    },
    /// DNS, TCP, TLS or HTTP failed.
    #[error("no answer from {at}: {reason}")]
    Unreachable {
        /// The control plane.
        at: String,
        /// The cause, at most 200 characters.
        reason: String,
    },
}

impl LookupError {
    /// Whether the look-up of any other run would now fail too.
    pub fn is_systemic(&self) -> bool {
        match self {
            Self::Unknown | Self::InvalidId | Self::Answer { .. } => false,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Refused { .. }
            | Self::Redirected { .. }
            | Self::Certificate { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. } => true,
        }
    }

    /// Whether the control plane seems to have no look-ups, or none for this API key: it has answered, and not as one that is
    /// overloaded or starts.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Unknown | Self::Answer { .. } | Self::Refused { .. } | Self::Redirected { .. } => true,
            Self::Status { .. } => !self.is_systemic(),
            Self::InvalidId | Self::Certificate { .. } | Self::TimedOut { .. } | Self::Unreachable { .. } => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_one_run_are_not_systemic() {
        let at = || "http://h:80".to_owned();
        let status = |status| LookupError::Status { at: at(), status }.is_systemic();
        assert!([500, 502, 503, 599, 408, 425, 429].into_iter().all(status));
        assert!(![400, 405, 410, 414, 422, 204].into_iter().any(status));
        assert!(!LookupError::Unknown.is_systemic() && !LookupError::InvalidId.is_systemic());
        assert!(!LookupError::Answer { at: at(), source: AnswerError::NoState }.is_systemic());
        assert!(LookupError::Refused { at: at(), status: 401 }.is_systemic());
        assert!(LookupError::TimedOut { at: at(), within: Duration::ZERO }.is_systemic());
    }

    #[test]
    fn an_overload_or_an_outage_does_not_mean_that_there_are_no_look_ups() {
        let at = || "http://h:80".to_owned();
        let status = |status| LookupError::Status { at: at(), status }.is_absent();
        assert!(![500, 502, 503, 599, 408, 425, 429].into_iter().any(status));
        assert!([400, 405, 410, 414, 422, 204].into_iter().all(status));
        assert!(LookupError::Unknown.is_absent() && !LookupError::InvalidId.is_absent());
        assert!(LookupError::Refused { at: at(), status: 401 }.is_absent());
        assert!(!LookupError::TimedOut { at: at(), within: Duration::ZERO }.is_absent());
        assert!(!LookupError::Unreachable { at: at(), reason: String::new() }.is_absent());
    }
}
