//! IPv6 addresses of the control plane, of a proxy and of an engine. The stand-ins are on 127.0.0.1, so relays on `::1` lead to them.

use std::net::SocketAddr;

use oz_agent_worker::control_plane::rest::ControlPlane as Rest;
use oz_agent_worker::control_plane::tls::Trust;
use oz_agent_worker::control_plane::ws::LinkConfig;
use oz_agent_worker::protocol::RunState;

use super::{HOST, link, network, rest};
use crate::link::{TIMEOUT, api_key, start_with};
use crate::support::control_plane::{ControlPlane, Options, RunSpec, State};
use crate::support::pki::{Key, Pki};
use crate::support::proxy::{ForwardProxy, relay};
use crate::support::stage::Stage;
use crate::support::tls_proxy::{ServerTls, TlsProxy};

/// Starts a relay on `::1` to a port of 127.0.0.1, and returns its port.
fn to_ipv4(port: u16) -> u16 {
    relay("[::1]:0", &format!("tcp://127.0.0.1:{port}"))
}

/// Returns a run that is cancelled.
fn cancelled(plane: &ControlPlane) -> String {
    let id = plane.submit(RunSpec::default());
    plane.cancel(&id);
    id
}

#[test]
fn the_link_and_rest_connect_to_an_ipv6_address() {
    let (pki, plane) = (Pki::new(), ControlPlane::start(Options::default()));
    let tls = ServerTls::new(&pki.server("server", "IP:::1", 2), None);
    let door = TlsProxy::start(&format!("tcp://{}", plane.address()), tls);
    let network = network(&[], Trust { ca_file: Some(pki.ca()), ..Trust::default() });
    let id = cancelled(&plane);
    for (port, ws, http) in [(plane.address().port(), "ws", "http"), (door.port(), "wss", "https")] {
        let port = to_ipv4(port);
        let url = format!("{ws}://[::1]:{port}/api/v1/selfhosted/worker/ws?worker_id=w").parse().unwrap();
        start_with(LinkConfig { url, ..link(&plane, ws, port, network.clone()) }).up();
        let rest = Rest::new(&format!("{http}://[::1]:{port}"), &api_key(plane.key())).unwrap();
        let rest = rest.with_network(network.clone());
        assert_eq!(rest.look_up(&id, TIMEOUT).map(|run| run.state), Ok(RunState::Cancelled), "{http}");
    }
}

#[test]
fn a_proxy_may_have_an_ipv6_address() {
    let (pki, plane) = (Pki::new(), ControlPlane::start(Options::default()));
    let proxy = ForwardProxy::start(plane.address());
    let tls = ServerTls::new(&pki.server("proxy", "IP:::1", 2), None);
    let door = TlsProxy::start(&format!("tcp://127.0.0.1:{}", proxy.port()), tls);
    let trust = Trust { ca_file: Some(pki.ca()), ..Trust::default() };
    let id = cancelled(&plane);
    for (scheme, port) in [("http", proxy.port()), ("https", door.port())] {
        let url = format!("{scheme}://[::1]:{}", to_ipv4(port));
        let network = network(&[("HTTP_PROXY", &url)], trust.clone());
        start_with(link(&plane, "ws", 80, network.clone())).up();
        let state = rest(&plane, "http", 80, network).look_up(&id, TIMEOUT).map(|run| run.state);
        assert_eq!(state, Ok(RunState::Cancelled), "{scheme}");
    }
    assert!(proxy.heads().iter().all(|head| head.starts_with(&format!("CONNECT {HOST}:80 "))));
    assert_eq!(proxy.heads().len(), 4);
}

/// Also through a proxy, which gets the address in brackets.
#[test]
fn an_engine_may_have_an_ipv6_address() {
    let (pki, stage) = (Pki::new(), Stage::new());
    let port = relay("[::1]:0", stage.engine.host());
    let tls = ServerTls::new(&pki.server("engine", "IP:::1,IP:fd00::1", 2), None);
    let door = TlsProxy::start(stage.engine.host(), tls);
    let files = pki.client("client", Key::Pkcs8, 2);
    let proxy = ForwardProxy::start(SocketAddr::from(([127, 0, 0, 1], door.port())));
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let plain = stage.worker().env("DOCKER_HOST", &format!("tcp://[::1]:{port}"));
    let secure = |host: String| {
        let worker = stage.worker().env("DOCKER_HOST", &host).env("DOCKER_TLS_VERIFY", "1");
        worker.env("DOCKER_CERT_PATH", files.to_str().unwrap()).env("HTTPS_PROXY", &url)
    };
    let encrypted = secure(format!("tcp://[::1]:{}", to_ipv4(door.port())));
    for worker in [plain, encrypted, secure("tcp://[fd00::1]:2376".to_owned())] {
        let worker = stage.start(worker);
        assert_eq!(stage.run(&stage.spec("echo done")).state, State::Succeeded);
        stage.stop(worker);
    }
    // Loopback is connected to directly.
    let heads = proxy.heads();
    assert!(
        !heads.is_empty() && heads.iter().all(|head| head.starts_with("CONNECT [fd00::1]:2376 ")),
        "{heads:?}"
    );
}
