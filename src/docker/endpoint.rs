//! Where the engine is: from the values of `DOCKER_HOST` and its relatives to a socket or a host and port.
//!
//! Owns the forms of an address and the order in which the default sockets are tried. Pure: the environment and the
//! question whether a file exists come in as arguments. It must not connect.

use std::fmt;
use std::path::{Path, PathBuf};

/// Docker's registered port for plain HTTP.
const PLAIN_PORT: u16 = 2375;
/// Where a system-wide engine listens.
const SYSTEM_SOCKET: &str = "/var/run/docker.sock";
/// What fits into `sockaddr_un` with its final NUL, see unix(7).
const MAX_SOCKET_PATH: usize = 107;

/// The environment variables that say where the engine is. A blank value counts as unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointEnv {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_TLS_VERIFY`.
    pub docker_tls_verify: Option<String>,
    /// `DOCKER_CERT_PATH`.
    pub docker_cert_path: Option<String>,
    /// `XDG_RUNTIME_DIR`, under which a rootless engine listens.
    pub xdg_runtime_dir: Option<String>,
    /// `HOME`, under which Docker Desktop puts its socket.
    pub home: Option<String>,
}

/// An address to connect to.
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
}

/// An address that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// A form that this worker does not speak.
    #[error("DOCKER_HOST {value:?}: {scheme}:// is not supported; use unix:///path or tcp://host:port")]
    Unsupported {
        /// As it was given.
        value: String,
        /// The part before `://`.
        scheme: String,
    },
    /// Not an address at all.
    #[error("DOCKER_HOST {value:?}: {problem}; use unix:///path or tcp://host:port")]
    Malformed {
        /// As it was given.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// TLS was asked for.
    #[error(
        "DOCKER_TLS_VERIFY or DOCKER_CERT_PATH is set, but TLS to the engine is not supported; use a unix socket"
    )]
    Tls,
}

impl Endpoint {
    /// The endpoint that this environment names: `DOCKER_HOST`, else the first default socket that `exists`, else the
    /// system-wide one (so that the error of the connect names it).
    pub fn resolve(env: &EndpointEnv, exists: &dyn Fn(&Path) -> bool) -> Result<Self, EndpointError> {
        let Some(value) = set(env.docker_host.as_deref()) else {
            return Ok(Self::Unix(default_socket(env, exists)));
        };
        let endpoint = Self::parse(value)?;
        let tls =
            set(env.docker_tls_verify.as_deref()).is_some() || set(env.docker_cert_path.as_deref()).is_some();
        match endpoint {
            Self::Tcp { .. } if tls => Err(EndpointError::Tls),
            endpoint => Ok(endpoint),
        }
    }

    /// One address in the form of `DOCKER_HOST`.
    pub fn parse(value: &str) -> Result<Self, EndpointError> {
        let malformed = |problem| EndpointError::Malformed { value: value.to_owned(), problem };
        let (scheme, rest) = value.split_once("://").ok_or_else(|| malformed("it has no scheme"))?;
        match scheme {
            "unix" => socket(rest).map_err(malformed),
            "tcp" | "http" => host_port(rest).map_err(malformed),
            _ => {
                let (value, scheme) = (value.to_owned(), scheme.to_owned());
                Err(EndpointError::Unsupported { value, scheme })
            }
        }
    }

    /// What goes into the `Host` header. The engine ignores it on a socket, but HTTP/1.1 wants one.
    pub(super) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "docker".to_owned(),
            Self::Tcp { host, port } => authority(host, *port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}", authority(host, *port)),
        }
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn set(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

fn default_socket(env: &EndpointEnv, exists: &dyn Fn(&Path) -> bool) -> PathBuf {
    let rootless = set(env.xdg_runtime_dir.as_deref()).map(|dir| Path::new(dir).join("docker.sock"));
    let desktop = set(env.home.as_deref()).map(|dir| Path::new(dir).join(".docker/run/docker.sock"));
    let system = PathBuf::from(SYSTEM_SOCKET);
    let candidates = [Some(system.clone()), rootless, desktop];
    candidates.into_iter().flatten().find(|path| exists(path)).unwrap_or(system)
}

fn socket(path: &str) -> Result<Endpoint, &'static str> {
    match path {
        "" => Ok(Endpoint::Unix(PathBuf::from(SYSTEM_SOCKET))),
        path if !path.starts_with('/') => Err("the socket's path is not absolute"),
        path if path.len() > MAX_SOCKET_PATH => Err("the socket's path is longer than 107 bytes"),
        path if path.contains('\0') => Err("the socket's path has a NUL in it"),
        path => Ok(Endpoint::Unix(PathBuf::from(path))),
    }
}

fn host_port(rest: &str) -> Result<Endpoint, &'static str> {
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
    let port = port.map_or(Ok(PLAIN_PORT), port_number)?;
    Ok(Endpoint::Tcp { host: host.to_owned(), port })
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

    fn env(host: &str) -> EndpointEnv {
        EndpointEnv { docker_host: Some(host.to_owned()), ..EndpointEnv::default() }
    }

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn resolve(env: &EndpointEnv, there: &[&str]) -> Result<Endpoint, EndpointError> {
        Endpoint::resolve(env, &|path| there.iter().any(|known| Path::new(known) == path))
    }

    #[test]
    fn docker_host_wins_over_every_socket() {
        let found = resolve(&env(" tcp://build.example:1234 "), &[SYSTEM_SOCKET]);
        assert_eq!(found, Ok(tcp("build.example", 1234)));
        assert_eq!(resolve(&env("unix:///tmp/x"), &[]), Ok(Endpoint::Unix("/tmp/x".into())));
    }

    #[test]
    fn default_sockets_are_tried_in_order() {
        let env = EndpointEnv {
            docker_host: Some("  ".into()),
            xdg_runtime_dir: Some("/run/user/7".into()),
            home: Some("/home/u".into()),
            ..EndpointEnv::default()
        };
        let (rootless, desktop) = ("/run/user/7/docker.sock", "/home/u/.docker/run/docker.sock");
        let unix = |path: &str| Ok(Endpoint::Unix(path.into()));
        assert_eq!(resolve(&env, &[desktop, rootless, SYSTEM_SOCKET]), unix(SYSTEM_SOCKET));
        assert_eq!(resolve(&env, &[desktop, rootless]), unix(rootless));
        assert_eq!(resolve(&env, &[desktop]), unix(desktop));
        assert_eq!(resolve(&env, &[]), unix(SYSTEM_SOCKET));
    }

    #[test]
    fn every_form_of_a_host() {
        assert_eq!(Endpoint::parse("tcp://h"), Ok(tcp("h", 2375)));
        assert_eq!(Endpoint::parse("http://h:80/"), Ok(tcp("h", 80)));
        assert_eq!(Endpoint::parse("tcp://[::1]"), Ok(tcp("::1", 2375)));
        assert_eq!(Endpoint::parse("tcp://[::1]:99"), Ok(tcp("::1", 99)));
        assert_eq!(Endpoint::parse("unix://"), Ok(Endpoint::Unix(SYSTEM_SOCKET.into())));
    }

    #[test]
    fn what_is_not_spoken_is_refused_by_name() {
        for scheme in ["ssh", "fd", "npipe", "https", "quic"] {
            let error = Endpoint::parse(&format!("{scheme}://x")).unwrap_err();
            assert!(matches!(&error, EndpointError::Unsupported { .. }), "{error}");
            assert!(error.to_string().contains(&format!("{scheme}:// is not supported")), "{error}");
        }
        let with_tls = EndpointEnv { docker_tls_verify: Some("0".into()), ..env("tcp://h:2376") };
        assert_eq!(resolve(&with_tls, &[]), Err(EndpointError::Tls));
        let socket = EndpointEnv { docker_cert_path: Some("/c".into()), ..env("unix:///s") };
        assert_eq!(resolve(&socket, &[]), Ok(Endpoint::Unix("/s".into())));
    }

    #[test]
    fn malformed_addresses_are_refused() {
        let long = format!("unix:///{}", "x".repeat(MAX_SOCKET_PATH));
        let bad = [
            "h:1",
            "/var/run/docker.sock",
            "tcp://",
            "tcp://:1",
            "tcp://h:",
            "tcp://h:0",
            "tcp://h:65536",
            "tcp://h:+1",
            "tcp://h/p",
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
    fn an_endpoint_prints_as_it_is_written() {
        for value in ["unix:///tmp/s", "tcp://h:1", "tcp://[::1]:99"] {
            assert_eq!(Endpoint::parse(value).unwrap().to_string(), value);
        }
    }
}
