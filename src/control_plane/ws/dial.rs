//! One attempt to open the WebSocket: DNS, TCP, TLS, upgrade.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Uri};
use native_tls::{TlsConnector, TlsStream};
use rustix::net::sockopt;
use tungstenite::client::IntoClientRequest;

use super::LinkConfig;
use super::answer::Extent;
use super::error::{Details, DialError, LinkError, Refusal};
use super::outbox::Inbox;
use super::socket::Socket;
use super::upgrade::upgrade;
use super::wait::{Want, wait};
use super::wire::{Channel, HandshakeDeadline, Route, Wire};
use crate::control_plane::Network;
use crate::control_plane::key::Bearer;
use crate::net::connect::{connect_first, resolve};
use crate::net::proxy::{Proxy, ProxyError, ProxyProblem, tunnel};
use crate::net::tls::{is_about_dates, is_cut, is_not_tls, reason, verification_failure};
use crate::net::user_agent;
use crate::protocol::CAPABILITIES;

/// The kernel's send buffer. Small enough that a slow line shows as a full buffer and not as a silent peer, large enough
/// for 2 MB/s around the world.
const SEND_BUFFER: usize = 256 << 10;

/// How long a connection waits for the permission to upgrade before it is replaced.
const KEPT_READY: Duration = Duration::from_secs(1);

/// The part of a URL that names the peer.
pub(super) struct Origin {
    host: String,
    port: u16,
    tls: bool,
}

impl Origin {
    /// Returns the peer of a `ws` or `wss` URL.
    pub(super) fn of(url: &Uri) -> Result<Self, DialError> {
        let tls = match url.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(unusable("the WebSocket URL must start with ws:// or wss://")),
        };
        let host = url.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| unusable("the WebSocket URL has no host"))?;
        // Only URLs have brackets around IPv6 addresses.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { host, port, tls })
    }

    /// Returns the proxy on the way to it.
    pub(super) fn proxy<'a>(&self, network: &'a Network) -> Option<&'a Proxy> {
        network.proxies.choose(self.tls, &self.host, self.port).map(Arc::as_ref)
    }
}

/// A step of an attempt that has succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Passed {
    /// The name of the control plane, or of its proxy, has these addresses.
    Resolved(Vec<SocketAddr>),
    /// There is a TCP connection to this address.
    Connected(SocketAddr),
    /// The proxy has opened a tunnel.
    Tunnelled,
    /// The control plane speaks TLS, with this certificate (DER).
    Secured(Vec<u8>),
}

/// Makes one attempt to connect, with the key of now. A close of the link cuts it short, except during the DNS look-up.
///
/// Without the permission to upgrade it prepares a connection and waits. One that had to wait for long is replaced, because the
/// peer may be about to close it.
///
/// # Errors
/// There is no connection, and the error tells whether another attempt may succeed.
pub(super) fn dial(link: &LinkConfig, inbox: &Rc<Inbox>) -> Result<Socket, DialError> {
    let origin = Origin::of(&link.url)?;
    let key = link.api_key.current();
    let request = request(link, &key)?;
    let (channel, deadline) = loop {
        let (channel, deadline) = open(&origin, link, inbox, &|_| {})?;
        if wait_to_upgrade(inbox)? {
            inbox.goes_on_by(deadline.until);
            break (channel, deadline);
        }
        drop(channel);
        while !wait_to_upgrade(inbox)? {}
    };
    upgrade(request, &key.secret, channel, &deadline, &link.timing, Extent::LOG)
}

/// Makes one attempt to connect without waiting for a permission. Passes each step that has succeeded to `passed`.
///
/// # Errors
/// As [`dial`]. The details of an answer are all that there are.
pub(super) fn dial_in_steps(
    link: &LinkConfig,
    inbox: &Rc<Inbox>,
    passed: &dyn Fn(Passed),
) -> Result<Socket, DialError> {
    let origin = Origin::of(&link.url)?;
    let key = link.api_key.current();
    let request = request(link, &key)?;
    let (channel, deadline) = open(&origin, link, inbox, passed)?;
    upgrade(request, &key.secret, channel, &deadline, &link.timing, Extent::ALL)
}

/// Returns a connection that is ready for the upgrade, and the deadline for that.
fn open(
    origin: &Origin,
    link: &LinkConfig,
    inbox: &Rc<Inbox>,
    passed: &dyn Fn(Passed),
) -> Result<(Channel, HandshakeDeadline), DialError> {
    let start = Instant::now();
    let deadline = |limit: Duration| HandshakeDeadline { until: start + limit, inbox: Rc::clone(inbox) };
    let network = &link.network;
    let proxy = origin.proxy(network);
    let connect = || connect(origin, proxy, &deadline(link.timing.connect), passed);
    let (tcp, connector) = if origin.tls || proxy.is_some_and(|proxy| proxy.tls) {
        let (tcp, connector) = network.trust.connector_during(connect);
        (tcp, Some(connector))
    } else {
        (connect(), None)
    };
    let deadline = deadline(link.timing.handshake);
    let wire = Wire::new(tcp?, deadline.clone());
    let connector = connector.transpose().map_err(|error| DialError::transient(error.to_string()))?;
    let route = match proxy {
        Some(proxy) => {
            let route = through(proxy, wire, connector.as_ref(), origin, network);
            let route =
                route.map_err(|error| closing_or(&deadline, DialError::transient(error.to_string())))?;
            passed(Passed::Tunnelled);
            route
        }
        None => Route::Tcp(wire),
    };
    let channel = match connector {
        Some(connector) if origin.tls => {
            let stream = tls_handshake(&connector, &origin.host, route, &deadline, link)?;
            let certificate = stream.peer_certificate().ok().flatten();
            passed(Passed::Secured(certificate.and_then(|found| found.to_der().ok()).unwrap_or_default()));
            Channel::tls(stream)
        }
        _ => Channel::plain(route),
    };
    Ok((channel, deadline))
}

/// Returns the tunnel through a proxy. `connector` is for a proxy with TLS.
fn through(
    proxy: &Proxy,
    wire: Wire,
    connector: Option<&TlsConnector>,
    origin: &Origin,
    network: &Network,
) -> Result<Route, ProxyError> {
    let mut route = match connector {
        Some(connector) if proxy.tls => {
            let stream = connector.connect(&proxy.host, wire).map_err(|error| {
                let problem = ProxyProblem::of_handshake(error, |reason| network.trust.explain(reason));
                ProxyError::new(proxy, problem)
            })?;
            Route::TlsProxy(Box::new(stream))
        }
        _ => Route::Tcp(wire),
    };
    tunnel(&mut route, proxy, &origin.host, origin.port)?;
    Ok(route)
}

/// Returns the error, unless the cause is that the link is closing.
fn closing_or(deadline: &HandshakeDeadline, error: DialError) -> DialError {
    if deadline.inbox.closing() { DialError::Closing } else { error }
}

/// Waits for the permission to upgrade, at most [`KEPT_READY`]. Returns whether it is given.
fn wait_to_upgrade(inbox: &Inbox) -> Result<bool, DialError> {
    let until = Instant::now() + KEPT_READY;
    inbox.goes_on_by(until);
    loop {
        if inbox.closing() {
            return Err(DialError::Closing);
        }
        if inbox.may_upgrade() || Instant::now() >= until {
            return Ok(inbox.may_upgrade());
        }
        let woken = wait(inbox, None, until)
            .map_err(|error| DialError::transient(format!("cannot wait for the engine: {error}")))?;
        if woken.waker {
            inbox.clear_wake();
        }
    }
}

fn unusable(reason: &'static str) -> DialError {
    DialError::Permanent(LinkError::Unusable { reason })
}

fn request(link: &LinkConfig, key: &Bearer) -> Result<Request<()>, DialError> {
    let request = link.url.clone().into_client_request();
    let mut request = request.map_err(|_| unusable("the WebSocket URL cannot be used in a request"))?;
    request.headers_mut().insert(AUTHORIZATION, key.header.clone());
    let agent =
        HeaderValue::from_str(&user_agent()).map_err(|_| unusable("the user agent is not a header"))?;
    request.headers_mut().insert(USER_AGENT, agent);
    let (name, value) = CAPABILITIES;
    request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    Ok(request)
}

fn connect(
    origin: &Origin,
    proxy: Option<&Proxy>,
    deadline: &HandshakeDeadline,
    passed: &dyn Fn(Passed),
) -> Result<TcpStream, DialError> {
    let (host, port) = proxy.map_or((&origin.host, origin.port), |proxy| (&proxy.host, proxy.port));
    let failed = |problem: fn(String) -> ProxyProblem, text: &str, cause: String| match proxy {
        Some(proxy) => DialError::transient(ProxyError::new(proxy, problem(cause)).to_string()),
        None => DialError::Unreachable(format!("cannot {text} {host}: {cause}")),
    };
    let addresses = resolve(host, port)
        .map_err(|error| failed(ProxyProblem::Unresolved, "resolve", error.to_string()))?;
    passed(Passed::Resolved(addresses.clone()));
    let wait = |socket: BorrowedFd<'_>, until| {
        let share = HandshakeDeadline { until, inbox: Rc::clone(&deadline.inbox) };
        share.wait(Want { socket, write: true, read: false })
    };
    let connected = connect_first(&addresses, deadline.until, set_options, wait).map(TcpStream::from);
    if let Some(address) = connected.as_ref().ok().and_then(|tcp| tcp.peer_addr().ok()) {
        passed(Passed::Connected(address));
    }
    connected.map_err(|failures| {
        let failures: Vec<_> =
            failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        closing_or(deadline, failed(ProxyProblem::Unreachable, "connect to", failures.join("; ")))
    })
}

fn set_options(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)?;
    Ok(())
}

fn tls_handshake(
    connector: &TlsConnector,
    host: &str,
    route: Route,
    deadline: &HandshakeDeadline,
    link: &LinkConfig,
) -> Result<TlsStream<Route>, DialError> {
    let error = match connector.connect(host, route) {
        Ok(stream) => return Ok(stream),
        Err(native_tls::HandshakeError::Failure(error)) => error.to_string(),
        Err(native_tls::HandshakeError::WouldBlock(_)) => "timed out".to_owned(),
    };
    if deadline.inbox.closing() {
        return Err(DialError::Closing);
    }
    if let Some(reason) = verification_failure(&error) {
        let (host, reason) = (host.to_owned(), link.network.trust.explain(reason));
        let refusal = if is_about_dates(&reason) {
            Refusal::CertificateDate { host, reason }
        } else {
            Refusal::Certificate { host, reason }
        };
        return Err(DialError::Refused(refusal, Details::default()));
    }
    Err(DialError::transient(if Instant::now() >= deadline.until {
        format!("no TLS handshake within {:?} of dialling", link.timing.handshake)
    } else if is_not_tls(&error) {
        format!(
            "{host} does not speak TLS on that port ({}): use ws:// or http:// in the URL, or another port",
            reason(&error)
        )
    } else if is_cut(&error) {
        format!("the TLS handshake failed: {error}; if that port has no TLS, use http:// or ws:// in the URL")
    } else {
        format!("the TLS handshake failed: {error}")
    }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::control_plane::key::ApiKey;
    use crate::control_plane::ws::Timing;
    use crate::secret::Secret;

    fn link(url: &str, key: &str) -> LinkConfig {
        let (url, timing, network) = (url.parse().unwrap(), Timing::default(), Network::default());
        let api_key = ApiKey::new(Secret::new(key)).unwrap();
        let (worker_id, window) = ("w".into(), Duration::ZERO);
        LinkConfig { url, api_key, worker_id, max_attempts: 0, window, timing, network }
    }

    fn parts(url: &str) -> Option<(String, u16, bool)> {
        let origin = Origin::of(&url.parse().unwrap()).ok()?;
        Some((origin.host, origin.port, origin.tls))
    }

    #[test]
    fn a_url_gives_host_port_and_tls() {
        assert_eq!(parts("ws://h/p?q=1"), Some(("h".to_owned(), 80, false)));
        assert_eq!(parts("wss://u:p@h.example/p"), Some(("h.example".to_owned(), 443, true)));
        assert_eq!(parts("ws://[::1]:8080/p"), Some(("::1".to_owned(), 8080, false)));
        assert_eq!(parts("http://h/p"), None);
        assert_eq!(parts("/p"), None);
    }

    #[test]
    fn the_request_carries_the_key_but_its_debug_does_not_show_it() {
        let link = link("ws://u:pw@h:81/p?worker_id=w%201", "k3y");
        let request = request(&link, &link.api_key.current()).unwrap();
        assert_eq!(request.headers()["authorization"], "Bearer k3y");
        assert_eq!(request.headers()["host"], "h:81");
        assert_eq!(request.headers()["x-warp-worker-capabilities"], "execution-scoped-cancellation-v1");
        let agent = request.headers()["user-agent"].to_str().unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert!(agent.starts_with(&format!("oz-agent-worker/{version} (linux; a")), "{agent}");
        assert_eq!(request.uri().path_and_query().unwrap(), "/p?worker_id=w%201");
        assert!(!format!("{:?}", request.headers()).contains("k3y"));
    }

    #[test]
    fn a_failed_connection_names_each_address_and_what_failed() {
        let (_outbox, inbox) = crate::control_plane::ws::outbox::pair().unwrap();
        let deadline =
            HandshakeDeadline { until: Instant::now() + Duration::from_secs(20), inbox: Rc::new(inbox) };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let origin = Origin { host: "127.0.0.1".to_owned(), port, tls: false };
        let Err(DialError::Unreachable(reason)) = connect(&origin, None, &deadline, &|_| {}) else {
            panic!("connected")
        };
        let start = format!("cannot connect to 127.0.0.1: 127.0.0.1:{port}: Connection refused");
        assert!(reason.starts_with(&start), "{reason}");
    }

    #[test]
    fn a_peer_that_closes_during_the_handshake_may_have_no_tls() {
        let (_outbox, inbox) = crate::control_plane::ws::outbox::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = link(&format!("wss://{}/p", listener.local_addr().unwrap()), "k");
        let peer = std::thread::spawn(move || drop(listener.accept().unwrap()));
        let Err(DialError::Transient(reason, _)) =
            open(&Origin::of(&link.url).unwrap(), &link, &Rc::new(inbox), &|_| {})
        else {
            panic!("connected")
        };
        peer.join().unwrap();
        assert!(reason.starts_with("the TLS handshake failed: "), "{reason}");
        assert!(reason.ends_with("if that port has no TLS, use http:// or ws:// in the URL"), "{reason}");
    }

    #[test]
    fn the_socket_has_its_options() {
        let (_outbox, inbox) = crate::control_plane::ws::outbox::pair().unwrap();
        let deadline =
            HandshakeDeadline { until: Instant::now() + Duration::from_secs(20), inbox: Rc::new(inbox) };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let origin = Origin { host: "127.0.0.1".to_owned(), port, tls: false };
        let tcp = connect(&origin, None, &deadline, &|_| {}).unwrap();
        assert!(sockopt::tcp_nodelay(&tcp).unwrap() && sockopt::socket_keepalive(&tcp).unwrap());
        // The kernel doubles it for its own use.
        assert!(sockopt::socket_send_buffer_size(&tcp).unwrap() <= 2 * SEND_BUFFER);
    }
}
