//! Images from a real registry: names, pull policies, shared pulls, and every way in which a pull fails.

use serde_json::Value;

use crate::support::control_plane::{RunSpec, State};
use crate::support::engine::Engine;
use crate::support::engine_proxy::EngineProxy;
use crate::support::fault_proxy::FaultProxy;
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::registry::{PASSWORD, Registry};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::Worker;

/// The architecture that this machine's engine runs.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// An architecture that this machine's engine does not run.
const FOREIGN: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

/// Images in a registry. Dropping it removes from the engine what was pulled.
struct RegistryImages {
    engine: Engine,
    registry: Option<Registry>,
    /// `host:port` of the registry, or of a proxy in front of it.
    host: String,
}

impl RegistryImages {
    fn of(registry: Registry) -> Self {
        Self { engine: Engine::get(), host: registry.host(), registry: Some(registry) }
    }

    fn new() -> Self {
        Self::of(Registry::open())
    }

    fn registry(&self) -> &Registry {
        self.registry.as_ref().unwrap()
    }

    /// Pushes a task image with `text` in `/text`. Returns the digests of its manifest and of its layer.
    fn task(&self, name: &str, text: &str, architecture: &str) -> (String, String) {
        let root = RootFs::busybox().file("text", 0o644, text).file("mark", 0o644, &self.host);
        self.registry().put(name, root, architecture, &["PATH=/bin"])
    }

    /// Pushes a sidecar image with the agent of the tests.
    fn agent(&self, name: &str) -> (String, String) {
        let root = RootFs::sidecar(Layout::Root, AGENT).file("mark", 0o644, &self.host);
        self.registry().put(name, root, NATIVE, &[])
    }

    /// Returns the full name of an image.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Whether the engine has an image.
    fn has(&self, name: &str) -> bool {
        self.engine.request("GET", &format!("/images/{}/json", self.name(name)), &[], &[]).status == 200
    }

    /// Returns a run of these images that prints `/text`.
    fn spec(&self, stage: &Stage, task: &str, agent: &str) -> RunSpec {
        let (docker_image, sidecar_image) = (Some(self.name(task)), self.name(agent));
        RunSpec { docker_image, sidecar_image, ..stage.spec("cat /text") }
    }
}

impl Drop for RegistryImages {
    fn drop(&mut self) {
        let list = self.engine.json("GET", "/images/json", &Value::Null);
        for image in list.as_array().into_iter().flatten() {
            let id = image["Id"].as_str().unwrap_or_default();
            if image["RepoTags"].to_string().contains(&self.host)
                || image["RepoDigests"].to_string().contains(&self.host)
            {
                self.engine.request("DELETE", &format!("/images/{id}?force=1"), &[], &[]);
            }
        }
    }
}

fn lines(worker: &Worker, what: &str) -> Vec<String> {
    worker.stderr().all().into_iter().filter(|line| line.contains(what)).collect()
}

fn with_policy(stage: &Stage, policy: &str) -> Worker {
    stage.start(stage.worker_pulling(policy))
}

#[test]
fn task_image_and_sidecars_come_from_a_registry_by_tag_and_by_digest() {
    let stage = Stage::new();
    let images = RegistryImages::new();
    let (first, _) = images.task("team/deep/task:v1", "one\n", NATIVE);
    let (agent, _) = images.agent("agent:v1");
    images.task("team/deep/task:v2", "two\n", NATIVE);
    images.task("task:latest", "latest\n", NATIVE);
    let worker = with_policy(&stage, "always");
    let (task_by_digest, agent_by_digest) = (format!("team/deep/task@{first}"), format!("agent@{agent}"));
    // If a name has a tag and a digest, the digest counts.
    let both = format!("team/deep/task:v2@{first}");
    let cases = [
        ("team/deep/task:v1", agent_by_digest.as_str(), "one\n"),
        ("team/deep/task:v2", "agent:v1", "two\n"),
        (&task_by_digest, "agent:v1", "one\n"),
        (&both, &agent_by_digest, "one\n"),
        ("task", "agent:v1", "latest\n"),
    ];
    for (task, agent, text) in cases {
        let mut spec = images.spec(&stage, task, agent);
        spec.additional_sidecars =
            vec![serde_json::json!({"image": images.name(agent), "mount_path": "/more"})];
        spec.env_vars.insert("OZ_TEST_SCRIPT".into(), "cat /text /more/lib/data.txt".into());
        let run = stage.run(&spec);
        assert_eq!((run.output, run.message), (Some(format!("{text}data\n")), None), "{task} {agent}");
    }
    stage.stop(worker);
}

/// The registry does not answer until every task waits for it.
#[test]
fn tasks_that_need_the_same_images_at_once_share_one_pull_of_each() {
    let stage = Stage::new();
    let mut images = RegistryImages::new();
    let (_, task_layer) = images.task("task:v1", "five\n", NATIVE);
    let (_, agent_layer) = images.agent("agent:v1");
    let proxy = FaultProxy::held(&format!("tcp://{}", images.host));
    images.host = proxy.address();
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "8", "--log-level", "debug"]));
    let spec = images.spec(&stage, "task:v1", "agent:v1");
    let ids: Vec<String> = (0..5).map(|_| stage.plane.submit(&spec)).collect();
    for id in &ids {
        stage.plane.wait_state(id, State::InProgress);
    }
    // Both pulls have started while neither can make progress, so they run at the same time.
    for image in ["task:v1", "agent:v1"] {
        let started = format!("image={}", images.name(image));
        worker.wait_log(DEADLINE, |line| line.contains("pull started") && line.contains(&started));
    }
    // Cancelling the task that leads a pull does not fail the tasks that wait for it.
    let leader =
        ids.iter().find(|id| !lines(&worker, &format!("pull started task={id}")).is_empty()).unwrap();
    stage.plane.cancel(leader);
    stage.plane.wait_message(leader, "task_failed");
    proxy.open();
    for id in ids.iter().filter(|id| *id != leader) {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.output.as_deref(), run.message), (Some("five\n"), None));
    }
    for image in ["task:v1", "agent:v1"] {
        let done = lines(&worker, &format!("image={}", images.name(image)));
        let done = done.iter().filter(|line| line.contains("pull done")).count();
        assert_eq!(done, 1, "{image}: {:#?}", worker.stderr().all());
    }
    for (repository, layer) in [("task", task_layer), ("agent", agent_layer)] {
        // Once more if the engine has not yet seen that the leader gave up its pull.
        let gets = images.registry().answered("GET", &format!("/v2/{repository}/blobs/{layer}"));
        assert!((1..=2).contains(&gets), "{repository} was downloaded {gets} times");
    }
    stage.stop(worker);
}

#[test]
fn a_pull_without_the_required_password_fails_and_names_the_image() {
    let stage = Stage::new();
    let images = RegistryImages::of(Registry::with_password());
    images.task("secret/task:v1", "x", NATIVE);
    for policy in ["auto", "always", "missing"] {
        let worker = with_policy(&stage, policy);
        let mut spec = images.spec(&stage, "secret/task:v1", "agent:v1");
        spec.sidecar_image = stage.sidecar_image.clone();
        if policy == "always" {
            spec.sidecar_image = images.name("secret/task:v1");
        }
        let run = stage.run(&spec);
        assert_eq!(
            (run.state, run.failure_reason.as_deref()),
            (State::Failed, Some("image_pull")),
            "{policy}"
        );
        let message = run.message.unwrap();
        assert!(
            message.contains(&images.name("secret/task:v1")) && message.contains("no basic auth"),
            "{message}"
        );
        let log = worker.stderr().all().join("\n");
        for secret in [PASSWORD, stage.plane.key()] {
            assert!(!message.contains(secret) && !log.contains(secret));
        }
        stage.stop(worker);
    }
}

#[test]
fn each_policy_decides_when_to_pull_and_whether_a_local_image_is_enough() {
    let stage = Stage::new();
    let mut images = RegistryImages::new();
    images.task("task:v1", "old\n", NATIVE);
    images.agent("agent:v1");
    let spec = images.spec(&stage, "task:v1", "agent:v1");
    let host = images.host.clone();
    let fails = |what: &str| {
        let run = stage.run(&spec);
        assert_eq!(run.failure_reason.as_deref(), Some("image_pull"), "{:?}", run.output);
        let message = run.message.unwrap();
        assert!(message.contains(what) && message.contains(&host), "{message}");
    };
    let works = |text: &str| {
        let run = stage.run(&spec);
        assert_eq!((run.output.as_deref(), run.message), (Some(text), None));
    };

    let worker = with_policy(&stage, "never");
    fails(&format!("is not on this engine for linux/{NATIVE}, and the pull policy is never"));
    assert_eq!(lines(&worker, "pull started"), Vec::<String>::new());
    assert!(!images.has("task:v1") && !images.has("agent:v1"));
    stage.stop(worker);

    let worker = with_policy(&stage, "missing");
    works("old\n");
    images.task("task:v1", "new\n", NATIVE);
    works("old\n");
    assert_eq!(lines(&worker, "pull started").len(), 2, "each image once, for the first task");
    stage.stop(worker);

    let worker = with_policy(&stage, "auto");
    works("new\n");
    let pulls = lines(&worker, "pull started").len();
    drop(images.registry.take());
    works("new\n");
    let warned = lines(&worker, "pull failed, local image used");
    assert_eq!(warned.len(), 2, "{warned:#?}");
    assert!(
        warned.iter().all(|line| line.contains("WARN") && line.contains("task=") && line.contains("error="))
    );
    assert_eq!((pulls, lines(&worker, "pull started").len()), (2, 4));
    stage.stop(worker);

    let worker = with_policy(&stage, "always");
    fails("connection refused");
    stage.stop(worker);

    let worker = with_policy(&stage, "never");
    works("new\n");
    assert_eq!(lines(&worker, "pull started"), Vec::<String>::new());
    stage.stop(worker);
}

/// The container is created beside the pull, from the image that the name has until then.
#[test]
fn a_container_of_an_image_that_is_not_the_pulled_one_is_never_started() {
    let stage = Stage::new();
    let mut images = RegistryImages::new();
    images.task("task:v1", "old\n", NATIVE);
    images.agent("agent:v1");
    let spec = images.spec(&stage, "task:v1", "agent:v1");
    let name = images.name("task:v1");
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker_pulling("auto").env("DOCKER_HOST", &proxy.host()));
    assert_eq!(stage.run(&spec).output.as_deref(), Some("old\n"));
    let old = stage.engine.json("GET", &format!("/images/{name}/json"), &Value::Null);
    let works = |what: &str| {
        let pulls = proxy.delay("/images/create", 2);
        let id = stage.plane.submit(&spec);
        let created = format!("container created task={id}");
        worker.wait_log(DEADLINE, |line| line.contains(&created));
        pulls.release();
        assert_eq!(stage.plane.wait_ended(&id).output.as_deref(), Some("new\n"), "{what}");
    };

    images.task("task:v1", "new\n", NATIVE);
    works("the registry has another image");
    // The pull delivers the same image as the last one.
    let (repository, tag) = name.rsplit_once(':').unwrap();
    let path = format!("/images/{}/tag?repo={repository}&tag={tag}", old["Id"].as_str().unwrap());
    stage.engine.request("POST", &path, &[], &[]);
    works("the name was given to an older image");
    assert_eq!(lines(&worker, "container replaced").len(), 2);
    assert_eq!(proxy.count("/start"), 3);

    drop(images.registry.take());
    works("the pull fails, and the local image is the one of the container");
    assert_eq!(lines(&worker, "container replaced").len(), 2);
    stage.stop(worker);
}

#[test]
fn an_image_for_another_platform_is_refused_with_every_policy() {
    let stage = Stage::new();
    let images = RegistryImages::new();
    images.task("foreign:v1", "x", FOREIGN);
    let foreign = images.name("foreign:v1");
    // Docker 26 notices it itself, in other words.
    let platforms = [FOREIGN, NATIVE].map(|architecture| format!("linux/{architecture}"));
    for policy in ["always", "auto", "missing", "never"] {
        let worker = with_policy(&stage, policy);
        let mut spec = stage.spec("cat /text");
        // Only the first failure is reported. With `always` both images are foreign, because no other is in the registry.
        let agent = if policy == "always" { foreign.clone() } else { stage.sidecar_image.clone() };
        (spec.docker_image, spec.sidecar_image) = (Some(foreign.clone()), agent);
        let run = stage.run(&spec);
        assert_eq!(run.failure_reason.as_deref(), Some("image_pull"), "{policy}");
        let message = run.message.unwrap();
        assert!(message.contains(&foreign), "{policy}: {message}");
        assert!(platforms.iter().all(|platform| message.contains(platform)), "{policy}: {message}");
        assert_eq!(lines(&worker, "container created"), Vec::<String>::new());
        stage.stop(worker);
    }
}

#[test]
fn a_truncated_layer_is_a_failed_pull() {
    let stage = Stage::new();
    let images = RegistryImages::new();
    let (_, layer) = images.task("half:v1", &"half ".repeat(100_000), NATIVE);
    images.registry().break_blob(&layer);
    let worker = with_policy(&stage, "auto");
    let mut spec = images.spec(&stage, "half:v1", "agent:v1");
    spec.sidecar_image = stage.sidecar_image.clone();
    let run = stage.run(&spec);
    assert_eq!((run.state, run.failure_reason.as_deref()), (State::Failed, Some("image_pull")));
    assert!(run.message.unwrap().contains(&images.name("half:v1")));
    assert!(images.registry().answered("GET", &format!("/v2/half/blobs/{layer}")) > 0, "the pull had begun");
    assert!(!images.has("half:v1"));
    stage.stop(worker);
}
