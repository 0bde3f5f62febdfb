//! Many tasks at once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::control_plane::{Options, State};
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::stage::{DEADLINE, Stage};

#[test]
fn a_hundred_tasks_on_eight_slots_are_all_reported_and_cleaned_up() {
    // Short, so that tasks that do not fit into the backlog are soon sent again.
    let stage = Stage::with(Options { claim_timeout: Duration::from_secs(5), ..Options::default() });
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "8"]));
    let spec = stage.spec("echo $TASK_ID; exit 0");
    let ids: Vec<String> = (0..100).map(|_| stage.plane.submit(&spec)).collect();
    stage.plane.wait_for(DEADLINE * 2, |model| model.runs.iter().all(|run| run.state.ended()));
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
fn tasks_of_two_workers_that_need_the_same_missing_volume_share_it() {
    let mut stage = Stage::new();
    let name = stage.images.make("heavy", heavy(), &[]);
    let other_id = format!("{}-other", stage.worker_id);
    let one = stage.start(stage.worker().args(["--max-concurrent-tasks", "10"]));
    let other = stage.start(stage.worker_named(&other_id).args(["--max-concurrent-tasks", "10"]));
    let mut spec = stage.spec("md5sum < /agent/lib/big");
    spec.sidecar_image = name;
    let ids: Vec<String> = (0..20).map(|_| stage.plane.submit(&spec)).collect();
    let outputs: BTreeSet<_> =
        ids.iter().map(|id| stage.plane.wait_state(id, State::Succeeded).output).collect();
    assert_eq!(outputs.len(), 1, "all read the same complete file: {outputs:?}");
    let workers: BTreeSet<_> = ids.iter().map(|id| stage.plane.run(id).worker).collect();
    assert_eq!(workers.len(), 2, "both workers took part");
    let logs = [one.stderr().all(), other.stderr().all()].concat();
    assert_eq!(logs.iter().filter(|line| line.contains("sidecar volume ready")).count(), 1, "{logs:#?}");
    stage.wait_no_containers();
    stage.stop(other);
    stage.wait("the other worker left no container", || stage.engine.containers_of(&other_id).is_empty());
    stage.stop(one);
    for volume in stage.engine.volumes_of(&other_id) {
        stage.engine.remove_volume(&volume);
    }
}

/// Unpacking takes long enough for other tasks to arrive.
fn heavy() -> RootFs {
    let big: Vec<u8> =
        (0..32_u32 << 20).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    RootFs::sidecar(Layout::Root, AGENT).file("lib/big", 0o644, big)
}
