//! Connecting, and the event or error for each failure to connect.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crossbeam_channel::bounded;
use oz_agent_worker::control_plane::ws::{Link, LinkError, LinkEvent, Refusal, Refused, Timing};
use oz_agent_worker::secret::Secret;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen as listen_on, socket_with,
};

use super::{
    TIMEOUT, accept, accept_ws, config, fast_retry, listen, millis, request, start, start_limited,
    start_with, upgrade_response,
};

/// Returns the refusal after one attempt that got this answer and a closed connection.
fn refused_after(answer: &str) -> Refused {
    let (listener, url) = listen();
    let running = start_limited(&url, fast_retry(), 1);
    let mut stream = accept(&listener);
    request(&mut stream);
    stream.write_all(answer.as_bytes()).unwrap();
    drop(stream);
    let refused = running.refused();
    let LinkError::GaveUp { failures: 1, reason } = running.fatal() else { panic!("not given up") };
    assert_eq!((reason, refused.retry_in), (refused.refusal.to_string(), None));
    refused
}

fn refusal_after(answer: &str) -> Refusal {
    refused_after(answer).refusal
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
    assert_eq!(refusal_after("HTTP/1.1 401 Unauthorized\r\n\r\n"), Refusal::Unauthorized);
    assert_eq!(refusal_after("HTTP/1.1 403 Forbidden\r\n\r\n"), Refusal::Forbidden);
}

#[test]
fn a_truncated_status_line_is_classified() {
    assert_eq!(refusal_after("HTTP/1.1 401"), Refusal::Unauthorized);
    assert_eq!(refusal_after("HTTP/1.1 403 Forbidden\r\n"), Refusal::Forbidden);
}

#[test]
fn a_status_line_without_a_blank_line_is_classified() {
    let (listener, url) = listen();
    let running = start(&url, Timing { handshake: millis(200), ..fast_retry() });
    let mut stream = accept(&listener);
    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\n").unwrap();
    assert_eq!(running.refused().refusal, Refusal::Unauthorized);
}

#[test]
fn refusals_are_classified() {
    assert_eq!(refusal_after("HTTP/1.1 404 Not Found\r\n\r\n"), Refusal::NotFound);
    assert_eq!(refusal_after("HTTP/1.1 400 Bad Request\r\n\r\n"), Refusal::Refused { status: 400 });
    assert_eq!(
        refusal_after("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Refusal::NotUpgraded { status: 200 }
    );
}

#[test]
fn a_refusal_is_retried_until_the_connection_is_accepted() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    for answer in ["404 Not Found", "401 Unauthorized", "302 Found", "200 OK", "407 Proxy"] {
        let mut stream = accept(&listener);
        request(&mut stream);
        stream.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        assert!(
            running.refused().refusal.to_string().contains(answer.split_once(" ").unwrap().0),
            "{answer}"
        );
    }
    let _peer = accept_ws(&listener);
    running.up();
}

#[test]
fn a_refusal_has_the_beginning_of_its_body_without_the_key() {
    let page = format!("<html>\r\n key k3y \u{1b}[1m {}</html>", "x".repeat(5000));
    let body = refused_after(&format!("HTTP/1.1 404 Not Found\r\n\r\n{page}")).body;
    assert!(body.starts_with("<html> key «redacted» \u{1b}[1m xxx") && !body.contains("k3y"), "{body}");
    assert_eq!(body.chars().count(), 201, "{body}");
}

/// The peer keeps the connection open and does not say how long the body is.
#[test]
fn a_body_without_an_end_does_not_hold_the_link() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept(&listener);
    request(&mut stream);
    stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nnot here").unwrap();
    assert_eq!(running.refused().body, "not here");
    drop(accept(&listener));
}

#[test]
fn retry_after_delays_the_next_attempt() {
    let (listener, url) = listen();
    let running = start(&url, fast_retry());
    let mut stream = accept(&listener);
    request(&mut stream);
    stream.write_all(b"HTTP/1.1 404 Not Found\r\nRetry-After: 500\r\n\r\n").unwrap();
    drop(stream);
    let asked = Duration::from_secs(500);
    assert!(running.refused().retry_in.is_some_and(|wait| wait >= asked && wait < 2 * asked));
    // A stop does not wait for that.
    running.link.stop_waiting();
    let _peer = accept_ws(&listener);
    running.up();
}

#[test]
fn the_key_is_read_again_before_each_attempt() {
    let (listener, url) = listen();
    let number = AtomicU32::new(0);
    let mut config = config(&url, fast_retry());
    config.api_key = config.api_key.read_again(move || match number.fetch_add(1, Ordering::Relaxed) {
        0 => Ok(Secret::new("first")),
        1 => Err("it is empty".to_owned()),
        _ => Ok(Secret::new("second")),
    });
    let running = start_with(config);
    for key in ["first", "first", "second"] {
        let mut stream = accept(&listener);
        let head = request(&mut stream).to_ascii_lowercase();
        assert!(head.contains(&format!("\r\nauthorization: bearer {key}\r\n")), "{head}");
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\n\r\n").unwrap();
        drop(stream);
        assert_eq!(running.refused().refusal, Refusal::Unauthorized);
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let (elsewhere, target) = listen();
    let target = target.replace("ws://", "http://");
    let error = refusal_after(&format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n"));
    assert_eq!(error, Refusal::Redirected { status: 302 });
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
        assert_eq!(running.next(), LinkEvent::Failed, "{answer}");
    }
    drop(accept(&listener));
    assert_eq!(running.next(), LinkEvent::Failed);
    let _peer = accept_ws(&listener);
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
fn an_unusable_url_is_permanent() {
    let running = start("http://127.0.0.1:1/ws", fast_retry());
    assert!(matches!(running.fatal(), LinkError::Unusable { .. }));
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
    let mut stream = accept(&listener);
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
