//! From a URL to an open WebSocket: DNS, TCP, TLS, upgrade.
//!
//! Owns their deadlines and the judgement of every failure: can another attempt help? It must not know what is sent over
//! the connection, and it makes exactly one attempt.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, Uri};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use tungstenite::HandshakeError;
use tungstenite::client::{IntoClientRequest, client_with_config};
use tungstenite::error::ProtocolError;

use super::answer::{Verdict, judge, status};
use super::error::LinkError;
use super::outbox::Inbox;
use super::socket::{Socket, config};
use super::wait::Want;
use super::wire::{Channel, HandshakeDeadline, Head, Wire};
use super::{LinkConfig, Timing};
use crate::control_plane::tls;

/// How many addresses of a name are tried: what a resolver may answer is not bounded.
const MAX_ADDRESSES: usize = 8;

/// What the kernel may hold of what we send. Small, so that a slow line shows as a full buffer and not as a peer that
/// has fallen silent, and large enough for some 2 MB a second to the other side of the world.
const SEND_BUFFER: usize = 256 << 10;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialError {
    /// Another attempt cannot help.
    Permanent(LinkError),
    /// Another attempt may help.
    Transient(String),
    /// The link is to end.
    Closing,
}

/// Where to.
struct Target {
    host: String,
    port: u16,
    tls: bool,
}

/// One attempt. It ends early when `inbox` asks for the end, but for the DNS look-up.
pub(super) fn dial(link: &LinkConfig, inbox: &Rc<Inbox>) -> Result<Socket, DialError> {
    let start = Instant::now();
    let deadline = |time: Duration| HandshakeDeadline { until: start + time, inbox: Rc::clone(inbox) };
    let (target, request) = (target(&link.url)?, request(link)?);
    let tcp = reach(&target.host, &resolve(&target)?, &deadline(link.timing.connect))?;
    let deadline = deadline(link.timing.handshake);
    let wire = Wire::new(tcp, deadline.clone());
    let channel =
        if target.tls { secure(&target.host, wire, &deadline, &link.timing)? } else { Channel::plain(wire) };
    upgrade(request, channel, &deadline, &link.timing)
}

fn unusable(why: &'static str) -> DialError {
    DialError::Permanent(LinkError::Unusable { why })
}

fn target(url: &Uri) -> Result<Target, DialError> {
    let tls = match url.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(unusable("the scheme of the URL is neither ws nor wss")),
    };
    let host = url.host().filter(|host| !host.is_empty()).ok_or_else(|| unusable("the URL has no host"))?;
    // An IPv6 address is in brackets in a URL, and nowhere else.
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    Ok(Target { host, port, tls })
}

fn request(link: &LinkConfig) -> Result<Request<()>, DialError> {
    let mut request =
        link.url.clone().into_client_request().map_err(|_| unusable("the URL is not one for a request"))?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", link.api_key.expose()))
        .map_err(|_| unusable("the API key has characters that no HTTP header may have"))?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, bearer);
    Ok(request)
}

/// Connects to the first address that answers. Each gets an equal share of the time that is left, so that one that is
/// silent does not keep the others from being tried.
fn reach(host: &str, addresses: &[SocketAddr], deadline: &HandshakeDeadline) -> Result<TcpStream, DialError> {
    let mut failures = Vec::new();
    for (tried, &address) in addresses.iter().enumerate() {
        let left = deadline.until.saturating_duration_since(Instant::now());
        let rest = u32::try_from(addresses.len() - tried).unwrap_or(1);
        let share =
            HandshakeDeadline { until: Instant::now() + left / rest, inbox: Rc::clone(&deadline.inbox) };
        match reach_one(address, &share) {
            Ok(tcp) => return Ok(tcp),
            Err(_) if deadline.inbox.closing() => return Err(DialError::Closing),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    Err(DialError::Transient(format!("cannot connect to {host}: {}", failures.join("; "))))
}

fn resolve(target: &Target) -> Result<Vec<SocketAddr>, DialError> {
    let failed = |why: &str| DialError::Transient(format!("cannot resolve {}: {why}", target.host));
    let found = (target.host.as_str(), target.port).to_socket_addrs();
    let addresses: Vec<_> = found.map_err(|error| failed(&error.to_string()))?.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(failed("no address"));
    }
    Ok(addresses)
}

fn reach_one(address: SocketAddr, deadline: &HandshakeDeadline) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &address) {
        Err(Errno::INPROGRESS) => {
            deadline.wait(Want { socket: socket.as_fd(), write: true, read: false })?;
            sockopt::socket_error(&socket)??;
        }
        result => result?,
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    Ok(TcpStream::from(socket))
}

fn secure(
    host: &str,
    wire: Wire,
    deadline: &HandshakeDeadline,
    timing: &Timing,
) -> Result<Channel, DialError> {
    let connector = tls::connector().map_err(|error| DialError::Transient(format!("no TLS: {error}")))?;
    let error = match connector.connect(host, wire) {
        Ok(stream) => return Ok(Channel::tls(stream)),
        Err(native_tls::HandshakeError::Failure(error)) => error.to_string(),
        Err(native_tls::HandshakeError::WouldBlock(_)) => "timed out".to_owned(),
    };
    if deadline.inbox.closing() {
        return Err(DialError::Closing);
    }
    if let Some(why) = tls::distrust(&error) {
        return Err(DialError::Permanent(LinkError::Certificate { host: host.to_owned(), why }));
    }
    if Instant::now() >= deadline.until {
        let why = format!("no TLS answer within {:?} of dialling", timing.handshake);
        return Err(DialError::Transient(why));
    }
    Err(DialError::Transient(format!("the TLS handshake failed: {error}")))
}

pub(super) fn upgrade(
    request: Request<()>,
    channel: Channel,
    deadline: &HandshakeDeadline,
    timing: &Timing,
) -> Result<Socket, DialError> {
    let head = channel.head();
    let error = match client_with_config(request, channel, Some(config())) {
        Ok((socket, _)) => return Ok(Socket::new(socket)),
        Err(HandshakeError::Failure(error)) => Some(error),
        Err(HandshakeError::Interrupted(_)) => None,
    };
    if deadline.inbox.closing() {
        return Err(DialError::Closing);
    }
    match answered(&head) {
        Some(Verdict::Permanent(error)) => return Err(DialError::Permanent(error)),
        Some(Verdict::Transient(why)) => return Err(DialError::Transient(why)),
        None => {}
    }
    Err(DialError::Transient(match error {
        Some(error) if Instant::now() < deadline.until => unanswered(&error),
        _ => format!(
            "no answer to the upgrade within {:?} of dialling; a wrong path in the URL, even a trailing slash, is never \
             answered",
            timing.handshake
        ),
    }))
}

/// The verdict on an answer that tungstenite did not take, unless it was meant as an upgrade.
fn answered(head: &Head) -> Option<Verdict> {
    status(&head.bytes()).filter(|&status| status != 101).map(judge)
}

fn unanswered(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            "the peer closed the connection without an answer to the upgrade".to_owned()
        }
        error => format!("the upgrade failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::secret::Secret;

    fn link(url: &str, key: &str) -> LinkConfig {
        let (url, api_key, timing) = (url.parse().unwrap(), Secret::new(key), Timing::default());
        LinkConfig { url, api_key, worker_id: "w".into(), max_attempts: 0, window: Duration::ZERO, timing }
    }

    fn parts(url: &str) -> Option<(String, u16, bool)> {
        let target = target(&url.parse().unwrap()).ok()?;
        Some((target.host, target.port, target.tls))
    }

    #[test]
    fn the_target_of_a_url() {
        assert_eq!(parts("ws://h/p?q=1"), Some(("h".to_owned(), 80, false)));
        assert_eq!(parts("wss://u:p@h.example/p"), Some(("h.example".to_owned(), 443, true)));
        assert_eq!(parts("ws://[::1]:8080/p"), Some(("::1".to_owned(), 8080, false)));
        assert_eq!(parts("http://h/p"), None);
        assert_eq!(parts("/p"), None);
    }

    #[test]
    fn the_request_has_the_key_and_does_not_show_it() {
        let request = request(&link("ws://u:pw@h:81/p?worker_id=w%201", "k3y")).unwrap();
        assert_eq!(request.headers()["authorization"], "Bearer k3y");
        assert_eq!(request.headers()["host"], "h:81");
        assert_eq!(request.uri().path_and_query().unwrap(), "/p?worker_id=w%201");
        assert!(!format!("{:?}", request.headers()).contains("k3y"));
    }

    #[test]
    fn a_key_with_a_line_break_is_no_header() {
        assert!(matches!(request(&link("ws://h/p", "a\nb")), Err(DialError::Permanent(_))));
    }

    fn reached(addresses: &[SocketAddr], within: Duration) -> Result<SocketAddr, DialError> {
        let (_outbox, inbox) = crate::control_plane::ws::outbox::pair().unwrap();
        let deadline = HandshakeDeadline { until: Instant::now() + within, inbox: Rc::new(inbox) };
        reach("h", addresses, &deadline).map(|tcp| tcp.peer_addr().unwrap())
    }

    #[test]
    fn every_address_is_tried_until_one_answers() {
        let gone = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (dead, dead_too, live) = (gone(), gone(), listener.local_addr().unwrap());
        let time = Duration::from_secs(20);
        assert_eq!(reached(&[dead, dead_too, live], time).unwrap(), live);
        let Err(DialError::Transient(why)) = reached(&[dead, dead_too], time) else { panic!("reached") };
        assert!(why.contains(&dead.to_string()) && why.contains(&dead_too.to_string()), "{why}");
    }

    #[test]
    fn a_silent_address_leaves_time_for_the_next() {
        // A listener whose queue is full neither takes nor refuses.
        let socket = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
        let full = socket(SocketFlags::CLOEXEC);
        rustix::net::bind(&full, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&full, 0).unwrap();
        let silent = SocketAddr::try_from(rustix::net::getsockname(&full).unwrap()).unwrap();
        let waiting = [(); 4].map(|()| socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK));
        for filler in &waiting {
            let _ = connect(filler, &silent);
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = listener.local_addr().unwrap();
        assert_eq!(reached(&[silent, live], Duration::from_secs(3)).unwrap(), live);
    }
}
