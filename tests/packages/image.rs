//! The image: its contents, and whole tasks run by a worker in a container, as documented.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::stage::{Stage, run_container};
use crate::support::engine::Engine;
use crate::{DEADLINE, source, static_binary};

const LARGEST: u64 = 8 * 1024 * 1024;

/// The image, loaded under a unique name; removed when dropped.
struct Loaded {
    name: String,
    engine: Engine,
    _folder: TempDir,
}

/// Runs a script of the repository against an engine and returns what it prints.
fn script(name: &str, args: &[&str], engine: &Engine) -> String {
    let output = Command::new(source(name)).args(args).env("DOCKER_HOST", engine.host()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Loaded {
    fn new(stage: &Stage) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("oz-packages-{}:test", stage.worker_id);
        let engine = stage.engine.clone();
        let binary = static_binary();
        let args = [binary.to_str().unwrap(), folder.path().to_str().unwrap(), &name];
        let file = script("packaging/image/build.sh", &args, &engine);
        script("packaging/image/load.sh", &[&file], &engine);
        Self { name, engine, _folder: folder }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.engine.remove_image(&self.name);
    }
}

/// A container that runs the worker; removed when dropped.
struct Container<'a> {
    id: String,
    stage: &'a Stage,
}

impl<'a> Container<'a> {
    /// As `docker run -v …/docker.sock:/var/run/docker.sock --network host`, with `more` added to `HostConfig`.
    fn start(stage: &'a Stage, image: &Loaded, user: &str, more: &Value) -> Self {
        let mut host = json!({"NetworkMode": "host",
            "Binds": [format!("{}:/var/run/docker.sock", socket(stage))]});
        host.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let key = format!("OZ_API_KEY={}", stage.plane.key());
        let spec = json!({"Image": image.name, "Cmd": stage.plain_args("127.0.0.1"), "User": user, "Env": [key],
            "HostConfig": host, "Tty": true});
        let id = stage.engine.json("POST", "/containers/create", &spec)["Id"].as_str().unwrap().to_owned();
        let container = Self { id, stage };
        container.post("start");
        container
    }

    fn post(&self, what: &str) {
        self.stage.engine.json("POST", &format!("/containers/{}/{what}", self.id), &Value::Null);
    }

    fn log(&self) -> String {
        let path = format!("/containers/{}/logs?stdout=1&stderr=1", self.id);
        String::from_utf8_lossy(&self.stage.engine.request("GET", &path, &[], &[]).body).into_owned()
    }

    fn exit_code(&self) -> i64 {
        self.stage.engine.json("POST", &format!("/containers/{}/wait", self.id), &Value::Null)["StatusCode"]
            .as_i64()
            .unwrap()
    }

    /// Runs a task, then stops the worker as `docker stop` does.
    fn run_a_task_and_stop(&self) {
        let connected = self.stage.plane.holds_within(DEADLINE, |world| world.connected() == 1);
        assert!(connected, "{}", self.log());
        self.stage.run_a_task();
        self.post("stop?t=50");
        assert_eq!(self.exit_code(), 0, "{}", self.log());
        assert_eq!(self.stage.engine.containers_of(&self.stage.worker_id), Vec::<Value>::new());
        self.stage.plane.assert_no_violations();
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.stage.engine.remove_container(&self.id);
    }
}

/// Returns the path of the engine's socket.
fn socket(stage: &Stage) -> String {
    stage
        .engine
        .host()
        .strip_prefix("unix://")
        .expect("these tests need an engine on a Unix socket")
        .to_owned()
}

#[test]
fn the_image_is_small_and_has_the_documented_configuration() {
    let stage = Stage::new();
    let image = Loaded::new(&stage);
    let found = stage.engine.json("GET", &format!("/images/{}/json", image.name), &Value::Null);
    assert!(found["Size"].as_u64().is_some_and(|size| size <= LARGEST), "{found:#}");
    assert_eq!((&found["Architecture"], &found["Os"]), (&json!("amd64"), &json!("linux")));
    let config = &found["Config"];
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/oz-agent-worker"]));
    assert_eq!(config["Env"], json!(["PATH=/usr/local/bin:/usr/bin:/bin"]));
    assert_eq!((&config["User"], &config["Cmd"]), (&json!(""), &Value::Null));
    let labels = json!({"org.opencontainers.image.title": "oz-agent-worker",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION")});
    assert_eq!(config["Labels"], labels);
    let spec = json!({"Image": image.name, "Cmd": ["--version"], "Tty": true});
    let expected = format!("oz-agent-worker {}\r\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run_container(&stage.engine, &spec), (0, expected));
}

#[test]
fn the_same_binary_gives_the_same_image() {
    let engine = Engine::get();
    let binary = static_binary();
    let files = [(), ()].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        let args = [binary.to_str().unwrap(), folder.path().to_str().unwrap(), "same:test"];
        std::fs::read(script("packaging/image/build.sh", &args, &engine)).unwrap()
    });
    assert!(files[0] == files[1]);
}

#[test]
fn loading_fails_without_an_engine_or_an_image() {
    let load = |host: &str| {
        let mut command = Command::new(source("packaging/image/load.sh"));
        let output = command.arg("/dev/null").env("DOCKER_HOST", host).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, stderr) = load("unix:///nonexistent/docker.sock");
    assert!(
        code == Some(1) && stderr.contains("no engine answers at unix:///nonexistent/docker.sock"),
        "{stderr}"
    );
    let (code, stderr) = load(Engine::get().host());
    assert!(code == Some(1) && stderr.contains("refused /dev/null"), "{stderr}");
}

#[test]
fn a_worker_in_a_container_runs_a_task_as_root() {
    let stage = Stage::new();
    let image = Loaded::new(&stage);
    Container::start(&stage, &image, "", &json!({})).run_a_task_and_stop();
}

/// The documented alternative: an unprivileged user with the socket's group, and a read-only root file system.
#[test]
fn an_unprivileged_worker_in_a_read_only_container_runs_a_task() {
    let stage = Stage::new();
    let image = Loaded::new(&stage);
    let group = std::fs::metadata(socket(&stage)).unwrap().gid().to_string();
    let more = json!({"ReadonlyRootfs": true, "GroupAdd": [group]});
    Container::start(&stage, &image, "65534", &more).run_a_task_and_stop();
    let outsider = Container::start(&stage, &image, "65534", &json!({"ReadonlyRootfs": true}));
    assert_eq!(
        outsider.exit_code(),
        4,
        "it reached the engine without the socket's group: {}",
        outsider.log()
    );
}
