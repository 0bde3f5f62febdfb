//! The request for a tunnel (RFC 9110, section 9.3.6), over a stream whose reads and writes wait.

use std::io::{self, ErrorKind, Read, Write};

use httparse::{Response, Status};

use super::{Proxy, ProxyError, ProxyProblem};
use crate::net::url::authority;
use crate::net::user_agent;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// The most headers of an answer.
const MAX_HEADERS: usize = 100;

/// Asks `proxy`, at the other end of `stream`, for a connection to `host` (an IP address without brackets). After success, the stream
/// is that connection. A read or write that fails with `TimedOut` is the proxy's silence.
///
/// # Errors
/// There is no tunnel.
pub(crate) fn tunnel(
    stream: &mut (impl Read + Write),
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<(), ProxyError> {
    let target = authority(host, port);
    let fail = |problem| ProxyError::new(proxy, problem);
    stream.write_all(request(proxy, &target).as_bytes()).map_err(|error| fail(broken(&error)))?;
    stream.flush().map_err(|error| fail(broken(&error)))?;
    let (mut head, mut buffer) = (Vec::new(), [0; 2048]);
    loop {
        let count = match stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result.map_err(|error| fail(broken(&error)))?,
        };
        if count == 0 {
            return Err(fail(ProxyProblem::Closed));
        }
        head.extend(buffer.iter().take(count));
        if check(&head, &target).map_err(fail)? {
            return Ok(());
        }
        if head.len() > MAX_HEAD {
            return Err(fail(ProxyProblem::NotHttp));
        }
    }
}

fn request(proxy: &Proxy, target: &str) -> String {
    let credentials = proxy.credentials.as_ref();
    let credentials = credentials.map(|basic| format!("Proxy-Authorization: {}\r\n", basic.expose()));
    format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {}\r\n{}\r\n",
        user_agent(),
        credentials.unwrap_or_default()
    )
}

fn broken(error: &io::Error) -> ProxyProblem {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => ProxyProblem::Silent,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => ProxyProblem::Closed,
        _ => ProxyProblem::Broken(error.to_string()),
    }
}

/// Returns whether the head is complete and grants the tunnel. The peer of the tunnel speaks only after the client, so more bytes than
/// the head are a page.
fn check(head: &[u8], target: &str) -> Result<bool, ProxyProblem> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = Response::new(&mut headers);
    let length = match response.parse(head) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(false),
        Err(_) if head.trim_ascii_start().starts_with(b"<") => return Err(ProxyProblem::Page),
        Err(_) => return Err(ProxyProblem::NotHttp),
    };
    let has_body = response.headers.iter().any(|header| {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        is("Transfer-Encoding") || (is("Content-Length") && header.value.trim_ascii() != b"0")
    });
    match response.code.unwrap_or_default() {
        200..=299 if has_body || head.len() > length => Err(ProxyProblem::Page),
        200..=299 => Ok(true),
        status @ (401 | 407) => Err(ProxyProblem::Credentials { status }),
        status => Err(ProxyProblem::Status { status, target: target.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::super::Proxies;
    use super::*;
    use crate::sys::environment::Environment;

    /// A proxy that sends these parts, and then ends or fails.
    struct Peer {
        parts: VecDeque<Vec<u8>>,
        end: Option<ErrorKind>,
        sent: Vec<u8>,
    }

    impl Read for Peer {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(part) = self.parts.pop_front() else {
                return self.end.map_or(Ok(0), |kind| Err(kind.into()));
            };
            buffer[..part.len()].copy_from_slice(&part);
            Ok(part.len())
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.sent.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn peer(parts: &[&str], end: Option<ErrorKind>) -> Peer {
        let parts = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        Peer { parts, end, sent: Vec::new() }
    }

    fn ask(peer: &mut Peer, url: &str, host: &str) -> Result<(), String> {
        let (proxies, _) = Proxies::new(&Environment::from_iter([("HTTPS_PROXY", url)]));
        let proxy = proxies.choose(true, host, 443).unwrap();
        tunnel(peer, proxy, host, 443).map_err(|error| {
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn the_request_names_the_target_and_has_the_credentials() {
        let mut peer = peer(&["HTTP/1.0 200 OK\r\n\r\n"], None);
        ask(&mut peer, "http://me:a%20b@p:3128", "fd00::1").unwrap();
        let expected = format!(
            "CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\nUser-Agent: {}\r\nProxy-Authorization: Basic bWU6YSBi\r\n\r\n",
            user_agent()
        );
        assert_eq!(String::from_utf8(peer.sent).unwrap(), expected);
    }

    #[test]
    fn a_head_in_parts_grants_the_tunnel() {
        let head = "HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\nContent-Length: 0\r\n\r\n";
        for end in 1..head.len() {
            let (first, rest) = head.split_at(end);
            assert_eq!(ask(&mut peer(&[first, rest], None), "http://p", "h"), Ok(()), "{end}");
        }
    }

    #[test]
    fn each_failure_has_its_own_text() {
        let denied = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\n";
        let timeout = Some(ErrorKind::TimedOut);
        let cases: [(&str, &[&str], Option<ErrorKind>, &str); 15] = [
            (
                "http://p",
                &[denied],
                None,
                "http://p:80 answered 407: it wants a user name and password; set HTTPS_PROXY",
            ),
            (
                "http://u:hunter2@p",
                &[denied],
                None,
                "answered 407: it refused the user name and password in HTTPS_PROXY",
            ),
            (
                "http://u:hunter2@p",
                &["HTTP/1.0 401 Unauthorized\r\n\r\n"],
                None,
                "answered 401: it refused the user name and password in HTTPS_PROXY",
            ),
            (
                "http://p",
                &["HTTP/1.1 403 No\r\n\r\n<html>"],
                None,
                "answered 403 to CONNECT h:443: allow CONNECT",
            ),
            ("http://p", &["HTTP/1.1 503 No\r\n\r\n"], None, "503 to CONNECT h:443: the proxy cannot"),
            ("http://p", &["HTTP/1.0 500 No\r\n\r\n"], None, "500 to CONNECT h:443: the proxy cannot"),
            ("http://p", &["HTTP/1.1 302 No\r\n\r\n"], None, "302 to CONNECT h:443: check the proxy"),
            ("http://p", &["HTTP/1.1 200 OK\r\n\r\n<html>"], None, "with a web page"),
            ("http://p", &["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], None, "with a web page"),
            ("http://p", &["<html>"], None, "with a web page"),
            ("http://p", &["\x15\x03\x01"], None, "did not answer CONNECT with HTTP; a proxy with TLS"),
            ("http://p", &["HTTP/1.1 2"], timeout, "did not answer CONNECT in time"),
            ("http://p", &[], None, "closed the connection without an answer to CONNECT"),
            ("http://p", &[], Some(ErrorKind::ConnectionReset), "closed the connection without an answer"),
            ("http://p", &[], Some(ErrorKind::PermissionDenied), "(HTTPS_PROXY) broke: permission denied"),
        ];
        for (url, parts, end, text) in cases {
            let error = ask(&mut peer(parts, end), url, "h").unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        let line = format!("X: {}\r\n", "x".repeat(1000)).into_bytes();
        let mut peer = peer(&["HTTP/1.1 200 OK\r\n"], None);
        peer.parts.extend(std::iter::repeat_n(line, 20));
        assert!(ask(&mut peer, "http://p", "h").unwrap_err().contains("with HTTP"));
    }
}
