//! Streams over TLS: a cut is distinguished from an end, and deadlines and cancellation work as without TLS.

use std::io::{self, Read};
use std::time::Duration;

use crossbeam_channel::bounded;
use openssl::ssl::SslVersion;
use oz_agent_worker::docker::{Docker, Error, Reference, Timeouts, TlsError};
use oz_agent_worker::sys::cancel::{CancelReason, CancelToken};

use super::{endpoint, variables};
use crate::support::fake_docker::{
    FakeDocker, PATIENCE, Script, Step, client, client_with, hello, json, write,
};
use crate::support::pki::{Key, Pki};
use crate::support::tls_proxy::{ServerTls, TlsEnd, TlsProxy};

const SHORT: Duration = Duration::from_millis(50);
const VERSIONS: [SslVersion; 2] = [SslVersion::TLS1_2, SslVersion::TLS1_3];

/// A scripted engine behind TLS, and a connected client.
struct Lab {
    docker: Docker,
    door: TlsProxy,
    _fake: FakeDocker,
    _pki: Pki,
}

fn lab(scripts: Vec<Script>, newest: SslVersion, ending: TlsEnd) -> Lab {
    lab_with(scripts, newest, ending, Timeouts::default())
}

fn lab_with(scripts: Vec<Script>, newest: SslVersion, ending: TlsEnd, timeouts: Timeouts) -> Lab {
    let fake = FakeDocker::start(hello("1.41").into_iter().chain(scripts).collect());
    let pki = Pki::new();
    let (certificate, key) = pki.server("server", "DNS:localhost", 2);
    // The bodies of the hello have a length, so `ending` does not affect them.
    let lock = ServerTls::with(&certificate, &key, Some(&pki.ca()), newest, ending);
    let door = TlsProxy::start(&fake.endpoint().to_string(), lock);
    let env = variables(door.port(), &pki.client("client", Key::Pkcs8, 2));
    let docker = client_with(&CancelToken::new(), endpoint(&env).unwrap(), None, timeouts).unwrap();
    Lab { docker, door, _fake: fake, _pki: pki }
}

fn export(docker: &Docker) -> (Vec<u8>, io::Result<usize>) {
    let mut body = docker.container_export(&CancelToken::new(), "c").unwrap();
    let mut bytes = Vec::new();
    let end = body.read_to_end(&mut bytes);
    (bytes, end)
}

#[test]
fn a_body_without_a_length_ends_only_with_close_notify() {
    let script = || vec![write("HTTP/1.1 200 OK\r\n\r\nhello")];
    for version in VERSIONS {
        let lab = lab(vec![script()], version, TlsEnd::CloseNotify);
        let (bytes, end) = export(&lab.docker);
        assert_eq!((bytes.as_slice(), end.unwrap()), (b"hello".as_slice(), 5));
        let lab = self::lab(vec![script()], version, TlsEnd::Eof);
        let (bytes, end) = export(&lab.docker);
        let error = Error::from_read(end.unwrap_err());
        assert_eq!(bytes, b"hello");
        assert_eq!(error.tls(), Some(&TlsError::Truncated), "{error:?}");
        assert!(error.is_connection_lost(), "{error:?}");
    }
}

#[test]
fn a_cut_answer_is_an_error_with_and_without_close_notify() {
    let cut = [
        "",
        "HTTP/1.1 200 OK\r\nContent-",
        "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ];
    for ending in [TlsEnd::CloseNotify, TlsEnd::Eof] {
        let lab = lab(cut.iter().map(|text| vec![write(text)]).collect(), SslVersion::TLS1_3, ending);
        for text in cut {
            let error = lab.docker.container_inspect(&CancelToken::new(), "c").unwrap_err();
            let Error::Io { source, .. } = &error else { panic!("{text}: {error:?}") };
            assert_eq!(source.kind(), io::ErrorKind::UnexpectedEof, "{text}: {error:?}");
        }
    }
}

#[test]
fn deadlines_apply_to_everything_but_a_wait() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let lab = |script, head| {
        let timeouts = Timeouts { call: head, head, idle: SHORT, ..Timeouts::default() };
        lab_with(vec![script], SslVersion::TLS1_3, TlsEnd::CloseNotify, timeouts)
    };
    let cancel = CancelToken::new();
    let silent = lab(vec![Step::Stall], SHORT * 4);
    let error = silent.docker.container_inspect(&cancel, "c").unwrap_err();
    assert!(
        matches!(&error, Error::Timeout { what, .. } if what.contains("the response's head")),
        "{error:?}"
    );
    let stuck = lab(vec![write(chunked), Step::Stall], PATIENCE);
    let error = stuck.docker.container_inspect(&cancel, "c").unwrap_err();
    assert!(matches!(&error, Error::Timeout { what, .. } if what.contains("the body")), "{error:?}");
    let exit = vec![write(chunked), Step::Pause(SHORT * 8), write("10\r\n{\"StatusCode\":9}\r\n0\r\n\r\n")];
    let waiting = lab(exit, PATIENCE);
    assert_eq!(waiting.docker.container_wait(&cancel, "c").unwrap().join().unwrap(), 9);
}

#[test]
fn a_cancel_ends_a_read_a_write_and_a_handshake() {
    let (tell, reached) = bounded(1);
    let scripts = vec![
        vec![Step::Tell(tell.clone()), Step::Stall],
        vec![write("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Tell(tell.clone()), Step::Stall],
        vec![Step::Tell(tell), Step::Stall],
    ];
    let lab = lab(scripts, SslVersion::TLS1_3, TlsEnd::CloseNotify);
    type Call = fn(&Docker, &CancelToken) -> Result<(), Error>;
    let calls: [Call; 3] = [
        |docker, token| docker.container_inspect(token, "c").map(drop),
        |docker, token| {
            let mut body = docker.container_export(token, "c")?;
            body.read_to_end(&mut Vec::new()).map(drop).map_err(Error::from_read)
        },
        |docker, token| docker.archive_put(token, "c", "/", &mut io::repeat(b'x')),
    ];
    for call in calls {
        let token = CancelToken::new();
        let docker = lab.docker.clone();
        let caller = token.clone();
        let thread = std::thread::spawn(move || call(&docker, &caller));
        reached.recv_timeout(PATIENCE).unwrap();
        token.cancel(CancelReason::Requested);
        let result = thread.join().unwrap();
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    }
    // A listener that accepts the connection and stays silent.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let pki = Pki::new();
    let env = variables(silent.local_addr().unwrap().port(), &pki.client("client", Key::Pkcs8, 2));
    let endpoint = endpoint(&env).unwrap();
    let token = CancelToken::new();
    let caller = token.clone();
    let thread = std::thread::spawn(move || client(&caller, endpoint, None));
    let (_stream, _) = silent.accept().unwrap();
    token.cancel(CancelReason::Requested);
    assert!(matches!(thread.join().unwrap(), Err(Error::Cancelled)));
}

#[test]
fn a_stalled_handshake_fails_at_the_deadline() {
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let pki = Pki::new();
    let env = variables(silent.local_addr().unwrap().port(), &pki.client("client", Key::Pkcs8, 2));
    let timeouts = Timeouts { connect: SHORT * 4, ..Timeouts::default() };
    let error = client_with(&CancelToken::new(), endpoint(&env).unwrap(), None, timeouts).unwrap_err();
    let Error::Unreachable { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("the TLS handshake timed out"), "{source}");
}

#[test]
fn large_bodies_pass_in_both_directions() {
    const SIZE: usize = 8 << 20;
    let big: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes();
    answer.extend_from_slice(&big);
    // A refusal before the end of the upload. Its head is one TLS record but takes two reads; after the first read, the
    // rest is in OpenSSL's buffer and poll(2) no longer reports the socket as readable.
    let early = format!("HTTP/1.1 500 x\r\nA: {}\r\nContent-Length: 2\r\n\r\n{{}}", "a".repeat(12_000));
    for version in VERSIONS {
        let scripts = vec![
            vec![Step::Write(answer.clone())],
            vec![Step::ReadBody, json(200, "")],
            vec![write(&early), Step::Stall],
        ];
        let lab = lab(scripts, version, TlsEnd::CloseNotify);
        let (bytes, end) = export(&lab.docker);
        assert_eq!(end.unwrap(), SIZE);
        assert!(bytes == big);
        let cancel = CancelToken::new();
        lab.docker.archive_put(&cancel, "c", "/", &mut big.as_slice()).unwrap();
        let sent = (0..5).map(|_| lab._fake.request()).last().unwrap();
        assert!(sent.body.len() > SIZE && sent.body.ends_with(b"\r\n0\r\n\r\n"), "{}", sent.body.len());
        let error = lab.docker.archive_put(&cancel, "c", "/", &mut io::repeat(b'x')).unwrap_err();
        assert!(matches!(error, Error::Engine { status: 500, .. }), "{error:?}");
        assert_eq!(lab.door.passed(), 6);
    }
}

#[test]
fn a_silent_pull_still_reports_progress() {
    let (release, released) = bounded(1);
    let line = r#"{"status":"Downloading","progressDetail":{"current":3,"total":8},"id":"a"}"#;
    let script = vec![write(&format!("HTTP/1.1 200 OK\r\n\r\n{line}\r\n")), Step::Await(released)];
    let lab = lab(vec![script], SslVersion::TLS1_3, TlsEnd::CloseNotify);
    let mut reports = 0;
    let image = Reference::parse("a").unwrap();
    lab.docker
        .image_pull(&CancelToken::new(), &image, None, None, SHORT, &mut |_| {
            reports += 1;
            if reports == 3 {
                release.send(()).unwrap();
            }
        })
        .unwrap();
    assert!(reports >= 3);
}
