//! An engine over TCP behind a proxy.

use std::net::{SocketAddr, TcpListener};

use crate::support::control_plane::State;
use crate::support::pki::{Key, Pki};
use crate::support::proxy::{ForwardProxy, relay};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::tls_proxy::{ServerTls, TlsProxy};

/// A name that no resolver knows, so that only a proxy can connect to it.
const HOST: &str = "engine.invalid";

#[test]
fn a_task_runs_on_an_engine_behind_a_proxy() {
    let (pki, stage) = (Pki::new(), Stage::new());
    let tls = |name: &str, hosts: &str| ServerTls::new(&pki.server(name, hosts, 2), None);
    let door = TlsProxy::start(stage.engine.host(), tls("engine", &format!("DNS:{HOST}")));
    let proxy = ForwardProxy::start(SocketAddr::from(([127, 0, 0, 1], door.port())));
    let proxy_door =
        TlsProxy::start(&format!("tcp://127.0.0.1:{}", proxy.port()), tls("proxy", "IP:127.0.0.1"));
    let files = pki.client("client", Key::Pkcs8, 2);
    let engine = format!("tcp://{HOST}:2376");
    let ca = pki.ca();
    let worker = || {
        let worker = stage.worker().env("DOCKER_HOST", &engine).env("DOCKER_TLS_VERIFY", "1");
        worker.env("DOCKER_CERT_PATH", files.to_str().unwrap()).args(["--ca-file", ca.to_str().unwrap()])
    };
    let url = format!("https://127.0.0.1:{}", proxy_door.port());
    let worker_of = stage.start(worker().env("HTTPS_PROXY", &url));
    let run = stage.run(&stage.spec("echo done"));
    assert_eq!(run.state, State::Succeeded);
    assert!(proxy.heads().iter().all(|head| head.starts_with(&format!("CONNECT {HOST}:2376 "))));
    stage.stop(worker_of);

    let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let url = format!("http://me:hunter2@127.0.0.1:{closed}");
    let worker = worker().env("HTTPS_PROXY", &url).start();
    let line = worker.wait_log(DEADLINE, |line| line.contains("cannot connect to the proxy"));
    assert!(line.contains(&format!("http://127.0.0.1:{closed} (HTTPS_PROXY)")), "{line}");
    assert!(line.contains("or name the engine's host in NO_PROXY") && !line.contains("hunter2"), "{line}");
}

#[test]
fn a_task_runs_on_an_engine_without_tls_behind_a_proxy() {
    let stage = Stage::new();
    let port = relay("127.0.0.1:0", stage.engine.host());
    let proxy = ForwardProxy::start(SocketAddr::from(([127, 0, 0, 1], port)));
    let url = format!("http://me:a%20b@127.0.0.1:{}", proxy.port());
    let worker = stage.worker().env("DOCKER_HOST", &format!("tcp://{HOST}:2375")).env("HTTP_PROXY", &url);
    // The proxy for TLS is not used.
    let worker = stage.start(worker.env("HTTPS_PROXY", "http://127.0.0.1:1"));
    assert_eq!(stage.run(&stage.spec("echo done")).state, State::Succeeded);
    stage.stop(worker);
    let heads = proxy.heads();
    let expected = format!("CONNECT {HOST}:2375 HTTP/1.1\r\nHost: {HOST}:2375\r\n");
    assert!(!heads.is_empty() && heads.iter().all(|head| head.starts_with(&expected)), "{heads:?}");
    assert!(
        heads.iter().all(|head| head.contains("\r\nProxy-Authorization: Basic bWU6YSBi\r\n")),
        "{heads:?}"
    );
}
