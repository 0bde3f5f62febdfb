//! `wss`: trusted and untrusted certificates, and peers that do not speak TLS.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use native_tls::{Identity, TlsAcceptor};
use oz_agent_worker::control_plane::ws::{LinkError, LinkEvent, Timing};
use oz_agent_worker::protocol::Incoming;

use super::{
    accept, close_code, fast_retry, in_own_process, listen, message, millis, next_output, start,
    start_limited,
};

/// Names the folder of the certificate for the child process.
const FOLDER: &str = "OZ_TEST_TLS_FOLDER";

/// A temporary folder.
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

/// Writes a self-signed certificate for `localhost`.
fn make_certificate(folder: &Path) {
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

fn wss(url: &str) -> String {
    url.replace("ws://127.0.0.1", "wss://localhost")
}

#[test]
fn an_untrusted_certificate_is_permanent() {
    let folder = Folder::new("untrusted");
    make_certificate(&folder.0);
    let (listener, url) = listen();
    let running = start(&wss(&url), fast_retry());
    assert!(acceptor(&folder.0).accept(accept(&listener)).is_err());
    let LinkError::Certificate { host, reason } = running.fatal() else { panic!("trusted") };
    assert_eq!(host, "localhost");
    assert!(reason.contains("self") && reason.contains("signed"), "{reason}");
}

#[test]
fn a_peer_without_tls_is_retried() {
    let (listener, url) = listen();
    let running = start_limited(&wss(&url), fast_retry(), 1);
    let mut stream = accept(&listener);
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let LinkError::GaveUp { reason, .. } = running.fatal() else { panic!("not given up") };
    assert!(reason.contains("TLS"), "{reason}");
}

#[test]
fn a_silent_peer_times_out_in_the_tls_handshake() {
    let (listener, url) = listen();
    let running = start_limited(&wss(&url), Timing { handshake: millis(200), ..fast_retry() }, 1);
    let _stream = accept(&listener);
    let LinkError::GaveUp { reason, .. } = running.fatal() else { panic!("not given up") };
    assert!(reason.contains("no TLS handshake within"), "{reason}");
}

#[test]
fn a_certificate_in_ssl_cert_file_is_trusted() {
    let folder = Folder::new("trusted");
    make_certificate(&folder.0);
    // The variable applies to a whole process.
    let variables = [("SSL_CERT_FILE", folder.0.join("cert.pem")), (FOLDER, folder.0.clone())];
    in_own_process("link::tls::in_a_process_with_ssl_cert_file", &variables);
}

#[test]
fn a_certificate_in_ssl_cert_dir_is_trusted() {
    let folder = Folder::new("trusted-folder");
    make_certificate(&folder.0);
    let trusted = folder.0.join("trusted");
    std::fs::create_dir(&trusted).unwrap();
    std::fs::copy(folder.0.join("cert.pem"), trusted.join("cert.pem")).unwrap();
    // OpenSSL finds certificates in a folder by the names that this command creates.
    let output = Command::new("openssl").arg("rehash").arg(&trusted).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let variables = [("SSL_CERT_DIR", trusted), (FOLDER, folder.0.clone())];
    in_own_process("link::tls::in_a_process_with_ssl_cert_file", &variables);
}

#[test]
#[ignore = "run by the tests above in a separate process"]
fn in_a_process_with_ssl_cert_file() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let (listener, url) = listen();
    let mut running = start(&wss(&url), fast_retry());
    let stream = acceptor(&folder).accept(accept(&listener)).unwrap();
    let mut peer = tungstenite::accept(stream).unwrap();
    let epoch = running.up();
    let big = "b".repeat(8 << 20);
    running.send(epoch, Some(1), &big);
    running.send(epoch, Some(2), "small");
    assert!(next_output(&mut peer) == big);
    assert_eq!(next_output(&mut peer), "small");
    peer.send(tungstenite::Message::text(message(&big))).unwrap();
    // The confirmation may come before or after the message.
    let text = loop {
        match running.next() {
            LinkEvent::Message { message: Ok(Incoming::Unknown { kind }), .. } => break kind,
            LinkEvent::Confirmed { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(text == big);
    running.link.close();
    assert_eq!(close_code(&mut peer), 1001);
    let _ = peer.flush();
    assert!(running.ended());
    // The certificate is not for this name.
    let other = wss(&url).replace("localhost", "127.0.0.1");
    let running = start(&other, fast_retry());
    assert!(acceptor(&folder).accept(accept(&listener)).is_err());
    assert!(matches!(running.fatal(), LinkError::Certificate { .. }));
}
