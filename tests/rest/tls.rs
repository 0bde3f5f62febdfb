//! Look-ups over TLS. The link and REST trust the same certificates.

use std::net::TcpListener;
use std::path::PathBuf;

use oz_agent_worker::control_plane::rest::{ControlPlane as Rest, LookupError};
use oz_agent_worker::control_plane::ws::{LinkConfig, LinkEvent, Refusal};
use oz_agent_worker::protocol::RunState;

use crate::link::{
    TIMEOUT, accept, api_key, config, fast_retry, hangs_up, in_own_process, listen, millis, request,
    start_with,
};
use crate::support::control_plane::{ControlPlane, Options, RunSpec};
use crate::support::pki::Pki;
use crate::support::tls_proxy::{ServerTls, TlsProxy};

/// Names the folder of the authority and its certificates for the child process.
const FOLDER: &str = "OZ_TEST_TRUST_FOLDER";

fn door(plane: &ControlPlane, certificate: &(PathBuf, PathBuf)) -> TlsProxy {
    TlsProxy::start(&format!("tcp://{}", plane.address()), ServerTls::new(certificate, None))
}

fn rest(plane: &ControlPlane, host: &str, door: &TlsProxy) -> Rest {
    let root = format!("https://{host}:{}", door.port());
    Rest::new(&root, &api_key(plane.key())).unwrap()
}

/// Connects the link through the same door; returns its refusal, if any.
fn link_refusal(plane: &ControlPlane, host: &str, door: &TlsProxy) -> Option<Refusal> {
    let url = plane.ws_url().replace("ws://", "wss://");
    let url = url.replace(&plane.address().to_string(), &format!("{host}:{}", door.port()));
    let config = config(&format!("{url}?worker_id=w"), fast_retry());
    let api_key = api_key(plane.key());
    let running = start_with(LinkConfig { api_key, ..config });
    match running.next() {
        LinkEvent::Up { .. } => None,
        LinkEvent::Refused(refused) => Some(refused.refusal),
        other => panic!("{other:?}"),
    }
}

/// Asserts that both refuse the certificate for the same reason.
fn assert_refused(plane: &ControlPlane, host: &str, door: &TlsProxy) {
    let error = rest(plane, host, door).look_up("r", TIMEOUT).unwrap_err();
    let LookupError::Certificate { at, reason } = &error else { panic!("{error:?}") };
    assert_eq!(*at, format!("https://{host}:{}", door.port()));
    let (Some(Refusal::Certificate { reason: link_reason, .. })
    | Some(Refusal::CertificateDate { reason: link_reason, .. })) = link_refusal(plane, host, door)
    else {
        panic!("not refused")
    };
    assert_eq!(*reason, link_reason);
    assert!(error.to_string().contains("--ca-file or SSL_CERT_FILE"), "{error}");
}

#[test]
fn an_unknown_authority_is_not_trusted() {
    let (pki, plane) = (Pki::new(), ControlPlane::start(Options::default()));
    let door = door(&plane, &pki.server("server", "DNS:localhost", 2));
    assert_refused(&plane, "localhost", &door);
    assert_eq!(plane.view(|world| (world.requests.len(), world.attempts)), (0, 0), "no request was made");
}

#[test]
fn an_authority_in_ssl_cert_file_is_trusted_by_the_link_and_by_rest() {
    let pki = Pki::new();
    pki.server("server", "DNS:localhost", 2);
    pki.server("numbered", "IP:127.0.0.1", 2);
    pki.server("expired", "DNS:localhost", -1);
    let variables = [("SSL_CERT_FILE", pki.ca()), (FOLDER, pki.path().to_owned())];
    in_own_process("rest::tls::in_a_process_with_ssl_cert_file", &variables);
}

#[test]
#[ignore = "run by the test above in a separate process"]
fn in_a_process_with_ssl_cert_file() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let pair = |name: &str| (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
    let plane = ControlPlane::start(Options::default());
    let id = plane.submit(RunSpec { prompt: "x".repeat(40_000), ..RunSpec::default() });
    let whole = door(&plane, &pair("server"));
    assert_eq!(link_refusal(&plane, "localhost", &whole), None);
    plane.cancel(&id);
    assert_eq!(
        rest(&plane, "localhost", &whole).look_up(&id, TIMEOUT).map(|run| run.state),
        Ok(RunState::Cancelled)
    );
    assert_refused(&plane, "127.0.0.1", &whole);
    let numbered = door(&plane, &pair("numbered"));
    assert_eq!(
        rest(&plane, "127.0.0.1", &numbered).look_up(&id, TIMEOUT).map(|run| run.state),
        Ok(RunState::Cancelled)
    );
    assert_refused(&plane, "localhost", &door(&plane, &pair("expired")));
}

/// Returns the error of a look-up at a server that runs `talk`.
fn lookup_error(within: u64, talk: impl FnOnce(&TcpListener) + Send) -> LookupError {
    lookup_error_of("https", within, talk)
}

fn lookup_error_of(scheme: &str, within: u64, talk: impl FnOnce(&TcpListener) + Send) -> LookupError {
    let (listener, url) = listen();
    std::thread::scope(|scope| {
        scope.spawn(|| talk(&listener));
        let root = url.replace("ws://", &format!("{scheme}://")).replace("/ws?worker_id=w", "");
        let rest = Rest::new(&root, &api_key("k3y")).unwrap();
        rest.look_up("r", millis(within)).unwrap_err()
    })
}

#[test]
fn a_server_that_is_silent_in_the_handshake_times_out() {
    let error = lookup_error(300, |listener| assert!(hangs_up(&mut accept(listener))));
    assert!(matches!(error, LookupError::TimedOut { .. }), "{error:?}");
}

#[test]
fn a_server_without_tls_is_not_a_certificate_error() {
    let error = lookup_error(20_000, |listener| {
        let mut stream = accept(listener);
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    assert!(matches!(error, LookupError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("it does not speak TLS on that port"), "{error}");
    assert!(!error.to_string().contains("k3y"));
}

#[test]
fn a_server_with_tls_is_told_from_one_without() {
    let error = lookup_error_of("http", 20_000, |listener| {
        let mut stream = accept(listener);
        request(&mut stream);
        // The alert "protocol version", as OpenSSL answers HTTP.
        std::io::Write::write_all(&mut stream, b"\x15\x03\x01\x00\x02\x02\x46").unwrap();
    });
    let text = error.to_string();
    assert!(
        text.contains("it does not answer with HTTP") && text.contains("needs https:// in the URL"),
        "{text}"
    );
    assert!(!text.contains("k3y"));
}
