//! Adoption and the late sweep: objects of an earlier process are found or removed, all others stay.

use std::collections::BTreeSet;

use oz_agent_worker::docker::Docker;
use oz_agent_worker::job::AdoptedTask;
use oz_agent_worker::protocol::{Dialect, ExecutionKey};
use oz_agent_worker::sys::cancel::{CancelReason, CancelToken};
use oz_agent_worker::task::adopt::{self, Found, LateSwept};
use oz_agent_worker::task::processes::Processes;
use serde_json::{Value, json};

use crate::docker::endpoint_at;
use crate::support::control_plane::run::new_id;
use crate::support::engine::Engine;
use crate::support::fake_docker::client;
use crate::support::images::{Images, RootFs};
use crate::support::stage::container_name;

const MARKER: &str = ".oz-sidecar-complete";

/// An engine with objects of two workers, removed on drop.
struct Scene {
    engine: Engine,
    image: String,
    _images: Images,
    /// The suffix of every name: other tests use the same engine.
    tag: String,
    ours: String,
    theirs: String,
}

impl Scene {
    fn new() -> Self {
        let engine = Engine::get();
        let mut images = Images::new(&engine, "oz-adopt");
        let image = images.task();
        let tag = new_id();
        // One name is a prefix of the other, to catch a comparison by prefix.
        let ours = format!("w-{tag}");
        let theirs = format!("w-{tag}-2");
        Self { engine, image, _images: images, tag, ours, theirs }
    }

    fn name(&self, name: &str) -> String {
        format!("{name}-{}", self.tag)
    }

    /// Creates a container of `worker` and `task` that runs `script`. Returns its id.
    fn container(
        &self,
        name: &str,
        worker: &str,
        task: Option<&str>,
        script: &str,
        volumes: &[&str],
    ) -> String {
        self.labelled(name, &labels(worker, task, None), script, volumes)
    }

    /// Like `container`, with any labels.
    fn labelled(&self, name: &str, labels: &Value, script: &str, volumes: &[&str]) -> String {
        let mounts: Vec<Value> = volumes
            .iter()
            .enumerate()
            .map(|(index, volume)| {
                let target = if index == 0 { "/oz-sidecar-volume".to_owned() } else { format!("/m{index}") };
                json!({"Type": "volume", "Source": volume, "Target": target, "VolumeOptions": {"NoCopy": true}})
            })
            .collect();
        let spec = json!({"Image": self.image, "Entrypoint": ["/bin/sh", "-c", script], "Labels": labels,
            "HostConfig": {"Mounts": mounts, "NetworkMode": "none"}});
        let created = self.engine.json("POST", &format!("/containers/create?name={name}"), &spec);
        created["Id"].as_str().unwrap().to_owned()
    }

    fn start(&self, id: &str) {
        self.engine.json("POST", &format!("/containers/{id}/start"), &Value::Null);
    }

    /// Creates a container that has exited.
    fn exited(&self, name: &str, worker: &str, task: &str, volumes: &[&str]) -> String {
        let id = self.container(name, worker, Some(task), "exit 3", volumes);
        self.start(&id);
        self.engine.json("POST", &format!("/containers/{id}/wait"), &Value::Null);
        id
    }

    /// Creates a running container.
    fn running(&self, name: &str, worker: &str, task: &str) -> String {
        let id = self.container(name, worker, Some(task), "sleep 600", &[]);
        self.start(&id);
        id
    }

    fn volume(&self, name: &str, worker: &str, task: Option<&str>) -> String {
        self.labelled_volume(name, &labels(worker, task, None))
    }

    fn labelled_volume(&self, name: &str, labels: &Value) -> String {
        let name = self.name(name);
        self.engine.json("POST", "/volumes/create", &json!({"Name": name, "Labels": labels}));
        name
    }

    /// Creates the objects that a killed process leaves while filling `volume`, with the marker if `complete`.
    fn filler(&self, worker: &str, volume: &str, complete: bool) -> [String; 2] {
        let name = format!("oz-fill-{volume}");
        let id = self.container(&name, worker, None, "", &[volume]);
        let root = RootFs::default().file("half", 0o644, "x");
        // The name of a shared volume has the beginning of its image's id.
        let image = format!("sha256:{}ffff", volume.trim_start_matches("oz-sidecar-"));
        let root = if complete { root.file(MARKER, 0o444, image) } else { root };
        let path = format!("/containers/{id}/archive?path=/oz-sidecar-volume");
        let answer =
            self.engine.request("PUT", &path, &[("Content-Type", "application/x-tar")], &root.finish());
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        [id, self.container(&format!("{name}-source"), worker, None, "", &[])]
    }

    fn docker(&self) -> Docker {
        client(&CancelToken::new(), endpoint_at(self.engine.host()), None).unwrap()
    }

    fn find(&self) -> Vec<AdoptedTask> {
        self.find_all().tasks
    }

    fn find_all(&self) -> Found {
        let mut found =
            adopt::find(&self.docker(), &CancelToken::new(), &self.ours, &process(&new_id())).unwrap();
        found.tasks.sort_by(|a, b| a.key.cmp(&b.key));
        found.unstarted.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Returns the ids of both workers' containers.
    fn containers(&self) -> BTreeSet<String> {
        let both = [&self.ours, &self.theirs].map(|worker| self.engine.containers_of(worker));
        both.concat().iter().map(|container| container["Id"].as_str().unwrap().to_owned()).collect()
    }

    fn volumes(&self) -> BTreeSet<String> {
        [&self.ours, &self.theirs].map(|worker| self.engine.volumes_of(worker)).concat().into_iter().collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.containers().iter().for_each(|id| self.engine.remove_container(id));
        self.volumes().iter().for_each(|name| self.engine.remove_volume(name));
    }
}

/// Returns a process that runs until it is dropped.
fn process(id: &str) -> Processes {
    Processes::new(id).unwrap()
}

fn labels(worker: &str, task: Option<&str>, process: Option<&str>) -> Value {
    let mut labels = json!({"oz-worker-id": worker});
    for (name, id) in [("oz-task-id", task), ("oz-process-id", process)] {
        if let Some(id) = id {
            labels[name] = json!(id);
        }
    }
    labels
}

fn set<const N: usize>(names: [&String; N]) -> BTreeSet<String> {
    names.into_iter().cloned().collect()
}

#[test]
fn started_tasks_are_adopted_and_unstarted_ones_removed() {
    let scene = Scene::new();
    let ours = &scene.ours;
    let theirs = &scene.theirs;
    let task = |id: &str| container_name(ours, id, None);
    let own = scene.volume("own", ours, Some("b"));
    let shared = scene.volume("shared", ours, None);
    let running = scene.running(&task("a"), ours, "a");
    let exited = scene.exited(&task("b"), ours, "b", &[&own, &shared]);
    let ending = scene.running(&format!("{}.task_cancelled", task("c")), ours, "c");
    let ended = scene.exited(&format!("{}.graceful_shutdown", task("d")), ours, "d", &[]);
    let paused = scene.running(&task("e"), ours, "e");
    scene.engine.json("POST", &format!("/containers/{paused}/pause"), &Value::Null);
    let unstarted_volume = scene.volume("unstarted", ours, Some("f"));
    scene.container(&task("f"), ours, Some("f"), "", &[&unstarted_volume]);
    let kept_volume = scene.volume("kept", ours, Some("b"));
    let kept = scene.exited(&task("b").replace("oz-task-", "oz-kept-"), ours, "b", &[&kept_volume]);
    let own_by_hand = scene.container(&scene.name("by-hand"), ours, None, "", &[]);
    let others = [
        scene.running(&container_name(theirs, "a", None), theirs, "a"),
        scene.exited(&container_name(theirs, "b", None), theirs, "b", &[]),
        scene.container(&container_name(theirs, "c", None), theirs, Some("c"), "", &[]),
    ];

    let Found { tasks: found, unstarted } = scene.find_all();

    assert_eq!(unstarted, [(ExecutionKey::new("f", None), Dialect::Old)]);
    let entries: Vec<_> =
        found.iter().map(|one| (one.key.task_id.as_str(), one.container.as_str(), one.ended_for)).collect();
    let expected = [
        ("a", running.as_str(), None),
        ("b", &exited, None),
        ("c", &ending, Some(CancelReason::Requested)),
        ("d", &ended, Some(CancelReason::Shutdown)),
        ("e", &paused, None),
    ];
    assert_eq!(entries, expected);
    assert_eq!(found[1].volumes, std::slice::from_ref(&own), "the task's own, not those that all share");
    // The engine tells its time in whole seconds, so that a running time may be zero.
    assert!(found.iter().filter_map(|one| one.ran).all(|ran| ran.as_secs() < 600), "{found:?}");
    let runs: Vec<bool> = found.iter().map(|one| one.ran.is_some()).collect();
    assert_eq!(runs, [true, false, true, false, true], "an ended task has no running time");
    let [x, y, z] = &others;
    let stay = [&running, &exited, &ending, &ended, &paused, &kept, &own_by_hand, x, y, z];
    assert_eq!(scene.containers(), set(stay));
    assert_eq!(scene.volumes(), set([&own, &shared, &kept_volume]));
    assert_eq!(scene.find().len(), 5, "a second search finds the same");
}

#[test]
fn half_filled_volumes_are_removed_with_their_helpers_except_those_of_another_worker() {
    let scene = Scene::new();
    let ours = &scene.ours;
    let theirs = &scene.theirs;
    let half = scene.volume("oz-sidecar-half", ours, None);
    let full = format!("oz-sidecar-{}", scene.tag.replace('-', ""));
    let body = json!({"Name": full, "Labels": labels(ours, None, None)});
    scene.engine.json("POST", "/volumes/create", &body);
    // An image that was made from a filled volume, and whose own fill was interrupted.
    let copied = scene.volume("oz-sidecar-copied", ours, None);
    let idle = scene.volume("oz-sidecar-idle", ours, None);
    let used = scene.volume("oz-sidecar-used", ours, None);
    let of_theirs = scene.volume("oz-sidecar-lent", theirs, None);
    let filled_by_them = scene.volume("oz-sidecar-taken", ours, None);
    let gone = scene.volume("oz-task-gone-0", ours, Some("gone"));
    let not_ours = scene.volume("oz-task-other-0", theirs, Some("gone"));
    scene.filler(ours, &half, false);
    scene.filler(ours, &full, true);
    scene.filler(ours, &copied, true);
    scene.filler(ours, &used, false);
    scene.filler(ours, &of_theirs, false);
    let [filler, source] = scene.filler(theirs, &filled_by_them, false);
    // Another container holds a half-filled volume, so the engine refuses to remove it.
    let user = scene.container(&scene.name("user"), theirs, None, "", &[&used]);

    assert_eq!(scene.find(), []);

    assert_eq!(scene.containers(), set([&filler, &source, &user]));
    assert_eq!(scene.volumes(), set([&full, &idle, &used, &of_theirs, &filled_by_them, &not_ours]));
    let left = scene.volumes();
    assert!([&gone, &half, &copied].iter().all(|name| !left.contains(*name)));
}

/// A fill that failed left the volume without a helper, and the disk full.
#[test]
fn the_late_sweep_removes_shared_volumes_that_were_not_filled_to_their_end() {
    let scene = Scene::new();
    let (ours, theirs) = (&scene.ours, &scene.theirs);
    let mut of_an_image = labels(ours, None, None);
    of_an_image["oz-sidecar-image"] = json!(scene.image);
    let half = scene.labelled_volume("oz-sidecar-half", &of_an_image);
    let used = scene.labelled_volume("oz-sidecar-used", &of_an_image);
    let user = scene.container(&scene.name("user"), theirs, None, "", &[&used]);
    let filling = scene.labelled_volume("oz-sidecar-filling", &of_an_image);
    let [filler, source] = scene.filler(theirs, &filling, false);
    let full = format!("oz-sidecar-{}", scene.tag.replace('-', ""));
    scene.engine.json("POST", "/volumes/create", &json!({"Name": full, "Labels": of_an_image}));
    let [full_filler, full_source] = scene.filler(ours, &full, true);
    [full_filler, full_source].iter().for_each(|id| scene.engine.remove_container(id));
    of_an_image["oz-sidecar-image"] = json!("oz-no-such-image:1");
    let unknown = scene.labelled_volume("oz-sidecar-unknown", &of_an_image);

    adopt::late_sweep(&scene.docker(), &CancelToken::new(), ours, &process(&new_id())).unwrap();

    assert_eq!(scene.volumes(), set([&used, &filling, &full, &unknown]));
    assert!(!scene.volumes().contains(&half));
    assert_eq!(scene.containers(), set([&user, &filler, &source]));
}

/// Requests of a killed process take effect late, while the next process already creates containers.
#[test]
fn the_late_sweep_removes_only_late_objects_of_an_earlier_process() {
    let scene = Scene::new();
    assert_eq!(scene.find(), []);
    let ours = &scene.ours;
    let theirs = &scene.theirs;
    let task = |id: &str| container_name(ours, id, None);
    let of = |task, process| labels(ours, task, process);
    let [before, now, runs] = ["before", "now", "runs"].map(|name| scene.name(name));
    let sibling = process(&runs);
    let [before, now, runs] = [&before, &now, &runs].map(|id| Some(id.as_str()));
    // Late: a task with its own volume, a refilled volume and one that another container holds; and helpers.
    let own = scene.labelled_volume("own", &of(Some("a"), before));
    let refilled = scene.labelled_volume("refilled", &of(Some("a"), now));
    let held = scene.labelled_volume("held", &of(Some("a"), before));
    let of_sibling = scene.labelled_volume("sibling", &of(Some("h"), runs));
    let shared = scene.volume("oz-sidecar-shared", ours, None);
    scene.labelled(&task("a"), &of(Some("a"), before), "", &[&own, &refilled, &held, &shared]);
    let filler = scene.name("oz-fill-late");
    scene.labelled(&filler, &of(None, before), "", &[&shared]);
    scene.labelled(&format!("{filler}-source"), &of(None, before), "", &[]);
    // Everything else.
    let started = |name: &str, script: &str| {
        let id = scene.labelled(&task(name), &labels(ours, Some(name), before), script, &[]);
        scene.start(&id);
        id
    };
    let running = started("b", "sleep 600");
    let exited = started("c", "exit 3");
    scene.engine.json("POST", &format!("/containers/{exited}/wait"), &Value::Null);
    let stay = [
        running,
        exited,
        scene.labelled(&task("d"), &of(Some("d"), now), "", &[&held]),
        scene.labelled(&scene.name("oz-fill-now"), &of(None, now), "", &[]),
        scene.container(&task("e"), ours, Some("e"), "", &[]),
        scene.container(&scene.name("oz-fill-unlabelled"), ours, None, "", &[]),
        scene.labelled(&container_name(theirs, "f", None), &labels(theirs, Some("f"), before), "", &[]),
        scene.labelled(&scene.name("oz-fill-theirs"), &labels(theirs, None, before), "", &[]),
        scene.labelled(&task("g").replace("oz-task-", "oz-kept-"), &of(Some("g"), before), "", &[]),
        scene.labelled(&scene.name("by-hand"), &of(None, before), "", &[]),
        scene.labelled(&task("h"), &of(Some("h"), runs), "", &[&of_sibling]),
        scene.labelled(&scene.name("oz-fill-runs"), &of(None, runs), "", &[]),
    ];

    let docker = scene.docker();
    let cancel = CancelToken::new();
    let this = process(now.unwrap());
    // The runs of the tasks that it removes are looked up.
    let swept =
        |id| LateSwept { unstarted: vec![(ExecutionKey::new(id, None), Dialect::Old)], is_complete: true };
    assert_eq!(adopt::late_sweep(&docker, &cancel, ours, &this).unwrap(), swept("a"));

    assert_eq!(scene.containers(), BTreeSet::from(stay));
    assert_eq!(scene.volumes(), set([&refilled, &held, &shared, &of_sibling]));
    assert_eq!(scene.engine.containers_of(ours).len(), 10);
    // Once the other process has ended, its objects go, too.
    drop(sibling);
    assert_eq!(adopt::late_sweep(&docker, &cancel, ours, &this).unwrap(), swept("h"));
    assert_eq!(scene.engine.containers_of(ours).len(), 8);
    assert_eq!(scene.volumes(), set([&refilled, &held, &shared]));
}

/// Another process with the same worker's id runs: its tasks, helpers, volumes and unstarted containers are not touched.
#[test]
fn a_search_leaves_the_objects_of_a_process_that_runs() {
    let scene = Scene::new();
    let ours = &scene.ours;
    let id = scene.name("runs");
    let sibling = process(&id);
    let of = |task| labels(ours, task, Some(&id));
    let own = scene.labelled_volume("own", &of(Some("a")));
    let unused = scene.labelled_volume("unused", &of(Some("b")));
    let half = scene.volume("oz-sidecar-half", ours, None);
    let task = |id: &str| container_name(ours, id, None);
    let running = scene.labelled(&task("a"), &of(Some("a")), "sleep 600", &[&own]);
    scene.start(&running);
    let unstarted = scene.labelled(&task("c"), &of(Some("c")), "", &[]);
    let filler = scene.labelled(&format!("oz-fill-{half}"), &of(None), "", &[&half]);
    let source = scene.labelled(&format!("oz-fill-{half}-source"), &of(None), "", &[]);
    let containers = set([&running, &unstarted, &filler, &source]);
    let volumes = set([&own, &unused, &half]);
    for _ in 0..2 {
        assert_eq!(scene.find(), []);
        assert_eq!((scene.containers(), scene.volumes()), (containers.clone(), volumes.clone()));
    }
    drop(sibling);
    let found = scene.find();
    assert_eq!(found.iter().map(|one| &one.container).collect::<Vec<_>>(), [&running]);
    assert_eq!((scene.containers(), scene.volumes()), (set([&running]), set([&own])));
}

#[test]
fn a_failed_engine_call_is_an_error_and_removes_nothing() {
    let cancelled = CancelToken::new();
    cancelled.cancel(CancelReason::Shutdown);
    let scene = Scene::new();
    let running = scene.running(&container_name(&scene.ours, "a", None), &scene.ours, "a");
    let docker = scene.docker();
    let this = process(&new_id());
    assert!(adopt::find(&docker, &cancelled, &scene.ours, &this).unwrap_err().is_cancelled());
    assert!(adopt::late_sweep(&docker, &cancelled, &scene.ours, &this).unwrap_err().is_cancelled());
    assert_eq!(scene.containers(), set([&running]));
}
