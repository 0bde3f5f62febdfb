//! Secrets in every place where a worker reads some, searched for in everything that it writes.

mod pages;
mod search;
mod starts;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::control_plane::{ControlPlane, Disconnect, Options, RunSpec, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::images::RootFs;
use crate::support::pki::{Key, Pki};
use crate::support::process::Signal;
use crate::support::proxy::{PASSWORD as PROXY_PASSWORD, TinyProxy, USER as PROXY_USER, USER_INFO};
use crate::support::registry::{PASSWORD as REGISTRY_PASSWORD, Registry, USER as REGISTRY_USER};
use crate::support::stage::{DEADLINE, Stage, StageBuilder};
use crate::support::worker::{Worker, WorkerBuilder, binary};

use self::search::{Places, command_line};
use super::monitoring::free_port;
use super::notify::Manager;
use super::settings::write_file;

/// A name that only the proxy knows.
const HOST: &str = "control-plane.invalid";

/// A control plane behind a proxy with a password, a registry with a password, a client certificate, and a folder for settings.
struct Lab {
    stage: Stage,
    tiny: TinyProxy,
    registry: Registry,
    engine: EngineProxy,
    manager: Manager,
    client: std::path::PathBuf,
    folder: TempDir,
    _pki: Pki,
    /// An image that the engine creates no container of.
    declares: String,
}

impl Lab {
    fn new() -> Self {
        let plane =
            ControlPlane::start(Options { key: "MARKER-key-of-file".to_owned(), ..Options::default() });
        let tiny = TinyProxy::start(HOST, &[plane.address().port()]);
        let mut stage = StageBuilder::new("secrets").control_plane(plane).build();
        let volume = &["ENV PATH=/bin", "VOLUME /agent/data"];
        let declares = stage.images.make("data", RootFs::busybox(), volume);
        let (pki, engine) = (Pki::new(), EngineProxy::start(stage.engine.host()));
        let client = pki.client("client", Key::Pkcs8, 2);
        let (registry, manager) = (Registry::with_password(), Manager::new());
        Self {
            stage,
            tiny,
            registry,
            engine,
            manager,
            client,
            folder: tempfile::tempdir().unwrap(),
            _pki: pki,
            declares,
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        write_file(self.folder.path(), name, text.as_bytes())
    }

    /// Returns a worker whose proxy has this user and password.
    fn worker(&self, user_info: &str) -> WorkerBuilder {
        self.command(&[], user_info)
    }

    /// As [`Lab::worker`], with a sub-command in front.
    fn command(&self, command: &[&str], user_info: &str) -> WorkerBuilder {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (cert, key) = (text(&self.client.join("cert.pem")), text(&self.client.join("key.pem")));
        let api_key = self.file("key", "MARKER-key-of-file\n");
        let file = self.file(
            "worker.env",
            &format!(
                "OZ_API_KEY_FILE={api_key}\nOZ_ENV=\"OP=MARKER-operator\"\nOZ_CLIENT_CERT={cert}\nOZ_CLIENT_KEY={key}\n\
                 HTTP_PROXY=http://{user_info}@127.0.0.1:{}\n",
                self.tiny.port()
            ),
        );
        let folder = text(self.folder.path());
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
        let root = format!("http://{HOST}:{}", self.stage.plane.address().port());
        let url = root.replace("http:", "ws:") + "/api/v1/selfhosted/worker/ws?token=MARKER-query";
        WorkerBuilder::new(&binary())
            .args(command.iter().copied())
            .args(["--settings-file", &file, "--web-socket-url", &url, "--server-root-url", &root])
            .args(["--worker-id", &self.stage.worker_id, "--log-level", "debug", "--pull", "always"])
            .env("DOCKER_HOST", &self.engine.host())
            .env("OZ_API_KEY", "MARKER-key-variable")
            .env("WARP_API_KEY", "MARKER-key-warp")
            .env("OZ_WORKER_ARGS", "--api-key MARKER-key-arguments")
            .env("NOTIFY_SOCKET", &self.manager.address())
            .env("DOCKER_CONFIG", &folder)
            .env("PATH", &path)
            .env("LAB", &folder)
    }

    /// Returns a run with secrets whose images are in the registry.
    fn spec(&self) -> RunSpec {
        let push = |image: &str, name: &str| self.registry.push(&self.stage.engine, image, name, "v1");
        let mut spec = self.stage.spec("echo shown");
        spec.docker_image = Some(push(&self.stage.task_image, "team/task"));
        spec.sidecar_image = push(&self.stage.sidecar_image, "team/agent");
        spec.env_vars.insert("TOKEN".to_owned(), "MARKER-env".to_owned());
        spec.agent_config_snapshot = Some(json!({"mcp_servers": {"s": {"token": "MARKER-mcp"}}}));
        spec
    }

    /// Installs a credential helper, see `registry_credentials.rs` for why a shell writes it.
    fn helper(&self, script: &str) {
        self.file("config.json", &json!({"credsStore": "test"}).to_string());
        let write = format!("cat >\"$0\" <<'END'\n#!/bin/sh\n{script}\nEND\nchmod 755 \"$0\"");
        let path = self.folder.path().join("docker-credential-test");
        assert!(Command::new("/bin/sh").args(["-c", &write]).arg(path).status().unwrap().success());
    }

    /// Runs tasks that fail in the registry, in its helper, in the assignment and at the engine.
    fn fail(&self, spec: &RunSpec, places: &mut Places) {
        let mut fails = |spec: &RunSpec, reason: &str| {
            let run = self.stage.run(spec);
            assert_eq!(run.failure_reason.as_deref(), Some(reason), "{:?}", run.message);
            places.add("message", run.message.unwrap());
        };
        let wrong = json!({"username": REGISTRY_USER, "password": "MARKER-registry-wrong"});
        self.file("config.json", &json!({"auths": {self.registry.host(): wrong}}).to_string());
        fails(spec, "image_pull");
        self.helper("echo MARKER-helper; echo MARKER-helper >&2; exit 1");
        fails(spec, "image_pull");
        let long = "MARKER-env".repeat(20_000);
        for (name, value) in
            [("BAD", "MARKER-env\0"), ("", "MARKER-env"), ("A=B", "MARKER-env"), ("BIG", &long)]
        {
            let mut bad = spec.clone();
            bad.env_vars.insert(name.to_owned(), value.to_owned());
            fails(&bad, "invalid_assignment");
        }
        self.helper(&format!(
            "tr '\\0' ' ' </proc/$$/cmdline >\"$LAB/command\"; env >\"$LAB/environment\"
             echo '{{\"ServerURL\":\"x\",\"Username\":\"{REGISTRY_USER}\",\"Secret\":\"{REGISTRY_PASSWORD}\"}}'"
        ));
        let small = RunSpec { instance_shape: Some(json!({"memory_gb": 0.000_001})), ..spec.clone() };
        fails(&small, "invalid_assignment");
        let declares = self.registry.push(&self.stage.engine, &self.declares, "team/data", "v1");
        fails(&RunSpec { docker_image: Some(declares), ..spec.clone() }, "container_create");
    }

    /// Runs a task that succeeds, and inspects what it has on the engine.
    fn succeed(&self, spec: &RunSpec, places: &mut Places) {
        let (stage, engine) = (&self.stage, &self.engine);
        stage.wait_clean();
        stage.engine.volumes_of(&stage.worker_id).iter().for_each(|name| stage.engine.remove_volume(name));
        // While the files of the sidecar are written, its helper exists.
        let filling = engine.hold("PUT *archive", 1);
        let id = stage.plane.submit(spec);
        filling.wait(1);
        places.inspect(stage);
        let started = engine.hold("/start", 1);
        filling.release();
        started.wait(1);
        places.inspect(stage);
        started.release();
        let run = stage.plane.wait_ended(&id);
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("shown\n")));
        for (place, file) in [("helper command line", "command"), ("helper environment", "environment")] {
            places.add(place, fs::read_to_string(self.folder.path().join(file)).unwrap());
        }
    }

    /// Logs the state, refuses the worker, and stops it.
    fn end(&self, mut worker: Worker, places: &mut Places) {
        // The last report is stored: a worker that cannot deliver it ends with another code.
        self.stage.wait_clean();
        worker.signal(Signal::USR1);
        worker.wait_log(DEADLINE, |line| line.contains("engine state"));
        self.stage.plane.refuse_with(Some(401));
        self.stage.plane.drop_connections(Disconnect::Rst);
        worker.wait_log(DEADLINE, |line| line.contains("link refused"));
        let status = |line: &str| line.starts_with("STATUS=") && line.contains("401");
        places.lines("service manager", self.manager.until_line(status));
        worker.signal(Signal::TERM);
        assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0));
        places.inspect(&self.stage);
        places.lines("stdout", worker.stdout().all());
        places.lines("stderr", worker.stderr().all());
        for message in self.stage.plane.messages() {
            places.add("message", format!("{} {}", message.kind, message.data));
        }
    }
}

/// The whole life of a worker: a proxy and a registry that refuse the password, a helper that fails, tasks that cannot be created, one
/// that succeeds, and a control plane that refuses.
#[test]
fn no_secret_leaves_a_worker_whose_tasks_fail_and_succeed() {
    let (lab, mut places) = (Lab::new(), Places::default());
    let refused = lab.worker(&format!("{PROXY_USER}:MARKER-proxy-wrong")).start();
    refused.wait_log(DEADLINE, |line| line.contains(": it refused the user name and password in HTTP_PROXY"));
    places.lines("stderr", refused.stderr().all());
    drop(refused);
    let port = free_port().to_string();
    let worker = lab.stage.start(lab.worker(USER_INFO).args(["--metrics-listen", &port]));
    // The test itself gives this one as a flag.
    places.add("command line", command_line(worker.id()).replace("token=MARKER-query", ""));
    let spec = lab.spec();
    lab.fail(&spec, &mut places);
    lab.succeed(&spec, &mut places);
    pages::read(&port, &mut places);
    for user_info in [USER_INFO.to_owned(), format!("{PROXY_USER}:MARKER-proxy-wrong")] {
        for json in [&[][..], &["--json"]] {
            let images = ["--image", spec.docker_image.as_deref().unwrap(), "--sidecar", &spec.sidecar_image];
            let check = lab.command(&["check"], &user_info).args(json.iter().copied()).args(images);
            places.end("check", check.args(["--metrics-listen", &port]).start());
        }
    }
    lab.end(worker, &mut places);

    places.assert_searched("oz_worker_connected", &["/metrics"]);
    places.assert_searched(&lab.stage.worker_id, &["/status", "check"]);
    places.assert_searched(" image ", &["check"]);
    let searched = ["stderr", "command line", "helper inspect", "volume inspect", "task labels"];
    places.assert_searched(&lab.stage.worker_id, &searched);
    places.assert_searched(&lab.registry.host(), &["message", "stderr"]);
    places.assert_searched("docker-credential-test", &["helper command line"]);
    places.assert_searched("DOCKER_CONFIG", &["helper environment"]);
    places.assert_searched("401", &["service manager"]);
    places.assert_searched("DEBUG", &["stderr"]);
    let client_key = fs::read_to_string(lab.client.join("key.pem")).unwrap();
    places.assert_clean(&["MARKER-", client_key.lines().nth(1).unwrap(), REGISTRY_PASSWORD]);
    // The helper may need the proxy.
    places.0.retain(|(place, _)| place != "helper environment");
    places.assert_clean(&[PROXY_PASSWORD]);
}
