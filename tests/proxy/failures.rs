//! Proxies that do not work, each with its own message in the link and in REST.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use oz_agent_worker::control_plane::tls::Trust;
use oz_agent_worker::control_plane::ws::{LinkConfig, Timing};

use super::{HOST, link, network, rest};
use crate::link::{TIMEOUT, accept, hangs_up, millis, request, start_with};
use crate::support::control_plane::{ControlPlane, Options};
use crate::support::peer::Peer;
use crate::support::pki::Pki;

/// Asserts that the link and REST, which use the proxy at `url`, fail with this text and show no password. `talk` plays the proxy on
/// each connection.
fn assert_fails(listener: &TcpListener, scheme: &str, text: &str, talk: impl Fn(Peer) + Sync) {
    assert_fails_within(TIMEOUT, listener, scheme, text, talk);
}

/// As [`assert_fails`], with this deadline for the connection.
fn assert_fails_within(
    limit: Duration,
    listener: &TcpListener,
    scheme: &str,
    text: &str,
    talk: impl Fn(Peer) + Sync,
) {
    let plane = ControlPlane::start(Options::default());
    let port = listener.local_addr().unwrap().port();
    let url = format!("{scheme}://me:hunter2@127.0.0.1:{port}");
    let network = network(&[("HTTPS_PROXY", &url)], Trust::default());
    let shown = format!("{scheme}://127.0.0.1:{port}");
    let timing = Timing { handshake: limit, backoff_min: millis(10), ..Timing::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            talk(accept(listener));
            talk(accept(listener));
        });
        let config = LinkConfig { timing, ..link(&plane, "wss", 443, network.clone()) };
        let of_link = start_with(config).fatal().to_string();
        let of_rest = rest(&plane, "https", 443, network).look_up("r", limit).map(|run| run.state);
        for error in [of_link, of_rest.unwrap_err().to_string()] {
            assert!(error.contains(text) && error.contains(&shown), "{error}");
            assert!(!error.contains("hunter2") && !error.contains("aHVudGVyMg"), "{error}");
        }
    });
}

fn listener() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

/// Answers CONNECT with these bytes and closes the connection.
fn answers(bytes: &'static str) -> impl Fn(Peer) + Sync {
    move |mut stream| {
        let head = request(&mut stream);
        assert!(head.starts_with(&format!("CONNECT {HOST}:443 ")), "{head}");
        stream.write_all(bytes.as_bytes()).unwrap();
    }
}

#[test]
fn a_407_says_that_the_credentials_are_refused() {
    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 6\r\n\r\n<html>";
    assert_fails(
        &listener(),
        "http",
        "answered 407: it refused the user name and password in HTTPS_PROXY",
        answers(answer),
    );
}

#[test]
fn another_status_names_the_target() {
    let text = "answered 403 to CONNECT control-plane.invalid:443: allow CONNECT to that host and port";
    assert_fails(&listener(), "http", text, answers("HTTP/1.1 403 Forbidden\r\n\r\n"));
}

#[test]
fn a_web_page_is_no_tunnel() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    assert_fails(&listener(), "http", "answered CONNECT with a web page", answers(page));
    assert_fails(&listener(), "http", "answered CONNECT with a web page", answers("<html><body>"));
}

#[test]
fn a_proxy_that_closes_is_told_from_one_that_is_silent() {
    assert_fails(&listener(), "http", "closed the connection without an answer to CONNECT", answers(""));
    let silent = |mut stream: Peer| {
        request(&mut stream);
        assert!(hangs_up(&mut stream));
    };
    assert_fails_within(millis(1000), &listener(), "http", "did not answer CONNECT in time", silent);
}

#[test]
fn a_proxy_of_the_other_kind_is_told_apart() {
    // Plain HTTP where TLS was expected, and TLS where HTTP was.
    let plain = |mut stream: Peer| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert_fails(&listener(), "https", "a proxy without TLS needs http:// in HTTPS_PROXY", plain);
    let alert = "\x15\x03\x01\x00\x02\x02\x46";
    assert_fails(&listener(), "http", "a proxy with TLS needs https:// in HTTPS_PROXY", answers(alert));
}

#[test]
fn an_untrusted_proxy_is_told_from_an_untrusted_control_plane() {
    let pki = Pki::new();
    let (certificate, key) = pki.server("proxy", "IP:127.0.0.1", 2);
    let read = |path| std::fs::read(path).unwrap();
    let identity = native_tls::Identity::from_pkcs8(&read(certificate), &read(key)).unwrap();
    let acceptor = native_tls::TlsAcceptor::new(identity).unwrap();
    let talk = |stream| assert!(acceptor.accept(stream).is_err());
    assert_fails(&listener(), "https", "the certificate of the proxy https://127.0.0.1", talk);
}

#[test]
fn a_proxy_that_is_not_there_is_told_from_one_without_an_address() {
    let plane = ControlPlane::start(Options::default());
    let port = listener().local_addr().unwrap().port();
    for (url, text) in [
        (format!("http://127.0.0.1:{port}"), "cannot connect to the proxy http://127.0.0.1"),
        (
            "http://proxy.invalid:3128".to_owned(),
            "cannot resolve the proxy http://proxy.invalid:3128 (HTTPS_PROXY)",
        ),
    ] {
        let network = network(&[("HTTPS_PROXY", &url)], Trust::default());
        let of_link = start_with(link(&plane, "wss", 443, network.clone())).fatal().to_string();
        let of_rest = rest(&plane, "https", 443, network).look_up("r", TIMEOUT).unwrap_err().to_string();
        assert!(of_link.contains(text) && of_rest.contains(text), "{of_link}\n{of_rest}");
    }
}
