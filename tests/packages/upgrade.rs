//! An upgrade: this worker takes over the tasks of the previous release, whose binary is built from the repository's history.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::control_plane::run::new_id;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::WorkerBuilder;
use crate::{source, target};

/// The commit of the previous release, 0.1.
const PREVIOUS: &str = "ca50f13515613f3f3f3d9bd9d3ca4e8ce80f2166";

/// Returns the binary of the previous release. The first call builds it, which takes about a minute; it is kept in `target`.
fn previous() -> PathBuf {
    let folder = target().join("previous").join(PREVIOUS);
    let binary = folder.join("target/debug/oz-agent-worker");
    if binary.is_file() {
        return binary;
    }
    let sources = folder.join("src");
    std::fs::create_dir_all(&sources).unwrap();
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(source("")).args(args);
        command
    };
    let is_there = git(&["cat-file", "-e", &format!("{PREVIOUS}^{{commit}}")]).status();
    assert!(
        is_there.is_ok_and(|status| status.success()),
        "the history has no commit {PREVIOUS}, the previous release; in a shallow clone, run `git fetch --unshallow`"
    );
    let mut archive = git(&["archive", PREVIOUS]).stdout(Stdio::piped()).spawn().unwrap();
    let unpack =
        Command::new("tar").arg("-x").arg("-C").arg(&sources).stdin(archive.stdout.take().unwrap()).status();
    assert!(archive.wait().unwrap().success() && unpack.unwrap().success(), "the sources cannot be unpacked");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(&sources)
        .args(["build", "--quiet", "--locked", "--bin", "oz-agent-worker", "--target-dir"])
        .arg(folder.join("target"))
        .status();
    assert!(built.unwrap().success(), "the previous release cannot be built");
    binary
}

#[test]
fn tasks_of_the_previous_release_are_adopted_reported_and_removed() {
    let previous = previous();
    let stage = Stage::new();
    let sync = SyncDir::new();
    let old = WorkerBuilder::new(&previous).control_plane(&stage.plane, &stage.worker_id);
    let old = old.args(["--pull", "missing", "-v", &sync.mount()]).env("DOCKER_HOST", stage.engine.host());
    let mut old = old.start();
    stage.plane.wait_connected(1);
    let mut spec = stage.spec(&format!("echo >> /sync/log; echo in >> /data/f; {WAIT}; cat /data/f; exit 4"));
    spec.additional_sidecars =
        vec![json!({"image": stage.sidecar_image, "mount_path": "/data", "read_write": true})];
    let (plain, with_id) = (stage.plane.submit(&spec), new_id());
    let mut assignment = spec.assignment(&with_id);
    assignment["execution_id"] = json!("execution");
    stage.plane.submit_raw(assignment);
    sync.wait_lines(&stage, 2);
    // One of them ends while no worker runs.
    old.signal(Signal::KILL);
    old.wait_exit(DEADLINE);
    sync.release(1);
    let exited = |all: &[Value]| all.iter().filter(|one| one["State"] == "exited").count();
    stage.wait("one has exited", || exited(&stage.engine.containers_of(&stage.worker_id)) == 1);

    let worker = stage.start(stage.worker().args(["--lost-runs", "finish", "-v", &sync.mount()]));
    for state in ["exited", "running"] {
        let state = format!("state={state}");
        worker.wait_log(DEADLINE, |line| line.contains("container adopted") && line.contains(&state));
    }
    sync.release(1);
    for task in [&plain, &with_id] {
        let report = stage.plane.wait_message(task, "task_completed").data;
        assert_eq!((&report["exit_code"], &report["output"]), (&json!(4), &json!("in\n")));
    }
    stage.wait_clean();
    stage.stop(worker);
    assert_eq!(sync.lines().len(), 2, "each ran once");
}
