//! Faults of an engine that answers: its disk is full, or it cannot rename.

use crate::support::control_plane::{ControlPlane, Options, State};
use crate::support::engine::Engine;
use crate::support::engine_proxy::EngineProxy;
use crate::support::private_engine::PrivateEngine;
use crate::support::stage::{DEADLINE, Stage, StageBuilder};

/// Enough for the images and the sidecar's volume.
const DISK_MIB: u32 = 48;

/// Docker keeps a container whose output it cannot write, and the container exits with 0.
#[test]
fn an_output_that_a_full_disk_has_lost_is_told() {
    let private = PrivateEngine::with_disk_of(DISK_MIB);
    let builder = StageBuilder::new("test").engine(Engine::at(private.host()));
    let stage = builder.control_plane(ControlPlane::start(Options::default())).build();
    let worker = stage.start(stage.worker().args(["--min-free-disk", "0"]));
    let run = |script: &str| stage.run(&stage.spec(script));
    let whole = run("echo whole");
    assert_eq!((whole.state, whole.output.as_deref()), (State::Succeeded, Some("whole\n")));
    let has_message = whole.history.iter().any(|received| !received.data["message"].is_null());
    assert!(!has_message, "{whole:?}");
    let id = stage.plane.submit(stage.spec("dd if=/dev/zero of=/big bs=1M; echo lost; exit 0"));
    let report = stage.plane.wait_message(&id, "task_completed").data;
    assert_eq!(report["exit_code"], 0);
    assert!(!report["output"].as_str().unwrap().contains("lost"), "{report}");
    let message = report["message"].as_str().unwrap_or_default();
    assert!(message.contains("the engine's disk has no space left"), "{report}");
    worker.wait_log(DEADLINE, |line| {
        line.contains(&format!("output may be lost task={id}")) && line.contains("no space left")
    });
    stage.wait_clean();
    stage.stop(worker);
}

/// As Docker 26 and newer with `"bridge": "none"`. The name would tell a later process why the task was ended.
#[test]
fn a_cancel_says_what_a_failed_rename_costs() {
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let worker = stage.start(stage.worker().env("DOCKER_HOST", &proxy.host()));
    proxy.refuse("/rename", 500, "network none not found");
    let id = stage.plane.submit(stage.spec("trap 'exit 7' TERM; sleep 1000 & wait"));
    stage.wait_running(&id);
    stage.plane.cancel(&id);
    let report = stage.plane.wait_message(&id, "task_failed").data;
    assert_eq!(report["failure_reason"], "task_cancelled");
    worker.wait_log(DEADLINE, |line| {
        line.contains(" WARN ")
            && line.contains(&format!("container rename failed task={id} "))
            && line.contains("note=\"the task goes on if the worker crashes before its end\"")
    });
    stage.wait_clean();
    stage.stop(worker);
}
