//! A worker in a network namespace whose only way out is a tinyproxy with a password, behind TLS.

use crate::support::control_plane::{ControlPlane, Disconnect, Options, State};
use crate::support::pki::Pki;
use crate::support::proxy::{PASSWORD, TinyProxy, USER, USER_INFO};
use crate::support::proxy_only::{PORT, ProxyOnly, relay};
use crate::support::stage::{DEADLINE, StageBuilder};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::tls_proxy::{ServerTls, TlsProxy};
use crate::support::worker::{WorkerBuilder, binary};

use super::HOST;

#[test]
#[ignore = "run by the test below in a separate process"]
fn in_the_namespace() {
    relay();
}

/// A whole task, look-ups and a reconnect.
#[test]
fn a_task_runs_behind_a_proxy_that_is_the_only_way_out() {
    let pki = Pki::new();
    let plane = ControlPlane::start(Options::default());
    let tls = |name: &str, hosts: &str| ServerTls::new(&pki.server(name, hosts, 2), None);
    let door = TlsProxy::start(&format!("tcp://{}", plane.address()), tls("plane", &format!("DNS:{HOST}")));
    let tiny = TinyProxy::start(HOST, &[door.port()]);
    let proxy_door =
        TlsProxy::start(&format!("tcp://127.0.0.1:{}", tiny.port()), tls("proxy", "IP:127.0.0.1"));
    let outside = ProxyOnly::new(proxy_door.port(), "proxy::real::in_the_namespace");
    let stage = StageBuilder::new("proxy").control_plane(plane).build();
    let root = format!("https://{HOST}:{}", door.port());
    let sync = SyncDir::new();
    let ca = pki.ca();
    let mount = sync.mount();
    let start = |user_info: &str| {
        let worker = WorkerBuilder::new(&outside.wrap(&binary())).env("OZ_API_KEY", stage.plane.key());
        let worker =
            worker.args(["--worker-id", &stage.worker_id, "--server-root-url", &root, "--pull", "missing"]);
        let worker =
            worker.args(["--ca-file", ca.to_str().unwrap(), "-v", &mount, "--reconcile-interval", "1s"]);
        let worker = worker
            .args(["--log-level", "debug", "--lost-runs", "finish"])
            .env("DOCKER_HOST", stage.engine.host());
        worker.env("HTTPS_PROXY", &format!("https://{user_info}127.0.0.1:{PORT}"))
    };

    let refused = start("").start();
    refused.wait_log(DEADLINE, |line| line.contains("answered 407: it wants a user name and password"));
    drop(refused);

    let worker = stage.start(start(&format!("{USER_INFO}@")));
    worker.wait_log(DEADLINE, |line| {
        line.contains("connecting url=") && line.ends_with(&format!("proxy=https://127.0.0.1:{PORT}"))
    });
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}")));
    sync.wait_lines(&stage, 1);
    stage.plane.wait_for(DEADLINE, |model| !model.requests.is_empty());
    let connections = stage.plane.connections();
    stage.plane.drop_connections(Disconnect::Rst);
    stage.plane.wait_connected(connections + 1);
    sync.release(1);
    assert_eq!(stage.plane.wait_ended(&id).state, State::Failed, "the connection ended its run");
    let next = stage.run(&stage.spec("echo done"));
    assert_eq!(next.state, State::Succeeded);
    let log = worker.stderr().all().join("\n");
    for secret in [PASSWORD, USER, "cHJveHktdXNlcjpw", USER_INFO] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    let tunnels = tiny.log().iter().filter(|line| line.contains(&format!("CONNECT {HOST}:"))).count();
    assert!(tunnels >= 3, "{tunnels}");
    stage.stop(worker);
}
