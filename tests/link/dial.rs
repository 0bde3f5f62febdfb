//! Connecting, and the event or error for each failure to connect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use crossbeam_channel::bounded;
use oz_agent_worker::control_plane::ws::{Link, LinkError, LinkEvent, Timing};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen as listen_on, socket_with,
};

use super::{
    TIMEOUT, accept, accept_ws, config, fast_retry, listen, millis, request, start, start_limited,
    start_with, upgrade_response,
};

/// Returns the error after one attempt that got this answer and a closed connection.
fn error_after(answer: &str) -> LinkError {
    let (listener, url) = listen();
    let running = start_limited(&url, fast_retry(), 1);
    let mut stream = accept(&listener);
    request(&mut stream);
    stream.write_all(answer.as_bytes()).unwrap();
    drop(stream);
    running.fatal()
}

#[test]
fn the_request_carries_the_key_and_the_query() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let head = request(&mut accept(&listener));
    assert!(head.starts_with("GET /ws?worker_id=w HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nauthorization: bearer k3y\r\n"), "{head}");
    drop(running);
}

#[test]
fn without_permission_no_request_is_sent() {
    let (listener, url) = listen();
    let (sender, events) = bounded(4);
    let link = Link::start(config(&url, fast_retry()), sender).unwrap();
    let replaced = accept(&listener).read(&mut [0; 16]);
    assert_eq!(replaced.unwrap(), 0, "a request was sent");
    link.allow_upgrade();
    let mut stream = accept(&listener);
    let head = request(&mut stream);
    assert!(head.starts_with("GET /ws"), "{head}");
    assert!(events.is_empty(), "a replaced connection is no failure");
}

#[test]
fn a_prepared_connection_is_used_once_permitted() {
    let (listener, url) = listen();
    let link = Link::start(config(&url, fast_retry()), bounded(4).0).unwrap();
    let mut prepared = accept(&listener);
    link.allow_upgrade();
    let head = request(&mut prepared);
    assert!(head.starts_with("GET /ws"), "{head}");
}

#[test]
fn a_prepared_connection_is_closed_with_the_link() {
    let (listener, url) = listen();
    let (sender, events) = bounded(4);
    let link = Link::start(config(&url, fast_retry()), sender).unwrap();
    let mut prepared = accept(&listener);
    link.close();
    assert_eq!(events.recv_timeout(TIMEOUT), Ok(LinkEvent::Closed));
    assert_eq!(prepared.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_bare_status_line_is_classified() {
    assert_eq!(error_after("HTTP/1.1 401 Unauthorized\r\n\r\n"), LinkError::Unauthorized);
    assert_eq!(error_after("HTTP/1.1 403 Forbidden\r\n\r\n"), LinkError::Forbidden);
}

#[test]
fn a_truncated_status_line_is_classified() {
    assert_eq!(error_after("HTTP/1.1 401"), LinkError::Unauthorized);
    assert_eq!(error_after("HTTP/1.1 403 Forbidden\r\n"), LinkError::Forbidden);
}

#[test]
fn a_status_line_without_a_blank_line_is_classified() {
    let (listener, url) = listen();
    let running = start(&url, Timing { handshake: millis(200), ..fast_retry() });
    let mut stream = accept(&listener);
    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\n").unwrap();
    assert_eq!(running.fatal(), LinkError::Unauthorized);
}

#[test]
fn permanent_answers_end_the_link() {
    assert_eq!(error_after("HTTP/1.1 404 Not Found\r\n\r\n"), LinkError::NotFound);
    assert_eq!(error_after("HTTP/1.1 400 Bad Request\r\n\r\n"), LinkError::Refused { status: 400 });
    assert_eq!(
        error_after("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        LinkError::NotUpgraded { status: 200 }
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let (elsewhere, target) = listen();
    let target = target.replace("ws://", "http://");
    let error = error_after(&format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n"));
    assert_eq!(error, LinkError::Redirected { status: 302 });
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "the redirect was followed");
}

#[test]
fn transient_answers_are_retried() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    for answer in ["503 Unavailable", "429 Too Many", "408 Late", "425 Early"] {
        let mut stream = accept(&listener);
        request(&mut stream);
        stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
    }
    drop(accept(&listener));
    let _peer = accept_ws(&listener);
    assert_eq!(running.next(), LinkEvent::Failed, "one event for the first failure only");
    assert_eq!(running.up().0, 1, "failed attempts have no epoch");
}

#[test]
fn an_unanswered_upgrade_times_out() {
    let (listener, url) = listen();
    let running = start_limited(&url, Timing { handshake: millis(200), ..fast_retry() }, 1);
    let _stream = accept(&listener);
    let LinkError::GaveUp { failures: 1, reason } = running.fatal() else { panic!("not given up") };
    assert!(reason.contains("trailing slash"), "{reason}");
}

#[test]
fn a_slow_answer_does_not_extend_the_deadline() {
    let (listener, url) = listen();
    let running = start_limited(&url, Timing { handshake: millis(300), ..fast_retry() }, 1);
    let mut stream = accept(&listener);
    let drip = std::thread::spawn(move || {
        while stream.write_all(b"\r\n").is_ok() {
            std::thread::sleep(millis(20));
        }
    });
    assert!(matches!(running.fatal(), LinkError::GaveUp { .. }));
    drip.join().unwrap();
}

#[test]
fn a_refused_connection_is_retried_up_to_the_limit() {
    let (listener, url) = listen();
    drop(listener);
    let LinkError::GaveUp { failures: 3, reason } = start_limited(&url, fast_retry(), 3).fatal() else {
        panic!("not given up")
    };
    assert!(reason.contains("refused"), "{reason}");
}

#[test]
fn a_host_name_is_resolved() {
    // Nothing listens on ::1, which may be tried first.
    let (listener, url) = listen();
    let running = start(&url.replace("127.0.0.1", "localhost"), fast_retry());
    let _peer = accept_ws(&listener);
    running.up();
}

#[test]
fn an_unusable_url_or_key_is_permanent() {
    let running = start("http://127.0.0.1:1/ws", fast_retry());
    assert!(matches!(running.fatal(), LinkError::Unusable { .. }));
    let mut bad = config("ws://127.0.0.1:1/ws", fast_retry());
    bad.api_key = oz_agent_worker::secret::Secret::new("a\nb");
    assert!(matches!(start_with(bad).fatal(), LinkError::Unusable { .. }));
}

/// Returns an address that neither accepts nor refuses, because the listener's queue is full.
fn black_hole() -> (OwnedFd, Vec<OwnedFd>, SocketAddr) {
    let socket = |flags| socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap();
    let listener = socket(SocketFlags::CLOEXEC);
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen_on(&listener, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let filler = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            let _ = connect(&filler, &address);
            filler
        })
        .collect();
    (listener, waiting, address)
}

#[test]
fn an_unanswered_connect_times_out() {
    let (_listener, _waiting, address) = black_hole();
    let timing = Timing { connect: millis(200), ..fast_retry() };
    let LinkError::GaveUp { reason, .. } = start_limited(&format!("ws://{address}/"), timing, 1).fatal()
    else {
        panic!("not given up")
    };
    assert!(reason.contains("timed out"), "{reason}");
}

#[test]
fn a_close_ends_an_unanswered_connect() {
    let (_listener, _waiting, address) = black_hole();
    let an_hour = millis(3_600_000);
    let timing = Timing { connect: an_hour, handshake: an_hour, ..fast_retry() };
    let mut running = start(&format!("ws://{address}/"), timing);
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
}

#[test]
fn a_close_ends_an_unanswered_handshake() {
    let (listener, url): (TcpListener, String) = listen();
    let an_hour = millis(3_600_000);
    let mut running = start(&url, Timing { handshake: an_hour, ..fast_retry() });
    let mut stream: TcpStream = accept(&listener);
    request(&mut stream);
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
    assert!(super::hangs_up(&mut stream));
}

#[test]
fn the_response_may_arrive_byte_by_byte_with_several_tokens() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept(&listener);
    let response = upgrade_response(&request(&mut stream));
    let response =
        response.replace("Connection: Upgrade", "connection: keep-alive\r\nConnection: close, UPGRADE");
    let padding = format!("\r\nX-Padding: {}\r\n\r\n", "x".repeat(2000));
    let response = response.replace("\r\n\r\n", &padding);
    for byte in response.into_bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    stream.write_all(&[0x81, 15]).unwrap();
    stream.write_all(br#"{"type":"news"}"#).unwrap();
    running.up();
    assert_eq!(running.text(), "news");
}

#[test]
fn a_response_whose_head_does_not_end_is_refused() {
    let (listener, url) = listen();
    let running = start_limited(&url, fast_retry(), 1);
    let mut stream = accept(&listener);
    request(&mut stream);
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\n").unwrap();
    let header = format!("X: {}\r\n", "x".repeat(1000));
    while stream.write_all(header.as_bytes()).is_ok() {}
    let LinkError::GaveUp { reason, .. } = running.fatal() else { panic!("did not give up") };
    assert_eq!(reason, "the upgrade failed: the head of the response is too long");
}
