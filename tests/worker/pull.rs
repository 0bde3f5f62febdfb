//! Images from a real registry: names, policies, one pull for many, and every way in which one cannot be had.

use super::Stage;
use crate::support::control_plane::{RunSpec, State};
use crate::support::cutter::Cutter;
use crate::support::engine::Engine;
use crate::support::images::{AGENT, Layout, Root};
use crate::support::registry::{PASSWORD, Registry};
use crate::support::worker::Worker;

/// What this machine's engine runs, and what it does not, in the engine's words.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
const EXTERNAL: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

/// Images in a registry; what the engine has pulled of them goes at the end.
struct Shelf {
    engine: Engine,
    registry: Option<Registry>,
    /// Where the engine finds the registry.
    host: String,
}

impl Shelf {
    fn of(registry: Registry) -> Self {
        Self { engine: Engine::get(), host: registry.host(), registry: Some(registry) }
    }

    fn new() -> Self {
        Self::of(Registry::open())
    }

    fn registry(&self) -> &Registry {
        self.registry.as_ref().unwrap()
    }

    /// A task image that has `text` in `/text`; the digests of its manifest and of its layer.
    fn task(&self, name: &str, text: &str, architecture: &str) -> (String, String) {
        let root = Root::busybox().file("text", 0o644, text).file("mark", 0o644, &self.host);
        self.registry().put(name, root, architecture, &["PATH=/bin"])
    }

    /// A sidecar image with the agent of the tests.
    fn agent(&self, name: &str) -> (String, String) {
        let root = Root::sidecar(Layout::Root, AGENT).file("mark", 0o644, &self.host);
        self.registry().put(name, root, NATIVE, &[])
    }

    /// The name by which the engine knows it.
    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Whether the engine has it.
    fn has(&self, name: &str) -> bool {
        self.engine.request("GET", &format!("/images/{}/json", self.name(name)), &[], &[]).status == 200
    }

    /// A run of these two that says what is in `/text`.
    fn spec(&self, stage: &Stage, task: &str, agent: &str) -> RunSpec {
        let (docker_image, sidecar_image) = (Some(self.name(task)), self.name(agent));
        RunSpec { docker_image, sidecar_image, ..stage.spec("cat /text") }
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let list = self.engine.json("GET", "/images/json", &serde_json::Value::Null);
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
    stage.connected(Worker::with(&stage.plane, &stage.worker_id).args(["--pull", policy]))
}

#[test]
fn task_image_and_sidecars_come_from_a_registry_by_tag_and_by_digest() {
    let (stage, shelf) = (Stage::new(), Shelf::new());
    let (first, _) = shelf.task("team/deep/task:v1", "one\n", NATIVE);
    let (agent, _) = shelf.agent("agent:v1");
    shelf.task("team/deep/task:v2", "two\n", NATIVE);
    shelf.task("task:latest", "latest\n", NATIVE);
    let worker = with_policy(&stage, "always");
    let (task_by_digest, agent_by_digest) = (format!("team/deep/task@{first}"), format!("agent@{agent}"));
    // With both the digest says which, and the tag says nothing.
    let both = format!("team/deep/task:v2@{first}");
    let cases = [
        ("team/deep/task:v1", agent_by_digest.as_str(), "one\n"),
        ("team/deep/task:v2", "agent:v1", "two\n"),
        (&task_by_digest, "agent:v1", "one\n"),
        (&both, &agent_by_digest, "one\n"),
        ("task", "agent:v1", "latest\n"),
    ];
    for (task, agent, text) in cases {
        let mut spec = shelf.spec(&stage, task, agent);
        spec.additional_sidecars =
            vec![serde_json::json!({"image": shelf.name(agent), "mount_path": "/more"})];
        spec.env_vars.insert("OZ_TEST_SCRIPT".into(), "cat /text /more/lib/data.txt".into());
        let run = stage.run(&spec);
        assert_eq!((run.output, run.message), (Some(format!("{text}data\n")), None), "{task} {agent}");
    }
    stage.stop(worker);
}

/// The registry is held back until every task waits for it, so none can come too late to wait.
#[test]
fn five_tasks_that_need_the_same_images_at_once_cost_one_pull_of_each() {
    let stage = Stage::new();
    let mut shelf = Shelf::new();
    let (_, task_layer) = shelf.task("task:v1", "five\n", NATIVE);
    let (_, agent_layer) = shelf.agent("agent:v1");
    let gate = Cutter::held(&format!("tcp://{}", shelf.host));
    shelf.host = gate.address();
    let worker =
        stage.connected(stage.worker().args(["--max-concurrent-tasks", "8", "--log-level", "debug"]));
    let spec = shelf.spec(&stage, "task:v1", "agent:v1");
    let ids: Vec<String> = (0..5).map(|_| stage.plane.submit(&spec)).collect();
    for id in &ids {
        stage.plane.wait_state(id, State::InProgress);
    }
    // Both are under way while neither can get on: they are pulled at the same time.
    for image in ["task:v1", "agent:v1"] {
        let started = format!("image={}", shelf.name(image));
        worker.wait_log(super::DEADLINE, |line| line.contains("pull started") && line.contains(&started));
    }
    // Those who wait do not fail with one that is cancelled, even if it is the one that leads.
    let leader =
        ids.iter().find(|id| !lines(&worker, &format!("pull started task={id}")).is_empty()).unwrap();
    stage.plane.cancel(leader);
    stage.plane.wait_message(leader, "task_failed");
    gate.open();
    for id in ids.iter().filter(|id| *id != leader) {
        let run = stage.plane.wait_ended(id);
        assert_eq!((run.output.as_deref(), run.message), (Some("five\n"), None));
    }
    for image in ["task:v1", "agent:v1"] {
        let done = lines(&worker, &format!("image={}", shelf.name(image)));
        let done = done.iter().filter(|line| line.contains("pull done")).count();
        assert_eq!(done, 1, "{image}: {:#?}", worker.stderr().all());
    }
    for (repository, layer) in [("task", task_layer), ("agent", agent_layer)] {
        assert_eq!(shelf.registry().answered("GET", &format!("/v2/{repository}/blobs/{layer}")), 1);
    }
    stage.stop(worker);
}

#[test]
fn a_registry_that_asks_for_a_password_is_told_by_the_name_of_the_image() {
    let (stage, shelf) = (Stage::new(), Shelf::of(Registry::with_password()));
    shelf.task("secret/task:v1", "x", NATIVE);
    for policy in ["auto", "always", "missing"] {
        let worker = with_policy(&stage, policy);
        let mut spec = shelf.spec(&stage, "secret/task:v1", "agent:v1");
        spec.sidecar_image = stage.sidecar_image.clone();
        if policy == "always" {
            spec.sidecar_image = shelf.name("secret/task:v1");
        }
        let run = stage.run(&spec);
        assert_eq!(
            (run.state, run.failure_reason.as_deref()),
            (State::Failed, Some("image_pull")),
            "{policy}"
        );
        let message = run.message.unwrap();
        assert!(
            message.contains(&shelf.name("secret/task:v1")) && message.contains("no basic auth"),
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
fn a_policy_says_when_to_pull_and_what_to_do_without() {
    let (stage, mut shelf) = (Stage::new(), Shelf::new());
    shelf.task("task:v1", "old\n", NATIVE);
    shelf.agent("agent:v1");
    let spec = shelf.spec(&stage, "task:v1", "agent:v1");
    let host = shelf.host.clone();
    let failed = |what: &str| {
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
    failed(&format!("is not on this engine for linux/{NATIVE}, and the pull policy is never"));
    assert_eq!(lines(&worker, "pull started"), Vec::<String>::new());
    assert!(!shelf.has("task:v1") && !shelf.has("agent:v1"));
    stage.stop(worker);

    let worker = with_policy(&stage, "missing");
    works("old\n");
    shelf.task("task:v1", "new\n", NATIVE);
    works("old\n");
    assert_eq!(lines(&worker, "pull started").len(), 2, "each image once, for the first task");
    stage.stop(worker);

    let worker = with_policy(&stage, "auto");
    works("new\n");
    let pulls = lines(&worker, "pull started").len();
    drop(shelf.registry.take());
    works("new\n");
    let warned = lines(&worker, "pull failed, local image used");
    assert_eq!(warned.len(), 2, "{warned:#?}");
    assert!(
        warned.iter().all(|line| line.contains("WARN") && line.contains("task=") && line.contains("error="))
    );
    assert_eq!((pulls, lines(&worker, "pull started").len()), (2, 4));
    stage.stop(worker);

    let worker = with_policy(&stage, "always");
    failed("connection refused");
    stage.stop(worker);

    let worker = with_policy(&stage, "never");
    works("new\n");
    assert_eq!(lines(&worker, "pull started"), Vec::<String>::new());
    stage.stop(worker);
}

#[test]
fn an_image_for_another_platform_is_refused_whether_it_was_there_or_not() {
    let (stage, shelf) = (Stage::new(), Shelf::new());
    shelf.task("foreign:v1", "x", EXTERNAL);
    let foreign = shelf.name("foreign:v1");
    let refused = format!("is for linux/{EXTERNAL}, and this engine runs linux/{NATIVE}");
    let absent = format!("is not on this engine for linux/{NATIVE}");
    for (policy, what) in
        [("always", &refused), ("auto", &refused), ("missing", &refused), ("never", &absent)]
    {
        let worker = with_policy(&stage, policy);
        let mut spec = stage.spec("cat /text");
        // The one that comes first is told, so with `always`, which finds no other here, both are the same.
        let agent = if policy == "always" { foreign.clone() } else { stage.sidecar_image.clone() };
        (spec.docker_image, spec.sidecar_image) = (Some(foreign.clone()), agent);
        let run = stage.run(&spec);
        assert_eq!(run.failure_reason.as_deref(), Some("image_pull"), "{policy}");
        let message = run.message.unwrap();
        assert!(message.contains(&foreign) && message.contains(what.as_str()), "{policy}: {message}");
        assert_eq!(lines(&worker, "container created"), Vec::<String>::new());
        stage.stop(worker);
    }
}

#[test]
fn a_pull_that_ends_half_way_is_a_failed_pull() {
    let (stage, shelf) = (Stage::new(), Shelf::new());
    let (_, layer) = shelf.task("half:v1", &"half ".repeat(100_000), NATIVE);
    shelf.registry().break_blob(&layer);
    let worker = with_policy(&stage, "auto");
    let mut spec = shelf.spec(&stage, "half:v1", "agent:v1");
    spec.sidecar_image = stage.sidecar_image.clone();
    let run = stage.run(&spec);
    assert_eq!((run.state, run.failure_reason.as_deref()), (State::Failed, Some("image_pull")));
    assert!(run.message.unwrap().contains(&shelf.name("half:v1")));
    assert!(shelf.registry().answered("GET", &format!("/v2/half/blobs/{layer}")) > 0, "it had begun");
    assert!(!shelf.has("half:v1"));
    stage.stop(worker);
}
