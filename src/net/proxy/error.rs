//! Why there is no connection through a proxy. The texts name the proxy without its credentials.

use std::fmt;
use std::io;

use native_tls::HandshakeError;

use super::Proxy;
use crate::net::tls::{reason, verification_failure};

/// A failure on the way through a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyError {
    url: String,
    variable: &'static str,
    has_credentials: bool,
    pub(crate) problem: ProxyProblem,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxyProblem {
    /// The name has no address.
    Unresolved(String),
    /// No TCP connection.
    Unreachable(String),
    /// The certificate of an `https` proxy does not verify.
    Certificate(String),
    /// No TLS with an `https` proxy.
    Tls(String),
    /// No complete answer before the deadline.
    Silent,
    /// It closed the connection before its answer was complete.
    Closed,
    /// The connection broke.
    Broken(String),
    /// 407, or 401, which tinyproxy answers to a wrong password.
    Credentials {
        /// The HTTP status.
        status: u16,
    },
    /// Another status than 2xx; `target` is where the tunnel should lead.
    Status {
        /// The HTTP status.
        status: u16,
        /// `host:port`.
        target: String,
    },
    /// 2xx with a body, or HTML without a head.
    Page,
    /// Something else than HTTP.
    NotHttp,
}

impl ProxyProblem {
    /// Returns why the TLS handshake with the proxy failed. `explain` may replace the reason why its certificate was refused.
    pub(crate) fn of_handshake<S>(error: HandshakeError<S>, explain: impl FnOnce(&str) -> String) -> Self {
        let HandshakeError::Failure(error) = error else { return Self::Silent };
        let text = error.to_string();
        match verification_failure(&text) {
            Some(reason) => Self::Certificate(explain(reason)),
            None => Self::Tls(reason(&text).to_owned()),
        }
    }
}

impl ProxyError {
    pub(crate) fn new(proxy: &Proxy, problem: ProxyProblem) -> Self {
        let (url, has_credentials) = (proxy.to_string(), proxy.has_credentials());
        Self { url, variable: proxy.variable, has_credentials, problem }
    }

    /// Whether an error of a connection is one of its proxy.
    pub(crate) fn within(error: &io::Error) -> bool {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).is_some()
    }
}

impl std::error::Error for ProxyError {}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, variable, .. } = self;
        match &self.problem {
            ProxyProblem::Unresolved(error) => {
                write!(f, "cannot resolve the proxy {url} ({variable}): {error}")
            }
            ProxyProblem::Unreachable(error) => {
                write!(f, "cannot connect to the proxy {url} ({variable}): {error}")
            }
            ProxyProblem::Certificate(reason) => write!(
                f,
                "the certificate of the proxy {url} ({variable}) does not verify ({reason}): check its host name, the system clock, \
                 and the CA (--ca-file adds one)"
            ),
            ProxyProblem::Tls(error) => write!(
                f,
                "no TLS with the proxy {url} ({variable}): {error}; a proxy without TLS needs http:// in {variable}"
            ),
            ProxyProblem::Silent => {
                write!(f, "the proxy {url} ({variable}) did not answer CONNECT in time")
            }
            ProxyProblem::Closed => write!(
                f,
                "the proxy {url} ({variable}) closed the connection without an answer to CONNECT; a proxy with TLS needs https:// in \
                 {variable}"
            ),
            ProxyProblem::Broken(error) => {
                write!(f, "the connection to the proxy {url} ({variable}) broke: {error}")
            }
            ProxyProblem::Credentials { status } if self.has_credentials => {
                write!(
                    f,
                    "the proxy {url} answered {status}: it refused the user name and password in {variable}"
                )
            }
            ProxyProblem::Credentials { status } => write!(
                f,
                "the proxy {url} answered {status}: it wants a user name and password; set {variable} to http://USER:PASSWORD@HOST:PORT"
            ),
            ProxyProblem::Status { status, target } => {
                let hint = match status {
                    403 | 405 => {
                        "allow CONNECT to that host and port in the proxy, or name the host in NO_PROXY"
                    }
                    500 | 502..=504 => "the proxy cannot reach it, see its log",
                    _ => "check the proxy and its log",
                };
                write!(f, "the proxy {url} ({variable}) answered {status} to CONNECT {target}: {hint}")
            }
            ProxyProblem::Page => write!(
                f,
                "the proxy {url} ({variable}) answered CONNECT with a web page: it is no proxy, or wants a login in a browser"
            ),
            ProxyProblem::NotHttp => write!(
                f,
                "the proxy {url} ({variable}) did not answer CONNECT with HTTP; a proxy with TLS needs https:// in {variable}"
            ),
        }
    }
}
