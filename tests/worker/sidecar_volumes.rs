//! Sidecar volumes: filled once per image version, refilled when incomplete or missing, and removed when old.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::engine::encode;
use crate::support::images::{AGENT, Images, Layout, RootFs};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};

/// Makes a version of the sidecar image. All versions have the same name, which is returned.
fn version(stage: &mut Stage, number: usize) -> String {
    let root = RootFs::sidecar(Layout::Root, AGENT).file("version", 0o644, number.to_string());
    stage.images.make("versions", root, &[])
}

/// Returns the names of this worker's volumes, sorted.
fn volumes(stage: &Stage) -> Vec<String> {
    let mut names = stage.engine.volumes_of(&stage.worker_id);
    names.sort();
    names
}

/// Returns the only volume that is not in `before`.
fn newest(stage: &Stage, before: &[String]) -> String {
    let new: Vec<String> = volumes(stage).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0].clone()
}

/// Waits for the next second. The engine reports creation times in whole seconds, and the test needs them to differ.
fn wait_next_second(stage: &Stage) {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = second();
    stage.wait("the next second begins", || second() > before);
}

/// Only volumes that are old, unused and this worker's are removed.
#[test]
fn old_versions_are_removed_but_not_those_in_use_or_of_other_workers() {
    let mut stage = Stage::new();
    let sync = SyncDir::new();
    let name = version(&mut stage, 1);
    let foreign = format!("oz-sidecar-foreign-{}", stage.worker_id);
    let labels = json!({"oz-worker-id": format!("{}-other", stage.worker_id), "oz-sidecar-image": name});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": foreign, "Labels": labels}));
    // An empty volume of the same image, as an interrupted worker leaves it.
    let empty = format!("oz-sidecar-empty-{}", stage.worker_id);
    let labels = json!({"oz-worker-id": stage.worker_id, "oz-sidecar-image": name});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": empty, "Labels": labels}));
    // A volume of another image.
    let another = format!("oz-sidecar-another-{}", stage.worker_id);
    let labels = json!({"oz-worker-id": stage.worker_id, "oz-sidecar-image": "another:test"});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": another, "Labels": labels}));

    let worker = stage.start(stage.worker().args(["--keep-sidecar-volumes", "2", "-v", &sync.mount()]));
    let mut spec = stage.spec(&format!("echo up >> /sync/log; {WAIT}; cat /agent/version"));
    spec.sidecar_image = name.clone();
    let before = volumes(&stage);
    let long = stage.plane.submit(&spec);
    sync.wait_lines(&stage, 1);
    let mut made = vec![newest(&stage, &before)];
    for number in 2..=5 {
        wait_next_second(&stage);
        assert_eq!(version(&mut stage, number), name);
        spec.env_vars.insert("OZ_TEST_SCRIPT".into(), "cat /agent/version".into());
        let before = volumes(&stage);
        assert_eq!(stage.run(&spec).output, Some(number.to_string()));
        made.push(newest(&stage, &before));
    }
    // The first is in use, the second and third are old, and the fourth and fifth are kept.
    let mut left = vec![made[0].clone(), made[3].clone(), made[4].clone(), another.clone()];
    left.sort();
    assert_eq!(volumes(&stage), left, "{made:?} {:#?}", worker.stderr().all());
    assert!(stage.engine.volume_names().contains(&foreign));
    let removed = |name: &String| format!("volume={name} image=");
    for name in [&empty, &made[1], &made[2]] {
        worker.wait_log(DEADLINE, |line| {
            line.contains("sidecar volume removed") && line.contains(&removed(name))
        });
    }
    sync.release(1);
    assert_eq!(stage.plane.wait_ended(&long).output.as_deref(), Some("1"));
    stage.engine.remove_volume(&foreign);
    stage.wait_no_containers();
    stage.stop(worker);
}

#[test]
fn the_volume_of_a_version_that_is_used_again_is_filled_again() {
    let mut stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--keep-sidecar-volumes", "1"]));
    let mut spec = stage.spec("cat /agent/version");
    let mut other = Images::new(&stage.engine, "oz-versions");
    spec.sidecar_image = version(&mut stage, 1);
    let first = image_id(&stage, &spec.sidecar_image);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("1"));
    // Without another name the first version would be removed when the second takes its name.
    let (repository, tag) = (other.make("first", RootFs::default(), &[]), "kept");
    let repository = repository.rsplit_once(':').unwrap().0.to_owned();
    stage.engine.json("POST", &format!("/images/{first}/tag?repo={repository}&tag={tag}"), &Value::Null);
    version(&mut stage, 2);
    // A container keeps its volume until its report is settled.
    stage.wait_no_containers();
    assert_eq!(stage.run(&spec).output.as_deref(), Some("2"));
    assert_eq!(volumes(&stage).len(), 1);
    stage.wait_no_containers();
    let (repository, tag) = spec.sidecar_image.rsplit_once(':').unwrap();
    stage.engine.json("POST", &format!("/images/{first}/tag?repo={repository}&tag={tag}"), &Value::Null);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("1"));
    assert_eq!(volumes(&stage).len(), 1);
    stage.engine.remove_image(&first);
    stage.stop(worker);
}

/// Returns the id of an image.
fn image_id(stage: &Stage, image: &str) -> String {
    let path = format!("/images/{}/json", encode(image));
    stage.engine.json("GET", &path, &Value::Null)["Id"].as_str().unwrap().to_owned()
}

/// Creates the shared volume of an image with these files. Returns its name.
fn create_volume(stage: &Stage, image_id: &str, files: RootFs) -> String {
    let volume = format!("oz-sidecar-{}", image_id.trim_start_matches("sha256:").get(..32).unwrap());
    let labels = json!({"oz-worker-id": stage.worker_id});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": volume, "Labels": labels}));
    let helper = json!({"Image": stage.task_image, "HostConfig": {"Mounts":
        [{"Type": "volume", "Source": volume, "Target": "/v", "VolumeOptions": {"NoCopy": true}}]}});
    let helper = stage.engine.json("POST", "/containers/create", &helper)["Id"].as_str().unwrap().to_owned();
    let path = format!("/containers/{helper}/archive?path=/v");
    assert_eq!(stage.engine.request("PUT", &path, &[], &files.finish()).status, 200);
    stage.engine.remove_container(&helper);
    volume
}

/// A worker that was interrupted leaves files without the marker file.
#[test]
fn a_volume_without_its_marker_is_filled_again_before_it_is_used() {
    let stage = Stage::new();
    let half = RootFs::default().file("entrypoint.sh", 0o755, "echo half of it");
    let volume = create_volume(&stage, &image_id(&stage, &stage.sidecar_image), half);
    // The interrupted worker also left its helper container, whose name must be unique.
    let left = json!({"Image": stage.task_image, "Labels": {"oz-worker-id": stage.worker_id}});
    stage.engine.json("POST", &format!("/containers/create?name=oz-fill-{volume}"), &left);
    let worker = stage.start_worker();
    assert_eq!(stage.run(&stage.spec("echo whole")).output.as_deref(), Some("whole\n"));
    stage.stop(worker);
}

/// An image that was made from a filled volume has the marker of the other image.
#[test]
fn the_marker_of_another_image_does_not_count() {
    let mut stage = Stage::new();
    let root = RootFs::sidecar(Layout::Root, AGENT).file(".oz-sidecar-complete", 0o444, "sha256:other");
    let image = stage.images.make("copied", root, &[]);
    // An interrupted fill.
    let half = RootFs::default().file(".oz-sidecar-complete", 0o444, "sha256:other").file(
        "entrypoint.sh",
        0o755,
        "echo half of it",
    );
    create_volume(&stage, &image_id(&stage, &image), half);
    let worker = stage.start_worker();
    let mut spec = stage.spec("echo whole");
    spec.sidecar_image = image;
    for _ in 0..2 {
        assert_eq!(stage.run(&spec).output.as_deref(), Some("whole\n"));
    }
    stage.stop(worker);
}

/// Its volumes have no marker with the image's digest in the name.
#[test]
fn a_volume_that_release_0_1_filled_is_used_as_it_is() {
    let stage = Stage::new();
    let id = image_id(&stage, &stage.sidecar_image);
    let whole = RootFs::sidecar(Layout::Root, AGENT).file(".oz-sidecar-complete", 0o444, id.clone());
    create_volume(&stage, &id, whole);
    let worker = stage.start_worker();
    for _ in 0..2 {
        assert_eq!(stage.run(&stage.spec("echo out")).output.as_deref(), Some("out\n"));
    }
    let log = worker.stderr().all().join("\n");
    assert!(!log.contains("sidecar volume filling") && !log.contains("sidecar volume vanished"), "{log}");
    stage.stop(worker);
}

#[test]
fn links_of_a_sidecar_are_followed_as_in_the_tasks_container() {
    let mut stage = Stage::new();
    let worker = stage.start_worker();
    // In the image the link leads to the script, in the task to itself.
    let nested = RootFs::sidecar(Layout::Nested, AGENT).link("entrypoint.sh", "/agent/entrypoint.sh");
    let relative = RootFs::sidecar(Layout::None, AGENT)
        .file("lib/run.sh", 0o755, AGENT)
        .link("entrypoint.sh", "lib/run.sh");
    for (name, root) in [("nested", nested), ("relative", relative)] {
        let mut spec = stage.spec("echo runs");
        spec.sidecar_image = stage.images.make(name, root, &[]);
        let run = stage.run(&spec);
        assert_eq!(run.output.as_deref(), Some("runs\n"), "{name}: {:?}", run.message);
    }
    let outside = RootFs::sidecar(Layout::None, AGENT)
        .folder("usr", 0o755)
        .folder("usr/bin", 0o755)
        .file("usr/bin/x", 0o755, AGENT)
        .link("entrypoint.sh", "/usr/bin/x");
    let mut spec = stage.spec("echo runs");
    spec.sidecar_image = stage.images.make("outside", outside, &[]);
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("sidecar_prep"));
    assert!(run.message.as_deref().unwrap().contains("has no entrypoint.sh"), "{:?}", run.message);
    stage.stop(worker);
}

#[test]
fn volumes_that_images_declare_below_the_sidecar_s_folder() {
    let mut stage = Stage::new();
    let worker = stage.start_worker();
    let root = RootFs::sidecar(Layout::Root, AGENT);
    let mut spec = stage.spec("cat /agent/lib/data.txt");
    spec.sidecar_image = stage.images.make("declares", root, &["VOLUME /agent/lib"]);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("data\n"));
    // The sidecar's volume is read-only, so the engine cannot mount another volume in it.
    let mut spec = stage.spec("true");
    spec.docker_image =
        Some(stage.images.make("data", RootFs::busybox(), &["ENV PATH=/bin", "VOLUME /agent/data"]));
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("container_create"));
    let message = run.message.unwrap();
    assert!(message.contains("agent/data"), "{message}");
    stage.stop(worker);
}

#[test]
fn a_volume_that_was_removed_while_the_worker_runs_is_filled_again() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    for _ in 0..2 {
        assert_eq!(stage.run(&stage.spec("echo fine")).output.as_deref(), Some("fine\n"));
        stage.wait_no_containers();
        for volume in stage.engine.volumes_of(&stage.worker_id) {
            stage.engine.remove_volume(&volume);
        }
    }
    assert!(worker.stderr().all().iter().any(|line| line.contains("sidecar volume vanished")));
    stage.stop(worker);
}
