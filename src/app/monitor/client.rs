//! A reader of the pages, for the sub-commands.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::app::deadline::within;

/// How long the whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(3);
/// The most bytes of an answer: more than a page with the largest number of tasks has.
const MAX_ANSWER: u64 = 1 << 20;

/// Returns the address at which a server that listens at `address` is reached from this host.
pub(crate) fn reached_at(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Returns the state that a worker serves at this address. `None` if nothing answers in time, or what answers is no worker.
pub(crate) fn status_at(address: SocketAddr) -> Option<Value> {
    let answer = answer_from(address, "/status").ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let page: Value = serde_json::from_str(body).ok().filter(|_| head.starts_with("HTTP/1.1 200 "))?;
    let is_worker = page.get("version").is_some_and(Value::is_string) && page.get("slots").is_some();
    is_worker.then_some(page)
}

/// Returns the answer of the server at this address to a request for a page: head and body.
///
/// # Errors
/// There is none within 3 s.
pub(crate) fn answer_from(address: SocketAddr, path: &'static str) -> io::Result<String> {
    within(EXCHANGE, move |_| read(address, path)).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

fn read(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, EXCHANGE)?;
    stream.set_read_timeout(Some(EXCHANGE))?;
    stream.set_write_timeout(Some(EXCHANGE))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use serde_json::json;

    use super::*;

    /// Returns what is read from a server that answers with these bytes.
    fn status_of(answer: &'static str) -> Option<Value> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        });
        let status = status_at(address);
        server.join().unwrap();
        status
    }

    #[test]
    fn only_the_page_of_a_worker_is_one() {
        let page = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"version\": \"1\", \"slots\": 3}";
        assert_eq!(status_of(page), Some(json!({ "version": "1", "slots": 3 })));
        let others = [
            "",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{\"version\": \"1\"",
            "HTTP/1.1 200 OK\r\n\r\n[]",
            "HTTP/1.1 200 OK\r\n\r\n{\"slots\": 3}",
            "HTTP/1.1 404 No\r\n\r\n{\"version\": \"1\", \"slots\": 3}",
        ];
        assert_eq!(others.map(status_of), [const { None }; 6]);
    }

    #[test]
    fn a_server_at_all_addresses_is_reached_at_a_loopback_address() {
        let cases = [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("127.0.0.2:1", "127.0.0.2:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ];
        for (address, expected) in cases {
            assert_eq!(reached_at(address.parse().unwrap()).to_string(), expected);
        }
    }
}
