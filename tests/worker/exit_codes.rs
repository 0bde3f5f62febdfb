//! Errors that end the worker: the exit code, and the advice in the log.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, SocketType};
use serde_json::Value;

use super::settings::{KEY, end, minimal};
use crate::support::control_plane::{ControlPlane, Options};
use crate::support::engine;
use crate::support::fake_docker::{FakeDocker, Step, hello, hello_from, json, write};
use crate::support::fault_proxy::FaultProxy;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::{WorkerBuilder, binary, worker_id};

#[test]
fn a_permanent_refusal_ends_the_worker_with_advice() {
    let cases = [
        (Some(401), "answered 401: the API key is missing or unknown; check OZ_API_KEY or OZ_API_KEY_FILE"),
        (Some(403), "answered 403: it does not accept this API key; check OZ_API_KEY or OZ_API_KEY_FILE"),
        (Some(302), "answered 302: redirects are not followed; set the final URL (--server-root-url or"),
        (Some(404), "answered 404: check the path of the URL (--server-root-url or --web-socket-url)"),
        (None, "answered 403"),
    ];
    for (status, expected) in cases {
        // One for each, because it may see the last attempt of a worker only after its end.
        let plane = ControlPlane::start(Options::default());
        plane.refuse_with(status);
        let worker = WorkerBuilder::new(&binary()).control_plane(&plane, &worker_id());
        let (code, out, err) = end(worker.env("DOCKER_HOST", &engine::host()).env("OZ_API_KEY", KEY).start());
        assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
        assert!(err.contains("ERROR") && err.contains(expected) && !err.contains(KEY), "{err}");
        let last = err.trim_end().lines().next_back().unwrap_or_default();
        assert!(last.contains("ERROR") && last.contains("worker ended exit_code=3 error="), "{err}");
        assert!(last.contains(expected), "{err}");
        // A slow search for tasks of an earlier process leaves time for a second attempt.
        assert!(plane.view(|model| (1..=2).contains(&model.attempts)), "{err}");
    }
}

#[test]
fn an_unusable_engine_is_reported_with_its_address_and_advice() {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead");
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let no_engine = || FakeDocker::start_tcp((0..6).map(|_| vec![write("SSH-2.0-x\r\n")]).collect());
    let silent = || FakeDocker::start_tcp((0..40).map(|_| Vec::<Step>::new()).collect());
    let ((_socket, free), ssh, closes) = (closed_port(), no_engine(), silent());
    let answer = |status, text: &str| {
        FakeDocker::start_tcp((0..40).map(|_| vec![json(status, text)]).collect::<Vec<_>>())
    };
    let (failing, denies) = (answer(503, "starting"), answer(403, "no"));
    let windows = FakeDocker::start(hello_from("1.41", "windows", "amd64"));
    let mainframe = FakeDocker::start_tcp(hello_from("1.41", "linux", "s390x"));
    let plane = ControlPlane::start(Options::default());
    let at = |fake: &FakeDocker| fake.endpoint().to_string();
    let (old, deep) = (FakeDocker::start_tcp(hello("1.30")), folder.path().join("d".repeat(60)));
    let listens = "check that DOCKER_HOST is the address of a docker engine";
    // An engine that is starting can cause these.
    let may_pass = [
        (
            format!("unix://{}", folder.path().join("none").display()),
            "No such file",
            "install and start an engine",
        ),
        (format!("unix://{}", dead.display()), "Connection refused", "start the engine"),
        (format!("unix://{}", deep.display()), "No such file", "(unix:///path or tcp://host:port)"),
        (free, "Connection refused", "nothing listens on that port"),
        (at(&closes), "lost the connection to the docker engine", listens),
        (at(&failing), "answered 503: starting", listens),
    ];
    let permanent = [
        (at(&old), "supports API 1.30", "1.41 (engine 20.10)"),
        (at(&ssh), "not HTTP", listens),
        (at(&denies), "does not allow GET /_ping", "allow all calls of that list"),
        (at(&windows), "runs windows/amd64 containers", "tasks need linux/amd64 or linux/arm64"),
        (at(&mainframe), "runs linux/s390x containers", "tasks need linux/amd64 or linux/arm64"),
        ("ssh://host".to_owned(), "ssh://", "ssh -N -L"),
    ];
    let worker = |host: &str| minimal().args(["--web-socket-url", &plane.ws_url()]).env("DOCKER_HOST", host);
    for (host, what, advice) in &may_pass {
        let mut waiting = worker(host).start();
        let line = waiting.wait_log(DEADLINE, |line| line.contains("waiting for the engine waited_s=0 "));
        assert!(
            line.contains("WARN") && [host, *what, *advice].iter().all(|part| line.contains(part)),
            "{line}"
        );
        waiting.signal(Signal::TERM);
        assert_eq!(waiting.wait_exit(DEADLINE).code(), Some(0), "{:#?}", waiting.stderr().all());
    }
    let once = may_pass.iter().map(|case| (case, worker(&case.0).args(["--engine-start-timeout", "0"])));
    let at_once = permanent.iter().map(|case| (case, worker(&case.0)));
    for ((host, what, advice), worker) in once.chain(at_once) {
        let (code, _, err) = end(worker.start());
        assert_eq!(code, Some(4), "{host}: {err}");
        let line = err.lines().find(|line| line.contains("ERROR")).unwrap_or_default();
        assert!(line.contains(host) && line.contains(what) && line.contains(advice), "{host}: {err}");
        assert!(!err.contains(KEY) && !err.contains("waiting for the engine"), "{err}");
    }
    let pinned = minimal().args(["--web-socket-url", &plane.ws_url()]).env("DOCKER_API_VERSION", "1.999");
    let (code, _, err) = end(pinned.env("DOCKER_HOST", &engine::host()).start());
    assert!(code == Some(4) && err.contains("DOCKER_API_VERSION is 1.999, but"), "{err}");
    assert_eq!(plane.view(|model| model.attempts), 0, "no worker has appeared at the control plane");
}

/// Returns the address of a port on which nothing listens, and the socket that keeps others from it.
fn closed_port() -> (OwnedFd, String) {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddrV4::try_from(net::getsockname(&socket).unwrap()).unwrap();
    (socket, format!("tcp://{address}"))
}

#[test]
fn reconnect_attempts_are_limited_and_an_unencrypted_url_is_warned_about_once() {
    // RFC 6761 reserves .invalid, so no resolver knows this name.
    let builder = minimal().env("OZ_RECONNECT_MAX_ATTEMPTS", "3").env("DOCKER_HOST", &engine::host());
    let (code, _, err) = end(builder.env("OZ_WS_URL", "ws://oz-no-such-host.invalid:9/ws").start());
    assert_eq!(code, Some(1), "{err}");
    let count = |what: &str| err.lines().filter(|line| line.contains(what)).count();
    assert_eq!(
        (count("connecting url="), count("connecting failed"), count("without encryption")),
        (3, 2, 1),
        "{err}"
    );
    assert_eq!(count("note=\"check the host and the port of the URL"), 1, "{err}");
    assert!(err.contains("gave up after 3 failures in a row; the last: cannot resolve"), "{err}");
    assert!(
        err.contains("use https:// or wss:// in the URL") && err.contains("worker ended exit_code=1"),
        "{err}"
    );
    assert!(!err.contains(KEY), "{err}");
}

#[test]
fn a_task_runs_on_an_engine_that_listens_on_tcp() {
    let stage = Stage::new();
    let proxy = FaultProxy::to(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    let run = stage.run(&stage.spec("echo by tcp; exit 5"));
    assert_eq!((run.output.as_deref(), run.exit_code), (Some("by tcp\n"), Some(5)));
    let cancelled = stage.plane.submit(stage.spec("sleep 600"));
    stage.wait_running(&cancelled);
    stage.plane.cancel(&cancelled);
    assert_eq!(
        stage.plane.wait_message(&cancelled, "task_failed").data["failure_reason"],
        Value::from("task_cancelled")
    );
    assert!(worker.stderr().all().iter().any(|line| line.contains(&format!("address={}", proxy.host()))));
    assert!(proxy.connections() > 10, "{} connections over TCP", proxy.connections());
    stage.stop(worker);
}
