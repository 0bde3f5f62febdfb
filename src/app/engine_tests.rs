//! The messages for an engine that cannot be used.

use std::path::Path;

use super::*;

fn discover(host: &str, pin: Option<&str>) -> (Endpoint, Discovery) {
    let env = EndpointEnv {
        docker_host: Some(host.to_owned()),
        docker_api_version: pin.map(str::to_owned),
        ..EndpointEnv::default()
    };
    let read = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let mut discovery = Discovery::discover(&env, Files { exists: &|_| false, read: &read }).unwrap();
    (discovery.endpoint().unwrap(), discovery)
}

fn message(host: &str, error: &Error) -> String {
    let (endpoint, discovery) = discover(host, None);
    explain(error, &endpoint, &discovery).to_string()
}

#[test]
fn every_failure_names_the_address_and_a_remedy() {
    let cases = [
        ("unix:///s", io::ErrorKind::NotFound, "install and start an engine"),
        ("unix:///s", io::ErrorKind::PermissionDenied, "group `docker`"),
        ("unix:///s", io::ErrorKind::ConnectionRefused, "stale file"),
        ("unix:///run/podman/podman.sock", io::ErrorKind::PermissionDenied, "Podman's socket and its folder"),
        ("unix:///run/podman/podman.sock", io::ErrorKind::ConnectionRefused, "systemctl start podman.socket"),
        ("tcp://h:1", io::ErrorKind::ConnectionRefused, "nothing listens on that port"),
        ("tcp://h:1", io::ErrorKind::TimedOut, "firewalls"),
        ("tcp://h:1", io::ErrorKind::Other, "check the host's name"),
    ];
    for (host, kind, hint) in cases {
        let error = Error::Unreachable { address: host.to_owned(), source: kind.into() };
        let text = message(host, &error);
        let named = text.contains(host) && text.contains("(address from DOCKER_HOST)");
        assert!(named && text.contains(hint) && text.matches("DOCKER_HOST").count() > 1, "{text}");
    }
    let refused = Error::Forbidden { call: "GET /info".to_owned(), address: "tcp://h:1".to_owned() };
    let text = message("tcp://h:1", &refused);
    let parts =
        ["tcp://h:1 does not allow GET /info", "a proxy refused the call", "allow all calls of that list"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    let (endpoint, discovery) = discover("unix:///s", None);
    assert!(matches!(explain(&Error::Cancelled, &endpoint, &discovery), EngineError::Cancelled));
    let exhausted = Error::Exhausted { source: io::Error::other("too many open files") };
    let exhausted = explain(&exhausted, &endpoint, &discovery);
    assert!(exhausted.to_string().starts_with("the worker has no file descriptor"), "{exhausted}");
    assert_eq!((exhausted.exit(), EngineError::Cancelled.exit()), (Exit::Failure, Exit::Success));
}

#[test]
fn a_missing_tls_setting_is_explained() {
    let message_of = |message: &str| Error::Engine { status: 400, message: message.to_owned() };
    let text = message("tcp://h:1", &message_of("Client sent an HTTP request to an HTTPS server."));
    assert!(text.contains("the engine requires TLS: set DOCKER_TLS_VERIFY"), "{text}");
}

#[test]
fn an_unusable_api_version_is_explained() {
    let too_old = Error::TooOld { version: "1.40".into(), needed: "1.41".into() };
    let text = message("unix:///s", &too_old);
    assert!(
        text.contains("engine at unix:///s supports API 1.40") && text.contains("API 1.41 (engine 20.10)"),
        "{text}"
    );
    let pinned = |version, error: &Error| {
        let (endpoint, discovery) = discover("unix:///s", Some(version));
        explain(error, &endpoint, &discovery).to_string()
    };
    let text = pinned("1.40", &too_old);
    assert_eq!(
        text,
        "DOCKER_API_VERSION is 1.40, but 1.41 or newer is needed; unset it to let the engine choose"
    );
    let refusal = Error::Engine { status: 400, message: "client version 1.99 is too new".into() };
    let text = pinned("1.99", &refusal);
    assert!(
        text.contains("DOCKER_API_VERSION is 1.99")
            && text.contains("refused it: client version 1.99 is too new"),
        "{text}"
    );
}
