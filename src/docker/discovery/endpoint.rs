//! The forms of an engine's address: from text such as `tcp://host:port` to what is connected to.
//!
//! Owns the syntax, the default ports and what is said of forms that this worker does not speak. Pure. It must not know
//! where the text comes from (that is `discovery`), and it must not connect.

use std::fmt;
use std::path::PathBuf;

use crate::docker::certificates::CertificateError;
use crate::docker::tls::TlsClient;
use crate::net::url::printable;

/// Docker's registered ports, for plain HTTP and for TLS.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;
/// Where a system-wide engine listens.
pub(in crate::docker) const SYSTEM_SOCKET: &str = "/var/run/docker.sock";
/// What fits into `sockaddr_un` with its final NUL, see unix(7).
const MAX_SOCKET_PATH: usize = 107;
/// How an address may be written.
const FORMS: &str = "use unix:///path, tcp://host:port or https://host:port";

/// What to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// Plain HTTP over TCP.
    Tcp {
        /// A host name, or an address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// HTTP over TLS.
    Tls {
        /// A host name, or an address without brackets; the engine's certificate must be for it.
        host: String,
        /// The port.
        port: u16,
        /// Whom to trust and who we are.
        client: TlsClient,
    },
}

/// An address as it is written, before it is known whether TLS is spoken there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::docker) enum Address {
    Unix(PathBuf),
    Tcp {
        host: String,
        /// None: the default one.
        port: Option<u16>,
        /// Written as `https://`.
        https: bool,
    },
}

/// There is no address that can be used. Each text names what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A form that this worker does not speak.
    #[error("{origin} is {value:?}, but {scheme}:// is not supported; {instead}")]
    Unsupported {
        /// Where it was given: a variable, or a context with its file.
        origin: String,
        /// As it was given, without user and password.
        value: String,
        /// The part before `://`.
        scheme: String,
        /// What to use instead.
        instead: &'static str,
    },
    /// Not an address at all.
    #[error("{origin} is {value:?}: {problem}; {FORMS}")]
    Malformed {
        /// Where it was given.
        origin: String,
        /// As it was given, without user and password.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A context that is not in the store.
    #[error(
        "there is no docker context {name:?}, which {origin} names: looked for {looked_for}; see `docker context ls`, or set \
         DOCKER_HOST"
    )]
    NoContext {
        /// Its name.
        name: String,
        /// Who names it.
        origin: String,
        /// The file that was looked for.
        looked_for: String,
    },
    /// A context whose file cannot be used.
    #[error(
        "the docker context {name:?} cannot be used: {path}: {problem}; repair or remove it, or set DOCKER_HOST"
    )]
    Context {
        /// Its name.
        name: String,
        /// Its file.
        path: String,
        /// What is wrong with that.
        problem: String,
    },
    /// A pinned version that is none.
    #[error(
        "DOCKER_API_VERSION is {value:?}, which is no version such as 1.41; correct it, or unset it to let the engine choose"
    )]
    ApiVersion {
        /// As it was given.
        value: String,
    },
    /// TLS is wanted and its files cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Endpoint {
    /// One address in the form of `DOCKER_HOST`, as if nothing else were set.
    pub fn parse(value: &str) -> Result<Self, EndpointError> {
        let address = Address::parse("DOCKER_HOST", value)?;
        let client = if address.is_https() { Some(TlsClient::verifying()?) } else { None };
        Ok(Self::new(address, client))
    }

    /// The address with TLS or without. A Unix socket needs none, whatever is set.
    pub(in crate::docker) fn new(address: Address, client: Option<TlsClient>) -> Self {
        match (address, client) {
            (Address::Unix(path), _) => Self::Unix(path),
            (Address::Tcp { host, port, .. }, None) => Self::Tcp { host, port: port.unwrap_or(PLAIN_PORT) },
            (Address::Tcp { host, port, .. }, Some(client)) => {
                Self::Tls { host, port: port.unwrap_or(TLS_PORT), client }
            }
        }
    }

    /// What goes into the `Host` header. The engine ignores it on a socket, but HTTP/1.1 wants one.
    pub(in crate::docker) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "docker".to_owned(),
            Self::Tcp { host, port } | Self::Tls { host, port, .. } => authority(host, *port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}", authority(host, *port)),
            Self::Tls { host, port, .. } => write!(f, "https://{}", authority(host, *port)),
        }
    }
}

impl Address {
    /// Takes an address apart; `origin` says in errors where it was given.
    pub(in crate::docker) fn parse(origin: &str, value: &str) -> Result<Self, EndpointError> {
        // Somebody may have put a password where none belongs.
        let own = || (origin.to_owned(), printable(value));
        let malformed = |problem| {
            let (origin, value) = own();
            EndpointError::Malformed { origin, value, problem }
        };
        let (scheme, rest) = value.split_once("://").ok_or_else(|| malformed("it has no scheme"))?;
        if scheme.is_empty() || !scheme.chars().all(is_of_scheme) {
            return Err(malformed("it has no scheme"));
        }
        match scheme {
            "unix" => socket(rest).map_err(malformed),
            "tcp" | "http" => host_port(rest, false).map_err(malformed),
            "https" => host_port(rest, true).map_err(malformed),
            _ => {
                let (origin, value) = own();
                let instead = instead_of(scheme);
                Err(EndpointError::Unsupported { origin, value, scheme: scheme.to_owned(), instead })
            }
        }
    }

    /// Whether it is written as one with TLS.
    pub(in crate::docker) fn is_https(&self) -> bool {
        matches!(self, Self::Tcp { https: true, .. })
    }

    /// Whether TLS can be spoken there at all.
    pub(in crate::docker) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp { .. })
    }
}

/// RFC 3986, section 3.1: what is shown as a scheme is one.
fn is_of_scheme(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

fn instead_of(scheme: &str) -> &'static str {
    match scheme {
        "ssh" => {
            "forward the engine's socket, as by `ssh -N -L /tmp/docker.sock:/var/run/docker.sock user@host`, and use \
             unix:///tmp/docker.sock"
        }
        "fd" => {
            "that is for the engine's own side of a systemd socket; use the socket's path, as unix:///var/run/docker.sock"
        }
        "npipe" => {
            "that is a pipe of Windows; use unix:///path on the machine where the engine runs, or tcp://host:port with TLS"
        }
        _ => FORMS,
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn socket(path: &str) -> Result<Address, &'static str> {
    match path {
        "" => Ok(Address::Unix(PathBuf::from(SYSTEM_SOCKET))),
        path if !path.starts_with('/') => Err("the socket's path is not absolute"),
        path if path.len() > MAX_SOCKET_PATH => Err("the socket's path is longer than 107 bytes"),
        path if path.contains('\0') => Err("the socket's path has a NUL in it"),
        path => Ok(Address::Unix(PathBuf::from(path))),
    }
}

fn host_port(rest: &str, https: bool) -> Result<Address, &'static str> {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("a bracket is not closed")?;
            if !looks_like_ipv6(host) {
                return Err("what is in brackets is not an IPv6 address");
            }
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err("there is something after the bracket"),
            }
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host_name(host)?, Some(port)),
            None => (host_name(rest)?, None),
        },
    };
    let port = port.map(port_number).transpose()?;
    Ok(Address::Tcp { host: host.to_owned(), port, https })
}

/// Only its characters: whether it is one, the resolver says.
fn looks_like_ipv6(host: &str) -> bool {
    let allowed = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    host.matches(':').count() >= 2 && host.chars().all(allowed)
}

fn host_name(host: &str) -> Result<&str, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match host {
        "" => Err("the host is missing"),
        host if host.contains('/') => Err("a path after the host is not supported"),
        host if !host.chars().all(allowed) => Err("the host has a character that no host name has"),
        host => Ok(host),
    }
}

fn port_number(port: &str) -> Result<u16, &'static str> {
    let digits = !port.is_empty() && port.chars().all(|c| c.is_ascii_digit());
    let number = if digits { port.parse().ok() } else { None };
    number.filter(|number| *number != 0).ok_or("the port is not a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn parse(value: &str) -> Endpoint {
        Endpoint::parse(value).unwrap()
    }

    #[test]
    fn every_form_of_a_host() {
        assert_eq!(parse("tcp://h"), tcp("h", 2375));
        assert_eq!(parse("http://h:80/"), tcp("h", 80));
        assert_eq!(parse("tcp://[::1]"), tcp("::1", 2375));
        assert_eq!(parse("tcp://[::1]:99"), tcp("::1", 99));
        assert_eq!(parse("unix://"), Endpoint::Unix(SYSTEM_SOCKET.into()));
        assert!(matches!(parse("https://h"), Endpoint::Tls { host, port: 2376, .. } if host == "h"));
        assert!(matches!(parse("https://[::1]:7"), Endpoint::Tls { host, port: 7, .. } if host == "::1"));
    }

    #[test]
    fn what_is_not_spoken_is_refused_by_name() {
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
            let error = Endpoint::parse(value);
            assert!(matches!(error, Err(EndpointError::Malformed { .. })), "{value}: {error:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        for value in ["tcp://u:hunter2@h:9x", "ssh://u:hunter2@h", "https://hunter2@h", "u:hunter2@h"] {
            let told = Endpoint::parse(value).unwrap_err().to_string();
            assert!(!told.contains("hunter2") && told.contains("@h"), "{told}");
        }
    }

    #[test]
    fn an_endpoint_prints_as_it_is_written() {
        for value in ["unix:///tmp/s", "tcp://h:1", "tcp://[::1]:99", "https://h:2"] {
            assert_eq!(parse(value).to_string(), value);
        }
    }
}
