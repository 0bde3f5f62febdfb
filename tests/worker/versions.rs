//! Old versions of a sidecar image, and what is left of them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::gate::{Gate, PASS};
use super::{DEADLINE, Stage};
use crate::support::images::{AGENT, Images, Layout, Root};

/// A version of the sidecar image `name`, under its one name; the name.
fn version(stage: &mut Stage, number: usize) -> String {
    let root = Root::sidecar(Layout::Root, AGENT).file("version", 0o644, number.to_string());
    stage.images.make("versions", root, &[])
}

/// The volumes of this worker, by what is in them as their images' ids say.
fn volumes(stage: &Stage) -> Vec<String> {
    let mut names = stage.engine.volumes_of(&stage.worker_id);
    names.sort();
    names
}

/// The one that was not there before.
fn newest(stage: &Stage, before: &[String]) -> String {
    let new: Vec<String> = volumes(stage).into_iter().filter(|name| !before.contains(name)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0].clone()
}

/// An engine tells a volume's age in whole seconds, so those that are to be told apart are not made in the same one.
fn in_another_second(stage: &Stage) {
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = second();
    stage.wait("another second", || second() > before);
}

/// The first version is in use for the whole time, and another worker has one of its own of the same name; only what is old,
/// ours and free goes.
#[test]
fn old_versions_go_and_those_in_use_or_of_others_stay() {
    let (mut stage, gate) = (Stage::new(), Gate::new());
    let name = version(&mut stage, 1);
    let foreign = format!("oz-sidecar-foreign-{}", stage.worker_id);
    let labels = json!({"oz-worker-id": format!("{}-other", stage.worker_id), "oz-sidecar-image": name});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": foreign, "Labels": labels}));
    // A filling that was interrupted has left an empty one.
    let empty = format!("oz-sidecar-empty-{}", stage.worker_id);
    let labels = json!({"oz-worker-id": stage.worker_id, "oz-sidecar-image": name});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": empty, "Labels": labels}));
    // And this is nobody's version of it.
    let another = format!("oz-sidecar-another-{}", stage.worker_id);
    let labels = json!({"oz-worker-id": stage.worker_id, "oz-sidecar-image": "another:test"});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": another, "Labels": labels}));

    let worker = stage.connected(stage.worker().args(["--keep-sidecar-volumes", "2", "-v", &gate.mount()]));
    let mut spec = stage.spec(&format!("echo up >> /gate/log; {PASS}; cat /agent/version"));
    spec.sidecar_image = name.clone();
    let before = volumes(&stage);
    let long = stage.plane.submit(&spec);
    gate.wait_told(&stage, 1);
    let mut made = vec![newest(&stage, &before)];
    for number in 2..=5 {
        in_another_second(&stage);
        assert_eq!(version(&mut stage, number), name);
        spec.env_vars.insert("OZ_TEST_SCRIPT".into(), "cat /agent/version".into());
        let before = volumes(&stage);
        assert_eq!(stage.run(&spec).output, Some(number.to_string()));
        made.push(newest(&stage, &before));
    }
    // The first is in use, the second and the third are old, the fourth and the fifth are kept.
    let mut left = vec![made[0].clone(), made[3].clone(), made[4].clone(), another.clone()];
    left.sort();
    assert_eq!(volumes(&stage), left, "{made:?} {:#?}", worker.stderr().all());
    assert!(stage.engine.volume_names().contains(&foreign));
    let removed = |name: &String| format!("volume={name} image=");
    for gone in [&empty, &made[1], &made[2]] {
        worker.wait_log(DEADLINE, |line| {
            line.contains("sidecar volume removed") && line.contains(&removed(gone))
        });
    }
    gate.open(1);
    assert_eq!(stage.plane.wait_ended(&long).output.as_deref(), Some("1"));
    stage.engine.remove_volume(&foreign);
    stage.wait_no_containers();
    stage.stop(worker);
}

/// A version that comes back after its volume was removed is filled again.
#[test]
fn a_version_that_comes_back_is_whole_again() {
    let mut stage = Stage::new();
    let worker = stage.connected(stage.worker().args(["--keep-sidecar-volumes", "1"]));
    let mut spec = stage.spec("cat /agent/version");
    // Two images of one content are one: the id has the time of the import in it.
    let mut other = Images::new(&stage.engine, "oz-versions");
    spec.sidecar_image = version(&mut stage, 1);
    let id = |stage: &Stage| {
        let path = format!("/images/{}/json", crate::support::engine::encode(&spec.sidecar_image));
        stage.engine.json("GET", &path, &serde_json::Value::Null)["Id"].as_str().unwrap().to_owned()
    };
    let first = id(&stage);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("1"));
    // The first needs another name, or it would be gone with this one.
    let (repository, tag) = (other.make("first", Root::default(), &[]), "kept");
    let repository = repository.rsplit_once(':').unwrap().0.to_owned();
    stage.engine.json(
        "POST",
        &format!("/images/{first}/tag?repo={repository}&tag={tag}"),
        &serde_json::Value::Null,
    );
    version(&mut stage, 2);
    assert_eq!(stage.run(&spec).output.as_deref(), Some("2"));
    assert_eq!(volumes(&stage).len(), 1);
    let (repository, tag) = spec.sidecar_image.rsplit_once(':').unwrap();
    stage.engine.json(
        "POST",
        &format!("/images/{first}/tag?repo={repository}&tag={tag}"),
        &serde_json::Value::Null,
    );
    assert_eq!(stage.run(&spec).output.as_deref(), Some("1"));
    assert_eq!(volumes(&stage).len(), 1);
    stage.engine.remove_image(&first);
    stage.stop(worker);
}
