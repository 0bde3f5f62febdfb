//! The certificates of the operator, for the link and REST.

use std::path::Path;

use oz_agent_worker::control_plane::Network;
use oz_agent_worker::control_plane::rest::ControlPlane as Rest;
use oz_agent_worker::control_plane::tls::Trust;
use oz_agent_worker::control_plane::ws::{LinkConfig, LinkEvent};

use crate::link::{TIMEOUT, api_key, config, fast_retry, start_with};
use crate::support::control_plane::{ControlPlane, Options, RunSpec};
use crate::support::engine::Engine;
use crate::support::pki::{Key, Pki};
use crate::support::stage::DEADLINE;
use crate::support::tls_proxy::{ServerTls, TlsProxy};
use crate::support::worker::{WorkerBuilder, binary, worker_id};

/// Whether the link and REST connect to `localhost` at this port. Asserts that both do or neither does.
fn connects(plane: &ControlPlane, port: u16, trust: &Trust) -> bool {
    let network = Network { trust: trust.clone(), ..Network::default() };
    let url = plane.ws_url().replace("ws://", "wss://");
    let url = url.replace(&plane.address().to_string(), &format!("localhost:{port}"));
    let config = config(&format!("{url}?worker_id=w"), fast_retry());
    let api_key = api_key(plane.key());
    let running = start_with(LinkConfig {
        api_key: api_key.clone(),
        max_attempts: 1,
        network: network.clone(),
        ..config
    });
    let link = matches!(running.next(), LinkEvent::Up { .. });
    let id = plane.submit(RunSpec::default());
    let root = format!("https://localhost:{port}");
    let rest = Rest::new(&root, &api_key).unwrap().with_network(network);
    assert_eq!(rest.look_up(&id, TIMEOUT).is_ok(), link);
    link
}

fn door(plane: &ControlPlane, pki: &Pki, clients: Option<&Path>) -> TlsProxy {
    let certificate = pki.server("server", "DNS:localhost", 2);
    TlsProxy::start(&format!("tcp://{}", plane.address()), ServerTls::new(&certificate, clients))
}

#[test]
fn an_authority_in_the_ca_file_is_trusted_and_read_for_each_connection() {
    let (old, new) = (Pki::named("old authority"), Pki::named("new authority"));
    let plane = ControlPlane::start(Options::default());
    let door = door(&plane, &new, None);
    let folder = tempfile::tempdir().unwrap();
    let trust = Trust { ca_file: Some(folder.path().join("ca.pem")), ..Trust::default() };
    let path = trust.ca_file.as_ref().unwrap();
    std::fs::copy(old.ca(), path).unwrap();
    assert!(!connects(&plane, door.port(), &trust));
    let both = [std::fs::read(old.ca()).unwrap(), std::fs::read(new.ca()).unwrap()].concat();
    std::fs::write(path, both).unwrap();
    assert!(connects(&plane, door.port(), &trust));
}

#[test]
fn a_client_certificate_is_shown_with_a_key_of_every_format() {
    let (pki, plane) = (Pki::new(), ControlPlane::start(Options::default()));
    let door = door(&plane, &pki, Some(&pki.ca()));
    let ca_file = Some(pki.ca());
    assert!(!connects(&plane, door.port(), &Trust { ca_file: ca_file.clone(), ..Trust::default() }));
    for (name, kind) in [("c8", Key::Pkcs8), ("c1", Key::Pkcs1), ("sec1", Key::Sec1)] {
        let folder = pki.client(name, kind, 2);
        let client = Some((folder.join("cert.pem"), folder.join("key.pem")));
        assert!(
            connects(&plane, door.port(), &Trust { ca_file: ca_file.clone(), client, ..Trust::default() }),
            "{kind:?}"
        );
    }
}

/// Starts a worker that ends at once; returns its exit code and its last line.
fn ends(args: &[&str]) -> (Option<i32>, String) {
    let worker = WorkerBuilder::new(&binary()).env("OZ_API_KEY", "k").env("OZ_WORKER_ID", &worker_id());
    let mut worker = worker.env("DOCKER_HOST", "unix:///nonexistent").args(args.iter().copied()).start();
    let code = worker.wait_exit(DEADLINE).code();
    (code, worker.stderr().all().pop().unwrap_or_default())
}

#[test]
fn an_unusable_file_is_an_error_at_start() {
    let pki = Pki::new();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (good, other) = (pki.client("good", Key::Sec1, 2), pki.client("other", Key::Encrypted, 2));
    let (cert, key) = (path(&good.join("cert.pem")), path(&good.join("key.pem")));
    let (other_cert, encrypted) = (path(&other.join("cert.pem")), path(&other.join("key.pem")));
    let cases: [(&[&str], String); 7] = [
        (&["--ca-file", "/nonexistent"], "cannot use --ca-file \"/nonexistent\": No such file".to_owned()),
        (&["--ca-file", &key], format!("cannot use --ca-file {key:?}: it contains no readable certificate")),
        (&["--client-cert", &cert], "--client-cert can only be used together with --client-key".to_owned()),
        (
            &["--client-cert", &cert, "--client-key", &cert],
            format!("cannot use --client-key {cert:?}: it contains no readable private key"),
        ),
        (
            &["--client-cert", &key, "--client-key", &key],
            format!("cannot use --client-cert {key:?}: it contains no"),
        ),
        (
            &["--client-cert", &other_cert, "--client-key", &key],
            format!(
                "cannot use --client-key {key:?}: the key does not belong to the certificate {other_cert}"
            ),
        ),
        (
            &["--client-cert", &other_cert, "--client-key", &encrypted],
            format!("cannot use --client-key {encrypted:?}: the key is encrypted"),
        ),
    ];
    for (args, text) in cases {
        let (code, line) = ends(args);
        assert!(code == Some(2) && line.contains(&text), "{args:?}: {code:?} {line}");
    }
}

/// Hides every usual place of certificates, as on a host without the package ca-certificates.
#[test]
fn a_host_without_certificates_is_told_so() {
    assert!(rustix::process::geteuid().is_root(), "only root can hide the certificates");
    let (pki, plane) = (Pki::new(), ControlPlane::start(Options::default()));
    let door = door(&plane, &pki, None);
    let hide = "for place in /etc/ssl /etc/pki /usr/share/ssl /usr/local/share/certs; do \
                [ ! -d $place ] || mount -t tmpfs none $place || exit 1; done; exec \"$0\" \"$@\"";
    let binary = binary();
    let worker = WorkerBuilder::new(Path::new("unshare")).args([
        "--mount",
        "sh",
        "-c",
        hide,
        binary.to_str().unwrap(),
    ]);
    let url = format!("wss://localhost:{}/", door.port());
    let worker = worker.args(["--web-socket-url", &url, "--worker-id", &worker_id()]).env("OZ_API_KEY", "k");
    let worker = worker.env("DOCKER_HOST", Engine::get().host()).start();
    let told =
        |line: &str| line.contains("this host has no CA certificates: install the package ca-certificates");
    worker.wait_log(DEADLINE, told);
}
