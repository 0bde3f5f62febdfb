//! `wss`: trusted and untrusted certificates, and peers that do not speak TLS.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use native_tls::{Identity, TlsAcceptor};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509NameBuilder};
use oz_agent_worker::control_plane::ws::{LinkError, LinkEvent, Refusal, Timing};
use oz_agent_worker::protocol::Incoming;

use super::{
    accept, close_code, fast_retry, in_own_process, listen, message, millis, next_output, request, start,
    start_limited,
};

/// Names the folder of the certificate for the child process.
const FOLDER: &str = "OZ_TEST_TLS_FOLDER";
/// Names the reason that the child process expects.
const REASON: &str = "OZ_TEST_TLS_REASON";

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
fn an_untrusted_certificate_is_a_refusal() {
    let folder = Folder::new("untrusted");
    make_certificate(&folder.0);
    let (listener, url) = listen();
    let running = start(&wss(&url), fast_retry());
    assert!(acceptor(&folder.0).accept(accept(&listener)).is_err());
    let Refusal::Certificate { host, reason } = running.refused().refusal else { panic!("trusted") };
    assert_eq!(host, "localhost");
    assert!(reason.contains("self") && reason.contains("signed"), "{reason}");
}

/// Writes a self-signed certificate for `localhost` that is valid for a day, from `from` seconds since 1970.
fn make_certificate_from(folder: &Path, from: i64) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "localhost").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(from).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(from + 24 * 60 * 60).unwrap()).unwrap();
    let host =
        SubjectAlternativeName::new().dns("localhost").build(&builder.x509v3_context(None, None)).unwrap();
    builder.append_extension(host).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    std::fs::write(folder.join("cert.pem"), builder.build().to_pem().unwrap()).unwrap();
    std::fs::write(folder.join("key.pem"), key.private_key_to_pem_pkcs8().unwrap()).unwrap();
}

/// A machine that starts before its clock is set sees such certificates.
#[test]
fn the_dates_of_a_certificate_are_not_permanent() {
    for (from, expected) in
        [(1_000_000_000, "certificate has expired"), (4_000_000_000, "certificate is not yet valid")]
    {
        let folder = Folder::new(&format!("dates-{from}"));
        make_certificate_from(&folder.0, from);
        let variables = [
            ("SSL_CERT_FILE", folder.0.join("cert.pem")),
            (FOLDER, folder.0.clone()),
            (REASON, expected.into()),
        ];
        in_own_process("link::tls::in_a_process_that_trusts_a_certificate_with_wrong_dates", &variables);
    }
}

#[test]
#[ignore = "run by the test above in a separate process"]
fn in_a_process_that_trusts_a_certificate_with_wrong_dates() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let (listener, url) = listen();
    let running = start(&wss(&url), fast_retry());
    for _ in 0..2 {
        assert!(acceptor(&folder).accept(accept(&listener)).is_err());
        let refusal = running.refused().refusal;
        assert!(refusal.may_pass() && refusal.to_string().contains("check the system clock"), "{refusal}");
        let Refusal::CertificateDate { host, reason } = refusal else { panic!("{refusal}") };
        assert_eq!((host.as_str(), reason), ("localhost", std::env::var(REASON).unwrap()));
    }
}

#[test]
fn a_peer_without_tls_is_retried() {
    let (listener, url) = listen();
    let running = start_limited(&wss(&url), fast_retry(), 1);
    let mut stream = accept(&listener);
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    let LinkError::GaveUp { reason, .. } = running.fatal() else { panic!("not given up") };
    assert!(reason.contains("localhost does not speak TLS on that port"), "{reason}");
}

#[test]
fn a_peer_with_tls_is_told_from_one_without() {
    let (listener, url) = listen();
    let running = start_limited(&url, fast_retry(), 1);
    let mut stream = accept(&listener);
    request(&mut stream);
    // The alert "protocol version", as OpenSSL answers HTTP.
    stream.write_all(b"\x15\x03\x01\x00\x02\x02\x46").unwrap();
    let LinkError::GaveUp { reason, .. } = running.fatal() else { panic!("not given up") };
    assert!(reason.contains("speaks TLS on that port: use wss://"), "{reason}");
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
    assert_eq!(close_code(&mut peer), 1000);
    let _ = peer.flush();
    assert!(running.ended());
    // The certificate is not for this name.
    let other = wss(&url).replace("localhost", "127.0.0.1");
    let running = start(&other, fast_retry());
    assert!(acceptor(&folder).accept(accept(&listener)).is_err());
    assert!(matches!(running.refused().refusal, Refusal::Certificate { .. }));
}
