//! `oz-agent-worker check`, against a control plane, a real engine, and what is wrong with either.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde_json::Value;

use super::monitoring::free_port;
use super::settings::end;
use crate::support::control_plane::{ControlPlane, Options, State};
use crate::support::engine::Engine;
use crate::support::engine_proxy::EngineProxy;
use crate::support::images::RootFs;
use crate::support::pki::Pki;
use crate::support::process::Signal;
use crate::support::proxy::ForwardProxy;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::tls_proxy::{ServerTls, TlsProxy};
use crate::support::worker::{WorkerBuilder, binary, worker_id};

/// A key that no control plane has, and that no line may show.
const WRONG_KEY: &str = "hunter2-hunter2-hunter2";

/// The steps of a check: the state of each, and its text.
struct Found {
    code: Option<i32>,
    steps: Vec<(String, String, String)>,
    text: String,
}

impl Found {
    /// Returns the state and the text of a step. Panics without it.
    fn step(&self, name: &str) -> (&str, &str) {
        let mut steps = self.steps.iter().filter(|(step, ..)| step == name);
        let (_, state, text) = steps.next().unwrap_or_else(|| panic!("no {name}:\n{}", self.text));
        (state, text)
    }

    /// Asserts that these steps have failed and no others.
    fn assert_failed(&self, expected: &[&str]) {
        let failed = self.steps.iter().filter(|(_, state, _)| state == "failed");
        let failed: Vec<_> = failed.map(|(name, ..)| name.as_str()).collect();
        assert_eq!(failed, expected, "{}", self.text);
        assert_eq!(self.code, Some(i32::from(!expected.is_empty())), "{}", self.text);
    }
}

/// Runs a check of these settings as text, and compares it with the JSON.
fn check(build: impl Fn() -> WorkerBuilder) -> Found {
    let (code, text, err) = end(build().start());
    assert_eq!(err, "", "{text}");
    let (json_code, json, err) = end(build().args(["--json"]).start());
    assert_eq!((json_code, err.as_str()), (code, ""), "{json}");
    let object: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(object["ok"], code == Some(0), "{json}");
    let steps: Vec<_> = object["steps"].as_array().unwrap().iter().collect();
    let get = |step: &Value, field: &str| step[field].as_str().unwrap().to_owned();
    let steps: Vec<_> =
        steps.into_iter().map(|step| (get(step, "step"), get(step, "state"), get(step, "text"))).collect();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), steps.len(), "{text}{json}");
    for (line, (name, state, _)) in lines.iter().zip(&steps) {
        let words: Vec<_> = line.splitn(2, "  ").map(str::trim).collect();
        assert!(words[0] == state && words[1].starts_with(name.as_str()), "{line}");
    }
    assert!(!text.contains(WRONG_KEY) && !json.contains(WRONG_KEY), "{text}");
    Found { code, steps, text }
}

/// The settings of a worker of this control plane, with an engine that works.
fn at(plane: &ControlPlane, id: &str) -> WorkerBuilder {
    let worker = WorkerBuilder::new(&binary()).args(["check"]).control_plane(plane, id);
    worker.env("DOCKER_HOST", Engine::get().host())
}

/// As [`at`], with only the URL of the control plane.
fn at_url(root: &str, key: &str) -> WorkerBuilder {
    let args = ["check", "--worker-id", &worker_id(), "--server-root-url", root];
    let worker = WorkerBuilder::new(&binary()).args(args);
    worker.env("OZ_API_KEY", key).env("DOCKER_HOST", Engine::get().host())
}

#[test]
fn when_all_is_well_every_step_has_a_line_and_no_run_is_claimed() {
    let stage = Stage::new();
    let run = stage.plane.submit(stage.spec("true"));
    let before = stage.plane.connections();
    let found =
        check(|| at(&stage.plane, &stage.worker_id).env("OZ_ENV", "PASSWORD=hunter2-hunter2-hunter2"));
    found.assert_failed(&[]);
    let names: Vec<_> = found.steps.iter().map(|(name, ..)| name.as_str()).collect();
    let expected = [
        "settings",
        "worker id",
        "dns",
        "tcp",
        "proxy",
        "tls",
        "key",
        "health",
        "rest",
        "engine",
        "storage",
        "log driver",
        "limits",
        "disk",
        "tasks",
    ];
    let without_clock: Vec<_> = names.into_iter().filter(|name| *name != "clock").collect();
    assert_eq!(without_clock, expected, "{}", found.text);
    let (_, settings) = found.step("settings");
    assert!(settings.contains("OZ_WORKER_ID from --worker-id"), "{settings}");
    assert!(settings.contains("OZ_API_KEY from environment"), "{settings}");
    let (_, engine) = found.step("engine");
    let version = format!("{} from DOCKER_HOST, version ", stage.engine.host());
    assert!(
        engine.starts_with(&version) && engine.contains(", API 1.") && engine.ends_with("/amd64"),
        "{engine}"
    );
    assert!(found.step("storage").1.contains("cgroup version "), "{}", found.text);
    // Both checks had their own id and closed; the run waits for a worker.
    let id = format!("{}-check-", stage.worker_id);
    stage.plane.view(|model| {
        let new: Vec<_> = model.connections.iter().skip(before).collect();
        assert_eq!(new.len(), 2);
        assert!(new.iter().all(|connection| connection.worker.starts_with(&id)));
        assert!(model.messages.is_empty(), "{:?}", model.messages.len());
    });
    stage.wait("the connections are closed", || stage.plane.view(|model| model.connected() == 0));
    assert_eq!(stage.plane.view(|model| model.run(&run).unwrap().state), State::Pending);
    stage.plane.assert_no_violations();
}

#[test]
fn a_wrong_key_fails_and_is_not_shown() {
    let plane = ControlPlane::start(Options::default());
    let found = check(|| at(&plane, &worker_id()).env("OZ_API_KEY", WRONG_KEY));
    let (state, text) = found.step("key");
    assert!(state == "failed" && text.contains("check OZ_API_KEY or OZ_API_KEY_FILE"), "{text}");
    assert_eq!(
        (found.step("tcp").0, found.step("engine").0, found.code),
        ("ok", "ok", Some(1)),
        "{}",
        found.text
    );
}

#[test]
fn an_answer_that_refuses_is_shown_with_its_header_and_when_to_try_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let body = format!("the key {WRONG_KEY} is {}", "unknown ".repeat(900));
    let answer = format!(
        "HTTP/1.1 429 No\r\nX-Oz-Error: slow {WRONG_KEY}\r\nRetry-After: 17\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // The process ends the thread.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let found = check(|| {
        let root = format!("http://{address}");
        at_url(&root, WRONG_KEY)
    });
    found.assert_failed(&["key"]);
    let (_, text) = found.step("key");
    for expected in
        ["answered 429", "X-Oz-Error: slow «redacted»", "Retry-After 17 s", "the key «redacted» is"]
    {
        assert!(text.contains(expected), "{text}");
    }
    assert!(text.matches("unknown").count() == 900, "{}", text.len());
    assert_eq!((found.step("health").0, found.step("rest").0), ("warning", "warning"));
}

#[test]
fn a_port_on_which_nothing_listens_is_a_failed_connection() {
    let plane = ControlPlane::start(Options::default());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let found = check(|| {
        let root = format!("http://127.0.0.1:{port}");
        at_url(&root, plane.key())
    });
    found.assert_failed(&["tcp"]);
    assert!(found.step("tcp").1.contains("Connection refused"), "{}", found.text);
    assert!(found.step("rest").1.contains("the worker runs, but cannot see"), "{}", found.text);
}

#[test]
fn a_name_without_an_address_is_a_failed_look_up() {
    let found = check(|| {
        let root = "https://no-such-host.invalid";
        at_url(root, "k")
    });
    found.assert_failed(&["dns"]);
    assert!(found.step("dns").1.contains("cannot resolve no-such-host.invalid"), "{}", found.text);
}

#[test]
fn tls_shows_the_issuer_and_the_dates_and_an_unknown_authority_fails() {
    let (pki, plane) = (Pki::named("the authority"), ControlPlane::start(Options::default()));
    let certificate = pki.server("server", "DNS:localhost", 2);
    let door = TlsProxy::start(&format!("tcp://{}", plane.address()), ServerTls::new(&certificate, None));
    let with = |args: &[&str]| {
        check(|| {
            let root = format!("https://localhost:{}", door.port());
            let path = plane.ws_url().split_once("://").unwrap().1.split_once('/').unwrap().1.to_owned();
            let socket = format!("wss://localhost:{}/{path}", door.port());
            let urls = [
                "check",
                "--worker-id",
                &worker_id(),
                "--server-root-url",
                &root,
                "--web-socket-url",
                &socket,
            ];
            let worker = WorkerBuilder::new(&binary()).args(urls).args(args.iter().copied());
            worker.env("OZ_API_KEY", plane.key()).env("DOCKER_HOST", Engine::get().host())
        })
    };
    let ca = pki.ca();
    let found = with(&["--ca-file", ca.to_str().unwrap()]);
    found.assert_failed(&[]);
    // It is valid for two days.
    let (state, text) = found.step("tls");
    assert!(state == "warning" && text.contains("the authority") && text.contains("renew it"), "{text}");
    assert!(text.starts_with("valid from ") && text.contains(" GMT to "), "{text}");
    let found = with(&[]);
    found.assert_failed(&["tls"]);
    assert!(found.step("tls").1.contains("does not verify"), "{}", found.text);
}

#[test]
fn a_proxy_is_named_and_one_that_does_not_answer_fails() {
    let plane = ControlPlane::start(Options::default());
    let proxy = ForwardProxy::start(plane.address());
    let with = |port: u16| {
        let url = format!("http://user:{WRONG_KEY}@127.0.0.1:{port}");
        let plane = &plane;
        check(move || {
            let root = "http://cp.example";
            let path = plane.ws_url().split_once("://").unwrap().1.split_once('/').unwrap().1.to_owned();
            let socket = format!("ws://cp.example/{path}");
            let urls = [
                "check",
                "--worker-id",
                &worker_id(),
                "--server-root-url",
                root,
                "--web-socket-url",
                &socket,
            ];
            let worker = WorkerBuilder::new(&binary()).args(urls).env("OZ_API_KEY", plane.key());
            worker.env("HTTP_PROXY", &url).env("DOCKER_HOST", Engine::get().host())
        })
    };
    let found = with(proxy.port());
    found.assert_failed(&[]);
    let expected = format!("http://127.0.0.1:{} opens a tunnel to cp.example", proxy.port());
    assert_eq!(found.step("proxy"), ("ok", expected.as_str()));
    assert!(found.step("tls").0 == "warning" && found.step("tls").1.contains("without encryption"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let found = with(free);
    found.assert_failed(&["tcp"]);
    assert!(found.step("tcp").1.contains("cannot connect to the proxy"), "{}", found.text);
}

#[test]
fn an_engine_that_is_not_there_or_denied_fails_with_what_to_do() {
    let plane = ControlPlane::start(Options::default());
    let found = check(|| at(&plane, &worker_id()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock"));
    found.assert_failed(&["engine"]);
    let (_, text) = found.step("engine");
    assert!(text.contains("No such file") && text.contains("install and start an engine"), "{text}");

    // A socket of root, for another user.
    assert!(rustix::process::geteuid().is_root(), "only root can start a worker as another user");
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str, args: &[&str]| {
        assert!(std::process::Command::new(command).args(args).status().unwrap().success(), "{command}");
    };
    let (program, socket) = (folder.path().join("worker"), folder.path().join("docker.sock"));
    std::fs::copy(binary(), &program).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (folder, socket) = (folder.path().to_str().unwrap(), socket.to_str().unwrap());
    run("chmod", &["755", folder, program.to_str().unwrap()]);
    run("chown", &["root:65534", socket]);
    run("chmod", &["660", socket]);
    let found = check(|| {
        let user =
            ["--reuid", "65533", "--regid", "65533", "--clear-groups", program.to_str().unwrap(), "check"];
        let worker = WorkerBuilder::new("setpriv".as_ref()).args(user).control_plane(&plane, &worker_id());
        worker.env("DOCKER_HOST", &format!("unix://{socket}"))
    });
    found.assert_failed(&["engine"]);
    let (_, text) = found.step("engine");
    // In a container only its start can add a group.
    let in_container = ["/.dockerenv", "/run/.containerenv"].iter().any(|file| Path::new(file).exists());
    let remedy = if in_container { "--group-add 65534" } else { "usermod -aG nogroup 65533" };
    assert!(text.contains("Permission denied") && text.contains(remedy), "{text}");
}

#[test]
fn another_process_with_this_id_and_an_open_key_file_are_warnings() {
    let stage = Stage::new();
    let port = free_port().to_string();
    let worker = stage.start(stage.worker().args(["--metrics-listen", &port]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, stage.plane.key()).unwrap();
    let file = file.to_str().unwrap();
    assert!(std::process::Command::new("chmod").args(["644", file]).status().unwrap().success());
    let found =
        check(|| at(&stage.plane, &stage.worker_id).env_remove("OZ_API_KEY").env("OZ_API_KEY_FILE", file));
    found.assert_failed(&[]);
    let (state, text) = found.step("worker id");
    assert!(state == "warning" && text.contains(&format!("process {} of this host", worker.id())), "{text}");
    let (state, text) = found.step("key file");
    assert!(state == "warning" && text.contains("chmod o="), "{text}");

    // The address of the monitoring pages, which this worker has, another worker has, and another program has.
    let metrics = |id: &str, port: &str| {
        let found = check(|| at(&stage.plane, id).args(["--metrics-listen", port]));
        let (state, text) = found.step("metrics");
        (state.to_owned(), text.to_owned())
    };
    let (state, text) = metrics(&stage.worker_id, &port);
    assert_eq!(
        (state.as_str(), text),
        ("ok", format!("127.0.0.1:{port} is used by this worker, process {}", worker.id()))
    );
    let (state, text) = metrics("another", &port);
    assert!(
        state == "warning" && text.contains(&format!("in use by worker {}, process", stage.worker_id)),
        "{text}"
    );
    // It accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (state, text) = metrics("another", &silent.local_addr().unwrap().to_string());
    assert!(state == "warning" && text.contains("in use by another program"), "{text}");
    assert_eq!(metrics("another", &free_port().to_string()).0, "ok");
    let found = check(|| at(&stage.plane, "another").args(["--metrics-listen", "192.0.2.1:9464"]));
    found.assert_failed(&["metrics"]);
    stage.stop(worker);
}

#[test]
fn agents_that_are_sent_to_their_own_host_are_a_warning() {
    let proxy = ForwardProxy::start(SocketAddr::from(([127, 0, 0, 1], 1)));
    let found = check(|| {
        let urls = ["--server-root-url", "http://localhost:8080", "--web-socket-url", "ws://cp.example/ws"];
        let worker = WorkerBuilder::new(&binary()).args(["check", "--worker-id", &worker_id()]).args(urls);
        let proxy = format!("http://127.0.0.1:{}", proxy.port());
        worker.env("OZ_API_KEY", "k").env("HTTP_PROXY", &proxy).env("DOCKER_HOST", Engine::get().host())
    });
    let (state, text) = found.step("root url");
    assert!(state == "warning" && text.contains("agents cannot reach http://localhost:8080"), "{text}");
}

#[test]
fn images_are_pulled_filled_and_run_and_nothing_is_left() {
    let mut stage = Stage::new();
    let no_shell = stage.images.make("no-shell", RootFs::default(), &[]);
    let no_script = stage.images.make("no-script", RootFs::default(), &[]);
    let with = |args: &[&str]| check(|| at(&stage.plane, &stage.worker_id).args(args.iter().copied()));
    let named = |image: &str, sidecar: &str| {
        let pull = ["--pull", "missing"];
        with(&[&["--image", image, "--sidecar", sidecar][..], &pull].concat())
    };
    let found = named(&stage.task_image, &stage.sidecar_image);
    found.assert_failed(&[]);
    assert!(found.step("image").1.contains(" is sha256:"), "{}", found.text);
    assert!(
        found.step("sidecar").1.ends_with("fills a volume, and has /agent/entrypoint.sh"),
        "{}",
        found.text
    );
    assert_eq!(found.step("run"), ("ok", "a container of the image with the sidecar runs `true`"));

    named(&stage.task_image, &no_script).assert_failed(&["sidecar"]);
    let found = with(&["--image", &no_shell, "--pull", "missing"]);
    found.assert_failed(&["run"]);
    assert!(found.step("run").1.contains("/bin/sh"), "{}", found.text);
    let found = with(&["--image", "127.0.0.1:1/none:1"]);
    found.assert_failed(&["image"]);
    assert!(found.step("image").1.contains("127.0.0.1:1/none:1 is not available"), "{}", found.text);
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<Value>::new());
    assert_eq!(stage.engine.volumes_of(&stage.worker_id), Vec::<String>::new());
}

#[test]
fn what_a_killed_check_has_left_is_removed_by_the_next_check_and_by_the_worker() {
    let stage = Stage::new();
    let engine = EngineProxy::start(stage.engine.host());
    let left = || {
        let containers = stage.engine.containers_of(&stage.worker_id);
        let is_of_check = |name: &str| name.trim_start_matches('/').starts_with("oz-check-");
        let containers =
            containers.iter().filter(|container| is_of_check(container["Names"][0].as_str().unwrap()));
        let volumes = stage.engine.volumes_of(&stage.worker_id);
        (containers.count(), volumes.iter().filter(|name| is_of_check(name)).count())
    };
    let images = ["--image", &stage.task_image, "--sidecar", &stage.sidecar_image, "--pull", "missing"];
    let kill = || {
        let started = engine.hold("/start", 1);
        let worker = at(&stage.plane, &stage.worker_id).env("DOCKER_HOST", &engine.host()).args(images);
        let mut check = worker.start();
        started.wait(1);
        check.signal(Signal::KILL);
        check.wait_exit(DEADLINE);
        assert_eq!(left(), (1, 1));
    };
    kill();
    check(|| at(&stage.plane, &stage.worker_id).args(images)).assert_failed(&[]);
    assert_eq!(left(), (0, 0));
    kill();
    let worker = stage.start_worker();
    assert_eq!(left(), (0, 0));
    stage.stop(worker);
}

#[test]
fn without_settings_and_with_unknown_options_it_ends_with_code_2() {
    for (args, expected) in [
        (&["check"][..], "missing API key: set OZ_API_KEY or OZ_API_KEY_FILE"),
        (&["check", "--image", "A B"], "invalid --image \"A B\""),
        (&["check", "--follow", "x"], "unknown flag --follow; see --help"),
        (&["check", "--settings-file", "/nonexistent"], "cannot read --settings-file \"/nonexistent\""),
    ] {
        let (code, out, err) = end(WorkerBuilder::new(&binary()).args(args.iter().copied()).start());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(expected), "{err}");
    }
}
