//! Connections through a proxy that works.

use std::net::SocketAddr;

use oz_agent_worker::control_plane::tls::Trust;
use oz_agent_worker::protocol::RunState;

use super::{HOST, link, network, rest};
use crate::link::{TIMEOUT, start_with};
use crate::support::control_plane::{ControlPlane, Options, RunSpec};
use crate::support::pki::Pki;
use crate::support::proxy::ForwardProxy;
use crate::support::tls_proxy::{ServerTls, TlsProxy};

/// A control plane with TLS, a proxy with and without TLS in front of it, and the authority of both.
struct Stage {
    pki: Pki,
    plane: ControlPlane,
    door: TlsProxy,
    proxy: ForwardProxy,
    proxy_door: TlsProxy,
}

impl Stage {
    fn new() -> Self {
        let (pki, plane) = (Pki::new(), ControlPlane::start(Options::default()));
        let tls = |name: &str, hosts: &str| ServerTls::new(&pki.server(name, hosts, 2), None);
        let address = format!("tcp://{}", plane.address());
        let door = TlsProxy::start(&address, tls("server", &format!("DNS:{HOST}")));
        let proxy = ForwardProxy::start(SocketAddr::from(([127, 0, 0, 1], door.port())));
        let address = format!("tcp://127.0.0.1:{}", proxy.port());
        let proxy_door = TlsProxy::start(&address, tls("proxy", "IP:127.0.0.1"));
        Self { pki, plane, door, proxy, proxy_door }
    }

    fn trust(&self) -> Trust {
        Trust { ca_file: Some(self.pki.ca()), ..Trust::default() }
    }
}

/// Asserts that the link connects and carries large messages, and that REST works.
fn assert_works(stage: &Stage, variables: &[(&str, &str)]) {
    let network = network(variables, stage.trust());
    let port = stage.door.port();
    let before = stage.plane.messages().len();
    let running = start_with(link(&stage.plane, "wss", port, network.clone()));
    let epoch = running.up();
    let big = "b".repeat(8 << 20);
    running.send(epoch, Some(1), &big);
    assert_eq!(running.confirmed(), 1);
    assert!(stage.plane.messages().len() > before);
    stage.plane.send_text(crate::link::message(&big));
    assert!(running.text() == big);
    running.link.close();
    let id = stage.plane.submit(RunSpec { prompt: "x".repeat(40_000), ..RunSpec::default() });
    stage.plane.cancel(&id);
    let rest = rest(&stage.plane, "https", port, network);
    assert_eq!(rest.look_up(&id, TIMEOUT).map(|run| run.state), Ok(RunState::Cancelled));
}

#[test]
fn the_link_and_rest_open_tunnels_with_credentials() {
    let stage = Stage::new();
    let url = format!("http://me:a%20b@127.0.0.1:{}", stage.proxy.port());
    assert_works(&stage, &[("HTTPS_PROXY", &url)]);
    let heads = stage.proxy.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        let port = stage.door.port();
        assert!(
            head.starts_with(&format!("CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n")),
            "{head}"
        );
        assert!(head.contains("\r\nProxy-Authorization: Basic bWU6YSBi\r\n"), "{head}");
        assert!(head.contains("\r\nUser-Agent: oz-agent-worker/"), "{head}");
    }
}

#[test]
fn a_proxy_with_tls_is_used_for_tls() {
    let stage = Stage::new();
    let url = format!("https://127.0.0.1:{}", stage.proxy_door.port());
    assert_works(&stage, &[("all_proxy", &url), ("NO_PROXY", "example.com,10.0.0.0/8")]);
    assert_eq!((stage.proxy.heads().len(), stage.proxy_door.passed()), (2, 2));
}

#[test]
fn a_connection_without_tls_uses_a_tunnel_too() {
    let plane = ControlPlane::start(Options::default());
    let proxy = ForwardProxy::start(plane.address());
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let network = network(&[("HTTP_PROXY", &url), ("HTTPS_PROXY", "http://127.0.0.1:1")], Trust::default());
    start_with(link(&plane, "ws", 8080, network.clone())).up();
    let id = plane.submit(RunSpec::default());
    plane.cancel(&id);
    assert_eq!(
        rest(&plane, "http", 8080, network).look_up(&id, TIMEOUT).map(|run| run.state),
        Ok(RunState::Cancelled)
    );
    assert!(proxy.heads().iter().all(|head| head.starts_with(&format!("CONNECT {HOST}:8080 "))));
    assert_eq!(proxy.heads().len(), 2);
}

#[test]
fn an_exempt_host_is_connected_to_directly() {
    let plane = ControlPlane::start(Options::default());
    // Every address but loopback may use a proxy; this one is loopback to the kernel only.
    let url = plane.ws_url().replace("127.0.0.1", "0.0.0.0");
    let root = plane.root_url().replace("127.0.0.1", "0.0.0.0");
    let id = plane.submit(RunSpec::default());
    for (exempt, is_direct) in [("0.0.0.0/8", true), ("0.0.0.0:1", false)] {
        let network = network(&[("ALL_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", exempt)], Trust::default());
        let config = link(&plane, "ws", 1, network.clone());
        let url = format!("{url}?worker_id=w").parse().unwrap();
        let running = start_with(oz_agent_worker::control_plane::ws::LinkConfig { url, ..config });
        match is_direct {
            true => drop(running.up()),
            false => assert!(running.fatal().to_string().contains("the proxy http://127.0.0.1:1")),
        }
        let rest = oz_agent_worker::control_plane::rest::ControlPlane::new(
            &root,
            &crate::link::api_key(plane.key()),
        );
        assert_eq!(rest.unwrap().with_network(network).look_up(&id, TIMEOUT).is_ok(), is_direct);
    }
}
