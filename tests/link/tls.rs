//! `wss`: with a certificate that is trusted, one that is not, and a peer that speaks no TLS.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use native_tls::{Identity, TlsAcceptor};
use oz_agent_worker::control_plane::ws::{LinkError, LinkEvent, Timing};
use oz_agent_worker::protocol::Incoming;

use super::{
    accept, calm, close_code, in_a_process_of_its_own, listen, message, millis, next_text, start,
    start_limited,
};

/// Says to the child where the certificate is.
const FOLDER: &str = "OZ_TEST_TLS_FOLDER";

/// A folder of this test's own, gone with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("oz-link-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate for `localhost` that nobody has signed.
fn certify(folder: &Path) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn acceptor(folder: &Path) -> TlsAcceptor {
    let read = |name| std::fs::read(folder.join(name)).unwrap();
    TlsAcceptor::new(Identity::from_pkcs8(&read("cert.pem"), &read("key.pem")).unwrap()).unwrap()
}

fn secured(url: &str) -> String {
    url.replace("ws://127.0.0.1", "wss://localhost")
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_permanent() {
    let folder = Folder::new("untrusted");
    certify(&folder.0);
    let (listener, url) = listen();
    let running = start(&secured(&url), calm());
    assert!(acceptor(&folder.0).accept(accept(&listener)).is_err());
    let LinkError::Certificate { host, why } = running.fatal() else { panic!("trusted") };
    assert_eq!(host, "localhost");
    assert!(why.contains("self") && why.contains("signed"), "{why}");
}

#[test]
fn a_peer_that_speaks_no_tls_is_tried_again() {
    let (listener, url) = listen();
    let running = start_limited(&secured(&url), calm(), 1);
    let mut stream = accept(&listener);
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let LinkError::GaveUp { why, .. } = running.fatal() else { panic!("not given up") };
    assert!(why.contains("TLS"), "{why}");
}

#[test]
fn a_peer_that_is_silent_in_the_tls_handshake_runs_into_the_deadline() {
    let (listener, url) = listen();
    let running = start_limited(&secured(&url), Timing { handshake: millis(200), ..calm() }, 1);
    let _stream = accept(&listener);
    let LinkError::GaveUp { why, .. } = running.fatal() else { panic!("not given up") };
    assert!(why.contains("no TLS answer"), "{why}");
}

#[test]
fn a_certificate_in_ssl_cert_file_is_trusted() {
    let folder = Folder::new("trusted");
    certify(&folder.0);
    // The variable belongs to a whole process, so that part runs in one of its own.
    let variables = [("SSL_CERT_FILE", folder.0.join("cert.pem")), (FOLDER, folder.0.clone())];
    in_a_process_of_its_own("link::tls::in_a_process_with_ssl_cert_file", &variables);
}

#[test]
fn a_certificate_in_ssl_cert_dir_is_trusted() {
    let folder = Folder::new("trusted-folder");
    certify(&folder.0);
    let trusted = folder.0.join("trusted");
    std::fs::create_dir(&trusted).unwrap();
    std::fs::copy(folder.0.join("cert.pem"), trusted.join("cert.pem")).unwrap();
    // It gives each certificate a second name, by which OpenSSL finds it.
    let output = Command::new("openssl").arg("rehash").arg(&trusted).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let variables = [("SSL_CERT_DIR", trusted), (FOLDER, folder.0.clone())];
    in_a_process_of_its_own("link::tls::in_a_process_with_ssl_cert_file", &variables);
}

#[test]
#[ignore = "run by the tests above in a process of its own"]
fn in_a_process_with_ssl_cert_file() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let (listener, url) = listen();
    let mut running = start(&secured(&url), calm());
    let stream = acceptor(&folder).accept(accept(&listener)).unwrap();
    let mut peer = tungstenite::accept(stream).unwrap();
    let epoch = running.up();
    let big = "b".repeat(8 << 20);
    running.send(epoch, Some(1), &big);
    running.send(epoch, Some(2), "small");
    assert!(next_text(&mut peer) == big);
    assert_eq!(next_text(&mut peer), "small");
    peer.send(tungstenite::Message::text(message(&big))).unwrap();
    // The ping may have come between the two messages or after them.
    let text = loop {
        match running.next() {
            LinkEvent::Message(Ok(Incoming::Unknown { kind })) => break kind,
            LinkEvent::Confirmed { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(text == big);
    running.link.close();
    assert_eq!(close_code(&mut peer), 1001);
    let _ = peer.flush();
    assert!(running.ended());
    // A name that the certificate does not have.
    let other = secured(&url).replace("localhost", "127.0.0.1");
    let running = start(&other, calm());
    assert!(acceptor(&folder).accept(accept(&listener)).is_err());
    assert!(matches!(running.fatal(), LinkError::Certificate { .. }));
}
