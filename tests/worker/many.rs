//! Many tasks at once, and volumes under pressure.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{DEADLINE, Stage};
use crate::support::control_plane::{Options, State};
use crate::support::engine::encode;
use crate::support::images::{AGENT, Layout, Root};

#[test]
fn a_hundred_tasks_on_eight_slots_are_all_reported_and_nothing_is_left() {
    // Short, so that what the backlog has no room for comes again soon.
    let stage = Stage::with(Options { claim_timeout: Duration::from_secs(5), ..Options::default() });
    let worker = stage.connected(stage.worker().args(["--max-concurrent-tasks", "8"]));
    let spec = stage.spec("echo $TASK_ID; exit 0");
    let ids: Vec<String> = (0..100).map(|_| stage.plane.submit(&spec)).collect();
    stage.plane.wait_for(DEADLINE * 2, |world| world.runs.iter().all(|run| run.state.ended()));
    for id in &ids {
        let run = stage.plane.run(id);
        assert_eq!((run.state, run.terminal_reports), (State::Succeeded, 1), "{run:#?}");
        assert_eq!(run.output, Some(format!("{id}\n")));
    }
    stage.wait_no_containers();
    assert_eq!(stage.engine.volumes_of(&stage.worker_id).len(), 1, "one sidecar, one volume");
    let lines = worker.stderr().all();
    assert_eq!(lines.iter().filter(|line| line.contains("sidecar volume filling")).count(), 1);
    stage.stop(worker);
}

#[test]
fn ten_tasks_that_need_the_same_missing_volume_all_succeed_also_beside_another_worker() {
    let mut stage = Stage::new();
    let name = stage.images.make("heavy", heavy(), &[]);
    let other_id = format!("{}-other", stage.worker_id);
    let one = stage.connected(stage.worker().args(["--max-concurrent-tasks", "10"]));
    let other = crate::support::worker::Worker::with(&stage.plane, &other_id);
    let other = stage.connected(other.args(["--pull", "missing", "--max-concurrent-tasks", "10"]));
    let mut spec = stage.spec("md5sum < /agent/lib/big");
    spec.sidecar_image = name;
    let ids: Vec<String> = (0..20).map(|_| stage.plane.submit(&spec)).collect();
    let outputs: BTreeSet<_> =
        ids.iter().map(|id| stage.plane.wait_state(id, State::Succeeded).output).collect();
    assert_eq!(outputs.len(), 1, "all saw the same whole file: {outputs:?}");
    let workers: BTreeSet<_> = ids.iter().map(|id| stage.plane.run(id).worker).collect();
    assert_eq!(workers.len(), 2, "both workers took part");
    let logs = [one.stderr().all(), other.stderr().all()].concat();
    assert_eq!(logs.iter().filter(|line| line.contains("sidecar volume ready")).count(), 1, "{logs:#?}");
    stage.wait_no_containers();
    stage.stop(other);
    stage.wait("nothing of the other is left", || stage.engine.containers_of(&other_id).is_empty());
    stage.stop(one);
    for volume in stage.engine.volumes_of(&other_id) {
        stage.engine.remove_volume(&volume);
    }
}

/// A filling that was cut leaves files without the marker: the next task fills the volume again before it uses it.
#[test]
fn a_volume_without_its_marker_is_filled_again() {
    let stage = Stage::new();
    let image = format!("/images/{}/json", encode(&stage.sidecar_image));
    let id = stage.engine.json("GET", &image, &Value::Null)["Id"].as_str().unwrap().to_owned();
    let volume = format!("oz-sidecar-{}", id.trim_start_matches("sha256:").get(..32).unwrap());
    let labels = json!({"oz-worker-id": stage.worker_id});
    stage.engine.json("POST", "/volumes/create", &json!({"Name": volume, "Labels": labels}));
    let helper = json!({"Image": stage.task_image, "HostConfig": {"Mounts":
        [{"Type": "volume", "Source": volume, "Target": "/v", "VolumeOptions": {"NoCopy": true}}]}});
    let helper = stage.engine.json("POST", "/containers/create", &helper)["Id"].as_str().unwrap().to_owned();
    let broken = Root::default().file("entrypoint.sh", 0o755, "echo half of it").finish();
    let path = format!("/containers/{helper}/archive?path=/v");
    assert_eq!(stage.engine.request("PUT", &path, &[], &broken).status, 200);
    stage.engine.remove_container(&helper);
    // And a helper that the cut filling has left, under the name that only one may have.
    let left = json!({"Image": stage.task_image, "Labels": labels});
    stage.engine.json("POST", &format!("/containers/create?name=oz-fill-{volume}"), &left);
    let worker = stage.started();
    assert_eq!(stage.run(&stage.spec("echo whole")).output.as_deref(), Some("whole\n"));
    stage.stop(worker);
}

#[test]
fn a_volume_that_was_removed_behind_the_workers_back_is_made_again() {
    let stage = Stage::new();
    let worker = stage.started();
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

/// A container that an earlier process of the worker has left does not stand in the way of the same run; one of
/// somebody else is not touched.
#[test]
fn a_container_of_the_same_name_is_replaced_only_when_it_is_our_own() {
    let stage = Stage::new();
    let worker = stage.started();
    let mut spec = stage.spec("echo again");
    spec.id = Some(format!("named-{}", stage.worker_id));
    let id = stage.plane.submit(&spec);
    assert_eq!(stage.plane.wait_ended(&id).state, State::Succeeded);
    let created = worker.wait_log(DEADLINE, |line| line.contains("container created"));
    let name = created.split_once("container=").unwrap().1.split(' ').next().unwrap().to_owned();
    stage.wait_no_containers();
    let left =
        json!({"Image": stage.task_image, "Labels": {"oz-worker-id": stage.worker_id, "oz-task-id": id}});
    let path = format!("/containers/create?name={name}");
    stage.engine.json("POST", &path, &left);
    let again = json!({"type": "task_assignment", "data": spec.assignment(&id)}).to_string();
    stage.plane.send_text(again.clone());
    stage.plane.wait_for(DEADLINE, |world| world.run(&id).is_some_and(|run| run.terminal_reports == 2));
    let report = stage.plane.run(&id).history.last().unwrap().data.clone();
    assert_eq!((&report["output"], &report["exit_code"]), (&json!("again\n"), &json!(0)));
    stage.wait_no_containers();
    let foreign = json!({"Image": stage.task_image, "Labels": {"oz-worker-id": "somebody else"}});
    let foreign = stage.engine.json("POST", &path, &foreign)["Id"].as_str().unwrap().to_owned();
    stage.plane.send_text(again);
    stage.plane.wait_for(DEADLINE, |world| world.run(&id).is_some_and(|run| run.terminal_reports == 3));
    let report = stage.plane.run(&id).history.last().unwrap().data.clone();
    assert_eq!(report["failure_reason"], "container_create");
    assert_eq!(stage.engine.request("GET", &format!("/containers/{foreign}/json"), &[], &[]).status, 200);
    stage.engine.remove_container(&foreign);
    stage.stop(worker);
}

/// Takes long enough to unpack for others to come meanwhile.
fn heavy() -> Root {
    let big: Vec<u8> =
        (0..32_u32 << 20).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    Root::sidecar(Layout::Root, AGENT).file("lib/big", 0o644, big)
}
