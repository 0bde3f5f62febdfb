//! Parses engine addresses such as `unix:///path` and `tcp://host:port`, and reports those that cannot be used. Pure.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::context::ContextError;
use crate::docker::certificates::CertificateError;
use crate::docker::tls::TlsClient;
use crate::net::digits;
use crate::net::proxy::{Proxies, Proxy};
use crate::net::url::{authority, redacted};

/// Docker's registered ports for plain HTTP and TLS.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;
/// The socket of a system-wide engine.
pub(in crate::docker) const SYSTEM_SOCKET: &str = "/var/run/docker.sock";
/// The longest path of a Unix socket, in bytes without the final NUL; see unix(7).
const MAX_SOCKET_PATH: usize = 107;
/// The supported forms, for error messages.
const FORMS: &str = "use unix:///path, tcp://host:port or https://host:port";

/// The address of an engine and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// Plain HTTP over TCP.
    Tcp {
        /// A host name, or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// HTTP over TLS.
    Tls {
        /// A host name, or an IP address without brackets. The engine's certificate must name it.
        host: String,
        /// The port.
        port: u16,
        /// The trusted authorities and the client certificate.
        client: TlsClient,
    },
    /// TCP, with or without TLS, through a proxy.
    Proxied {
        /// The proxy, and where its tunnel leads.
        proxy: ProxyHop,
        /// The engine.
        target: Box<Self>,
    },
}

/// A proxy on the way to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHop {
    pub(in crate::docker) proxy: Arc<Proxy>,
    /// For a proxy with TLS.
    pub(in crate::docker) client: Option<TlsClient>,
    /// The engine's host and port.
    pub(in crate::docker) host: String,
    pub(in crate::docker) port: u16,
}

/// A parsed address, before it is decided whether to use TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::docker) enum Address {
    Unix(PathBuf),
    Tcp {
        host: String,
        /// `None` for the default port.
        port: Option<u16>,
        /// Whether the scheme was `https`.
        https: bool,
    },
}

/// Why no usable address was found. Each message names the problem and a remedy.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The scheme is not supported.
    #[error("{origin} is {value:?}, but {scheme}:// is not supported; {instead}")]
    Unsupported {
        /// Where the address was set: a variable, or a context with its file.
        origin: String,
        /// The address as written, without user and password.
        value: String,
        /// The part before `://`.
        scheme: String,
        /// What to use instead.
        instead: &'static str,
    },
    /// The address cannot be parsed.
    #[error("{origin} is {value:?}: {problem}; {FORMS}")]
    Malformed {
        /// Where the address was set.
        origin: String,
        /// The address as written, without user and password.
        value: String,
        /// The problem.
        problem: &'static str,
    },
    /// The context does not exist.
    #[error(
        "docker context {name:?}, set by {origin}, does not exist (looked for {looked_for}); see `docker context ls`, or set \
         DOCKER_HOST"
    )]
    NoContext {
        /// The context's name.
        name: String,
        /// The variable or file that names it.
        origin: String,
        /// The file that should exist.
        looked_for: String,
    },
    /// The context's file cannot be used.
    #[error("cannot use docker context {name:?}: {path}: {problem}; repair or remove it, or set DOCKER_HOST")]
    Context {
        /// The context's name.
        name: String,
        /// The context's file.
        path: String,
        /// The problem.
        problem: ContextError,
    },
    /// `DOCKER_API_VERSION` is not a version.
    #[error(
        "DOCKER_API_VERSION is {value:?}, which is not a version such as 1.41; correct it, or unset it to let the engine choose"
    )]
    ApiVersion {
        /// The value as written.
        value: String,
    },
    /// TLS is configured, but its files cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Endpoint {
    /// Returns an endpoint with TLS if `client` is given. A Unix socket never uses TLS.
    pub(in crate::docker) fn new(address: Address, client: Option<TlsClient>) -> Self {
        match (address, client) {
            (Address::Unix(path), _) => Self::Unix(path),
            (Address::Tcp { host, port, .. }, None) => Self::Tcp { host, port: port.unwrap_or(PLAIN_PORT) },
            (Address::Tcp { host, port, .. }, Some(client)) => {
                Self::Tls { host, port: port.unwrap_or(TLS_PORT), client }
            }
        }
    }

    /// Returns the endpoint behind the proxy that `proxies` have for it. `client` loads the certificates for a proxy with TLS.
    ///
    /// # Errors
    /// Those of `client`.
    pub fn through<E>(
        self,
        proxies: &Proxies,
        client: impl FnOnce() -> Result<TlsClient, E>,
    ) -> Result<Self, E> {
        let (tls, host, port) = match &self {
            Self::Tcp { host, port } => (false, host, *port),
            Self::Tls { host, port, .. } => (true, host, *port),
            Self::Unix(_) | Self::Proxied { .. } => return Ok(self),
        };
        let Some(proxy) = proxies.choose(tls, host, port) else { return Ok(self) };
        let client = if proxy.tls { Some(client()?) } else { None };
        let proxy = ProxyHop { proxy: Arc::clone(proxy), client, host: host.clone(), port };
        Ok(Self::Proxied { proxy, target: Box::new(self) })
    }

    /// Returns the engine's own endpoint, without a proxy.
    pub fn target(&self) -> &Self {
        match self {
            Self::Proxied { target, .. } => target,
            other => other,
        }
    }

    /// Returns the value of the `Host` header. HTTP/1.1 requires one on a Unix socket too, where the engine ignores it.
    pub(in crate::docker) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "docker".to_owned(),
            Self::Tcp { host, port } | Self::Tls { host, port, .. } => authority(host, *port),
            Self::Proxied { target, .. } => target.host_header(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}", authority(host, *port)),
            Self::Tls { host, port, .. } => write!(f, "https://{}", authority(host, *port)),
            Self::Proxied { proxy, target } => write!(f, "{target} (through the proxy {})", proxy.proxy),
        }
    }
}

impl Address {
    /// Parses an address. `origin` tells error messages where it was set.
    pub(in crate::docker) fn parse(origin: &str, value: &str) -> Result<Self, EndpointError> {
        // The value may hold a password, although no supported form has one.
        let malformed =
            |problem| EndpointError::Malformed { origin: origin.to_owned(), value: redacted(value), problem };
        let (scheme, rest) = value.split_once("://").ok_or_else(|| malformed("it has no scheme"))?;
        // RFC 3986, section 3.1.
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(is_valid) {
            return Err(malformed("it has no scheme"));
        }
        match scheme {
            "unix" => socket(rest).map_err(malformed),
            "tcp" | "http" => host_port(rest, false).map_err(malformed),
            "https" => host_port(rest, true).map_err(malformed),
            _ => Err(EndpointError::Unsupported {
                origin: origin.to_owned(),
                value: redacted(value),
                scheme: scheme.to_owned(),
                instead: alternative(scheme),
            }),
        }
    }

    /// Returns whether the scheme was `https`.
    pub(in crate::docker) fn is_https(&self) -> bool {
        matches!(self, Self::Tcp { https: true, .. })
    }

    /// Returns whether TLS is possible.
    pub(in crate::docker) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }
}

/// Returns the hint for an unsupported scheme.
fn alternative(scheme: &str) -> &'static str {
    match scheme {
        "ssh" => {
            "forward the engine's socket with `ssh -N -L /tmp/docker.sock:/var/run/docker.sock user@host` and use \
             unix:///tmp/docker.sock"
        }
        "fd" => {
            "only the engine itself uses fd://, for a socket from systemd; use the socket's path, such as \
             unix:///var/run/docker.sock"
        }
        "npipe" => {
            "it names a Windows pipe; use unix:///path on the machine where the engine runs, or tcp://host:port with TLS"
        }
        _ => FORMS,
    }
}

fn socket(path: &str) -> Result<Address, &'static str> {
    match path {
        "" => Ok(Address::Unix(PathBuf::from(SYSTEM_SOCKET))),
        path if !path.starts_with('/') => Err("the socket's path is not absolute"),
        path if path.len() > MAX_SOCKET_PATH => Err("the socket's path is longer than 107 bytes"),
        path if path.contains('\0') => Err("the socket's path contains a NUL byte"),
        path => Ok(Address::Unix(PathBuf::from(path))),
    }
}

fn host_port(rest: &str, https: bool) -> Result<Address, &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the closing bracket is missing")?;
            // Only the characters: the resolver checks the rest.
            let allowed = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
            if host.matches(':').count() < 2 || !host.chars().all(allowed) {
                return Err("the text in brackets is not an IPv6 address");
            }
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err("only a port may follow the bracket"),
            }
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host_name(host)?, Some(port)),
            None => (host_name(rest)?, None),
        },
    };
    let port =
        port.map(|text| digits::port(text).ok_or("the port is not a number from 1 to 65535")).transpose()?;
    Ok(Address::Tcp { host: host.to_owned(), port, https })
}

fn host_name(host: &str) -> Result<&str, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match host {
        "" => Err("the host is missing"),
        host if host.contains('/') => Err("a path after the host is not supported"),
        host if !host.chars().all(allowed) => Err("the host contains a character that no host name has"),
        host => Ok(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::certificates::TlsFiles;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn parse(value: &str) -> Endpoint {
        let address = Address::parse("DOCKER_HOST", value).unwrap();
        let client = address.is_https().then(|| TlsClient::new(&TlsFiles::verifying()).unwrap().0);
        Endpoint::new(address, client)
    }

    #[test]
    fn every_supported_form_is_parsed() {
        assert_eq!(parse("tcp://h"), tcp("h", 2375));
        assert_eq!(parse("http://h:80/"), tcp("h", 80));
        assert_eq!(parse("tcp://[::1]"), tcp("::1", 2375));
        assert_eq!(parse("tcp://[::1]:99"), tcp("::1", 99));
        assert_eq!(parse("unix://"), Endpoint::Unix(SYSTEM_SOCKET.into()));
        assert!(matches!(parse("https://h"), Endpoint::Tls { host, port: 2376, .. } if host == "h"));
        assert!(matches!(parse("https://[::1]:7"), Endpoint::Tls { host, port: 7, .. } if host == "::1"));
    }

    #[test]
    fn unsupported_schemes_are_refused_with_an_alternative() {
        let cases = [
            ("ssh", "ssh -N -L"),
            ("fd", "unix:///var/run"),
            ("npipe", "Windows"),
            ("quic", "tcp://host:port"),
        ];
        for (scheme, instead) in cases {
            let text = Address::parse("ORIGIN", &format!("{scheme}://x")).unwrap_err().to_string();
            for part in ["ORIGIN", &format!("{scheme}:// is not supported"), instead] {
                assert!(text.contains(part), "{text}");
            }
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        let long = format!("unix:///{}", "x".repeat(MAX_SOCKET_PATH));
        let bad = [
            "h:1",
            "/var/run/docker.sock",
            "://h",
            "a\nb://h",
            "/a/tcp://h",
            "tcp://",
            "tcp://:1",
            "tcp://h:",
            "tcp://h:0",
            "tcp://h:65536",
            "tcp://h:+1",
            "tcp://h/p",
            "https://h/p",
            "tcp://a b",
            "tcp://u@h",
            "tcp://[::1",
            "tcp://[x]:1",
            "tcp://[::1]1",
            "unix://rel",
            "tcp://::1",
            &long,
        ];
        for value in bad {
            let error = Address::parse("DOCKER_HOST", value);
            assert!(matches!(error, Err(EndpointError::Malformed { .. })), "{value}: {error:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        for value in ["tcp://u:hunter2@h:9x", "ssh://u:hunter2@h", "https://hunter2@h", "u:hunter2@h"] {
            let text = Address::parse("DOCKER_HOST", value).unwrap_err().to_string();
            assert!(!text.contains("hunter2") && text.contains("@h"), "{text}");
        }
    }

    #[test]
    fn an_endpoint_prints_as_it_was_written() {
        for value in ["unix:///tmp/s", "tcp://h:1", "tcp://[::1]:99", "https://h:2"] {
            assert_eq!(parse(value).to_string(), value);
        }
    }
}
