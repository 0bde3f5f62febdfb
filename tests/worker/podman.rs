//! Podman as the engine.

use serde_json::json;

use crate::support::control_plane::State;
use crate::support::images::Layout;
use crate::support::podman::Podman;
use crate::support::stage::{DEADLINE, StageBuilder};

#[test]
fn tasks_cancels_and_clean_up_work_on_podman() {
    let podman = Podman::start();
    let mut stage = StageBuilder::new("test").engine(podman.engine()).build();
    let nested = stage.images.sidecar(Layout::Nested);
    let worker = stage.start(stage.worker().args(["--max-concurrent-tasks", "4"]));

    // Several tasks at once that need the same missing volume, in both layouts.
    let mut spec =
        stage.spec("exec 2>&1; echo $TASK_ID; cat /agent/lib/link; touch /agent/x || echo read-only; exit 3");
    let mut ids: Vec<String> = (0..4).map(|_| stage.plane.submit(&spec)).collect();
    spec.sidecar_image = nested;
    ids.extend((0..2).map(|_| stage.plane.submit(&spec)));
    for id in &ids {
        let run = stage.plane.wait_ended(id);
        let output = run.output.unwrap_or_else(|| panic!("{:?}", run.message));
        assert!(output.starts_with(&format!("{id}\ndata\n")) && output.ends_with("read-only\n"), "{output}");
        assert_eq!(run.exit_code, Some(3));
    }

    // The output file, resource limits, and a writable volume.
    let mut spec =
        stage.spec("mkdir .oz; echo filed > .oz/agent_output.txt; echo mine > /rw/new; pwd; echo shown");
    spec.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/rw", "read_write": true})];
    spec.instance_shape = Some(json!({"vcpus": 0.5, "memory_gb": 0.25}));
    let run = stage.run(&spec);
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some("filed\n")), "{:?}", run.message);

    // A cancel of a task that obeys SIGTERM, and of one that ignores it.
    for script in ["trap 'exit 0' TERM; sleep 1000 & wait", "trap '' TERM; while :; do sleep 0.1; done"] {
        let id = stage.plane.submit(stage.spec(script));
        stage.wait_running(&id);
        stage.plane.cancel(&id);
        let report = stage.plane.wait_message(&id, "task_failed");
        assert_eq!(report.data["failure_reason"], "task_cancelled");
    }
    stage.wait_clean();

    // An image that does not exist.
    let mut spec = stage.spec("");
    spec.docker_image = Some("localhost/oz-no-such-image:1".into());
    let run = stage.run(&spec);
    assert_eq!(run.failure_reason.as_deref(), Some("image_pull"), "{:?}", run.message);

    // A stop with a running task.
    let id = stage.plane.submit(stage.spec("trap 'exit 0' TERM; sleep 1000 & wait"));
    stage.wait_running(&id);
    stage.stop(worker);
    stage.plane.wait_for(DEADLINE, |model| {
        model.run(&id).is_some_and(|run| run.failure_reason.as_deref() == Some("graceful_shutdown"))
    });
}
