//! The image: its contents, and whole tasks run by a worker in a container, as documented.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::root::run;
use crate::stage::{Stage, run_container};
use crate::support::engine::Engine;
use crate::support::registry::Registry;
use crate::{
    DEADLINE, arch, architectures, debian_arch, debian_name, source, static_binary, static_binary_for,
};

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

/// Builds an image of each binary, and returns the paths of the files.
fn build(folder: &Path, name: &str, binaries: &[PathBuf]) -> Vec<String> {
    let binaries = binaries.iter().map(|path| path.to_str().unwrap());
    let args: Vec<_> = [folder.to_str().unwrap(), name].into_iter().chain(binaries).collect();
    let printed = script("packaging/image/build.sh", &args, &Engine::get());
    printed.lines().map(str::to_owned).collect()
}

impl Loaded {
    fn new(stage: &Stage) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("oz-packages-{}:test", stage.worker_id);
        let engine = stage.engine.clone();
        let [file, _] = build(folder.path(), &name, &[static_binary()]).try_into().unwrap();
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
fn the_same_binaries_give_the_same_images() {
    let builds = [(), ()].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        let files = build(folder.path(), "same:test", &all());
        files.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(builds[0].len(), all().len() + 1);
    assert!(builds[0] == builds[1]);
}

/// Returns the static binaries of a release.
fn all() -> Vec<PathBuf> {
    architectures().iter().map(|arch| static_binary_for(arch)).collect()
}

/// Published as documented. An engine that was told to use the image of another architecture says so in the container's log, which
/// `docker service logs` shows, too.
#[test]
fn an_engine_pulls_its_own_architecture_and_reports_another_one() {
    let stage = Stage::new();
    let registry = Registry::open();
    let folder = tempfile::tempdir().unwrap();
    let files = build(folder.path(), "index:test", &all());
    let name = format!("{}/oz-agent-worker", registry.host());
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--all", "--dest-tls-verify=false"]);
    run(command.arg(format!("oci-archive:{}", files.last().unwrap())).arg(format!("docker://{name}:test")));
    let pull = |platform: &str| {
        let path = format!("/images/create?fromImage={name}&tag=test&platform={platform}");
        stage.engine.progress(&path, &[], &[]).unwrap();
        let found = stage.engine.json("GET", &format!("/images/{name}:test/json"), &Value::Null);
        found["Architecture"].as_str().unwrap().to_owned()
    };
    let spec = json!({"Image": format!("{name}:test"), "Cmd": ["--version"], "Tty": true});
    assert_eq!(pull(""), debian_arch());
    assert_eq!(run_container(&stage.engine, &spec).0, 0);
    for other in architectures().iter().filter(|other| **other != arch()) {
        assert_eq!(pull(&format!("linux/{}", debian_name(other))), debian_name(other));
        let (code, log) = run_container(&stage.engine, &spec);
        assert!(
            code == 1 && log.contains("/usr/local/bin/oz-agent-worker: exec format error"),
            "{code} {log}"
        );
    }
    stage.engine.remove_image(&format!("{name}:test"));
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
