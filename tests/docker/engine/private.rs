//! A real `dockerd --tlsverify`, whose TLS is Go's instead of OpenSSL's.

use std::io::Read;

use oz_agent_worker::docker::{ApiVersion, Docker, EndpointEnv, Error, Request, RequestTarget, TlsError};
use oz_agent_worker::sys::cancel::CancelToken;

use super::{connect, endpoint, variables};
use crate::support::fake_docker::client;
use crate::support::pki::{Key, Pki};
use crate::support::private_engine::PrivateEngine;

#[test]
fn mutual_tls_works_with_a_real_engine() {
    let pki = Pki::new();
    let foreign = Pki::new();
    let (certificate, key) = pki.server("server", "DNS:localhost,IP:127.0.0.1", 2);
    let engine = PrivateEngine::with_tls(&pki.ca(), &certificate, &key);
    for kind in [Key::Pkcs8, Key::Pkcs1, Key::Sec1] {
        let docker = connect(&variables(engine.port(), &pki.client(&format!("{kind:?}"), kind, 2))).unwrap();
        speak(&docker);
    }
    let ours = pki.path().join("Pkcs8");

    let stranger = foreign.client("stranger", Key::Pkcs8, 2);
    std::fs::copy(pki.ca(), stranger.join("ca.pem")).unwrap();
    let expired = pki.client("expired", Key::Sec1, -1);
    for folder in [&stranger, &expired] {
        let error = connect(&variables(engine.port(), folder)).unwrap_err();
        let Some(TlsError::Refused { what, .. }) = error.tls() else { panic!("{error:?}") };
        assert!(what.contains(&folder.join("cert.pem").display().to_string()), "{what}");
    }
    std::fs::copy(foreign.ca(), stranger.join("ca.pem")).unwrap();
    let error = connect(&variables(engine.port(), &stranger)).unwrap_err();
    assert!(matches!(error.tls(), Some(TlsError::UnknownCa { .. })), "{error:?}");

    let plain =
        EndpointEnv { docker_tls_verify: None, docker_cert_path: None, ..variables(engine.port(), &ours) };
    let error = connect(&plain).unwrap_err();
    let says = |message: &str| message.contains("HTTP request to an HTTPS server");
    assert!(matches!(&error, Error::Engine { status: 400, message } if says(message)), "{error:?}");

    let pinned = client(
        &CancelToken::new(),
        endpoint(&variables(engine.port(), &ours)).unwrap(),
        ApiVersion::parse("1.99"),
    );
    assert!(matches!(&pinned, Err(Error::Engine { status: 400, .. })), "{pinned:?}");
}

/// Makes calls whose bodies end in different ways.
fn speak(docker: &Docker) {
    const BIG: u64 = 3 << 20;
    let cancel = CancelToken::new();
    assert_eq!(docker.engine().os, "linux");
    assert!(docker.container_list(&cancel, &[]).unwrap().is_empty());
    assert!(docker.image_inspect(&cancel, "none").unwrap_err().is_not_found());
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(BIG);
    header.set_mode(0o644);
    tar.append_data(&mut header, "big", std::io::repeat(b'x').take(BIG)).unwrap();
    let tar = tar.into_inner().unwrap();
    let target = || RequestTarget::of("images/create").query("fromSrc", "-").query("repo", "oz-tls");
    let mut source = tar.as_slice();
    let answer = docker.exchange(&cancel, Request::post(target()).stream("application/x-tar", &mut source));
    let mut text = String::new();
    answer.unwrap().success().unwrap().body.read_to_string(&mut text).unwrap();
    assert!(text.contains("sha256:"), "{text}");
}
