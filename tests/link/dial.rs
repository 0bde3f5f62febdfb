//! Getting to a connection, and what every way of not getting there means.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use oz_agent_worker::control_plane::ws::{LinkError, LinkEvent, Timing};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen as listen_on, socket_with,
};

use super::{accept, accept_ws, calm, config, listen, millis, request, start, start_limited, start_with};

/// What becomes of one attempt that is answered with these bytes and a hang-up.
fn answered(answer: &str) -> LinkError {
    let (listener, url) = listen();
    let running = start_limited(&url, calm(), 1);
    let mut stream = accept(&listener);
    request(&mut stream);
    stream.write_all(answer.as_bytes()).unwrap();
    drop(stream);
    running.fatal()
}

#[test]
fn the_request_has_the_key_the_query_and_no_redirect_target() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    let head = request(&mut accept(&listener));
    assert!(head.starts_with("GET /ws?worker_id=w HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("\r\nauthorization: bearer k3y\r\n"), "{head}");
    drop(running);
}

#[test]
fn a_bare_status_line_is_understood() {
    assert_eq!(answered("HTTP/1.1 401 Unauthorized\r\n\r\n"), LinkError::Unauthorized);
    assert_eq!(answered("HTTP/1.1 403 Forbidden\r\n\r\n"), LinkError::Forbidden);
}

#[test]
fn a_status_line_that_is_cut_is_understood() {
    assert_eq!(answered("HTTP/1.1 401"), LinkError::Unauthorized);
    assert_eq!(answered("HTTP/1.1 403 Forbidden\r\n"), LinkError::Forbidden);
}

#[test]
fn a_status_line_after_which_nothing_comes_is_understood() {
    let (listener, url) = listen();
    let running = start(&url, Timing { handshake: millis(200), ..calm() });
    let mut stream = accept(&listener);
    stream.write_all(b"HTTP/1.1 401 Unauthorized\r\n").unwrap();
    assert_eq!(running.fatal(), LinkError::Unauthorized);
}

#[test]
fn permanent_answers_end_the_link() {
    assert_eq!(answered("HTTP/1.1 404 Not Found\r\n\r\n"), LinkError::NotFound);
    assert_eq!(answered("HTTP/1.1 400 Bad Request\r\n\r\n"), LinkError::Refused { status: 400 });
    assert_eq!(
        answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        LinkError::NotUpgraded { status: 200 }
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let (elsewhere, target) = listen();
    let target = target.replace("ws://", "http://");
    let error = answered(&format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n"));
    assert_eq!(error, LinkError::Redirected { status: 302 });
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "somebody followed");
}

#[test]
fn answers_that_may_change_are_tried_again() {
    let (listener, url) = listen();
    let running = start(&url, calm());
    for answer in ["503 Unavailable", "429 Too Many", "408 Late", "425 Early"] {
        let mut stream = accept(&listener);
        request(&mut stream);
        stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
    }
    drop(accept(&listener));
    let _peer = accept_ws(&listener);
    assert_eq!(running.next(), LinkEvent::Failed, "told of the first failure, and of no other");
    assert_eq!(running.up().0, 1, "only a connection has a number");
}

#[test]
fn an_upgrade_that_is_never_answered_runs_into_its_deadline() {
    let (listener, url) = listen();
    let running = start_limited(&url, Timing { handshake: millis(200), ..calm() }, 1);
    let _stream = accept(&listener);
    let LinkError::GaveUp { failures: 1, why } = running.fatal() else { panic!("not given up") };
    assert!(why.contains("trailing slash"), "{why}");
}

#[test]
fn an_answer_that_drips_does_not_move_the_deadline() {
    let (listener, url) = listen();
    let running = start_limited(&url, Timing { handshake: millis(300), ..calm() }, 1);
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
fn a_refused_connection_is_tried_again_until_the_limit() {
    let (listener, url) = listen();
    drop(listener);
    let LinkError::GaveUp { failures: 3, why } = start_limited(&url, calm(), 3).fatal() else {
        panic!("not given up")
    };
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn a_name_is_resolved() {
    // Where ::1 comes first, nobody listens on it.
    let (listener, url) = listen();
    let running = start(&url.replace("127.0.0.1", "localhost"), calm());
    let _peer = accept_ws(&listener);
    running.up();
}

#[test]
fn a_url_or_a_key_that_cannot_be_used_is_permanent() {
    let running = start("http://127.0.0.1:1/ws", calm());
    assert!(matches!(running.fatal(), LinkError::Unusable { .. }));
    let mut bad = config("ws://127.0.0.1:1/ws", calm());
    bad.api_key = oz_agent_worker::secret::Secret::new("a\nb");
    assert!(matches!(start_with(bad).fatal(), LinkError::Unusable { .. }));
}

/// An address where connections are neither taken nor refused: the queue of the listener is full.
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
fn a_connect_that_nobody_takes_runs_into_its_deadline() {
    let (_listener, _waiting, address) = black_hole();
    let timing = Timing { connect: millis(200), ..calm() };
    let LinkError::GaveUp { why, .. } = start_limited(&format!("ws://{address}/"), timing, 1).fatal() else {
        panic!("not given up")
    };
    assert!(why.contains("timed out"), "{why}");
}

#[test]
fn a_close_ends_a_connect_that_nobody_takes() {
    let (_listener, _waiting, address) = black_hole();
    let an_hour = millis(3_600_000);
    let timing = Timing { connect: an_hour, handshake: an_hour, ..calm() };
    let mut running = start(&format!("ws://{address}/"), timing);
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
}

#[test]
fn a_close_ends_a_handshake_that_is_not_answered() {
    let (listener, url): (TcpListener, String) = listen();
    let an_hour = millis(3_600_000);
    let mut running = start(&url, Timing { handshake: an_hour, ..calm() });
    let mut stream: TcpStream = accept(&listener);
    request(&mut stream);
    running.link.close();
    assert_eq!(running.next(), LinkEvent::Closed);
    assert!(running.ended());
    assert!(super::hangs_up(&mut stream));
}
