//! Why a look-up gave no state.
//!
//! Owns the words, and which failures the next look-up would meet as well. It must not know how they were found. No
//! error has the key, a path or a query in it, and each is one line.

use std::time::Duration;

use thiserror::Error;

use super::answer::AnswerError;

/// The settings cannot be used. The configuration has ruled that out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ControlPlaneError {
    /// The root is not an `http` or `https` URL with a host and, perhaps, a path.
    #[error("the control plane's root URL cannot be used")]
    Root,
    /// The key is no header.
    #[error("the API key has characters that no HTTP header may have")]
    Key,
}

/// One look-up that gave no state; `at` is the control plane as `scheme://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// 404: the run is not there, or the key may not see it.
    #[error("the control plane does not know this run")]
    Unknown,
    /// The id is too long for a URL, or would be read as a step of its path: nothing was asked.
    #[error("no URL can name this run")]
    Unaskable,
    /// 401 or 403.
    #[error("{at} answered {status}: check the key (OZ_API_KEY or OZ_API_KEY_FILE)")]
    Refused {
        /// Who.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// 3xx. Following it could hand the key to another host.
    #[error("{at} answered {status}: a redirect is not followed; set --server-root-url to where it leads")]
    Redirected {
        /// Who.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// Any other status but 200.
    #[error("{at} answered {status}")]
    Status {
        /// Who.
        at: String,
        /// The HTTP status.
        status: u16,
    },
    /// 200 with something that is no state.
    #[error("the answer of {at} cannot be used")]
    Answer {
        /// Who.
        at: String,
        /// What is wrong with it.
        #[source]
        source: AnswerError,
    },
    /// The certificate does not verify.
    #[error(
        "the certificate of {at} does not verify ({why}): check the host name in the URL, the date, and the CA \
         (SSL_CERT_FILE names a file of trusted ones)"
    )]
    Certificate {
        /// Who.
        at: String,
        /// What the TLS library said.
        why: String,
    },
    /// No whole answer in time.
    #[error("{at} has not answered within {within:?}")]
    TimedOut {
        /// Who.
        at: String,
        /// The deadline of a look-up.
        within: Duration,
    },
    /// The name, the connection or what came over it is broken.
    #[error("no answer from {at}: {why}")]
    Unreachable {
        /// Who.
        at: String,
        /// What was said, at most 200 characters.
        why: String,
    },
}

impl LookupError {
    /// Whether the look-up of another run would fail in the same way now.
    pub fn is_systemic(&self) -> bool {
        match self {
            Self::Unknown | Self::Unaskable | Self::Answer { .. } => false,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 425 | 429),
            Self::Refused { .. }
            | Self::Redirected { .. }
            | Self::Certificate { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_failures_are_about_one_run_only() {
        let at = || "http://h:80".to_owned();
        let status = |status| LookupError::Status { at: at(), status }.is_systemic();
        assert!([500, 502, 503, 599, 408, 425, 429].into_iter().all(status));
        assert!(![400, 405, 410, 414, 422, 204].into_iter().any(status));
        assert!(!LookupError::Unknown.is_systemic() && !LookupError::Unaskable.is_systemic());
        assert!(!LookupError::Answer { at: at(), source: AnswerError::NoState }.is_systemic());
        assert!(LookupError::Refused { at: at(), status: 401 }.is_systemic());
        assert!(LookupError::TimedOut { at: at(), within: Duration::ZERO }.is_systemic());
    }
}
