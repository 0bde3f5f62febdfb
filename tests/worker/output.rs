//! The output file: huge, linked, or not of this task.

use serde_json::Value;

use crate::support::control_plane::{Received, State};
use crate::support::images::RootFs;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::SyncDir;
use crate::support::worker::Worker;

/// Writes 64 GiB that need no disk.
const HUGE: &str = "mkdir -p /workspace/.oz; echo begin > /workspace/.oz/agent_output.txt; truncate -s 64G /workspace/.oz/agent_output.txt";

fn text(report: &Received, field: &str) -> String {
    report.data[field].as_str().unwrap_or_default().to_owned()
}

fn assert_cut(report: &Received, reason: &str) {
    assert_eq!(text(report, "failure_reason"), reason);
    let output = text(report, "output");
    assert!(output.starts_with("begin\n"), "{} bytes", output.len());
    assert!(output.ends_with(" of 68719476736 bytes searched ...]\n"), "{} bytes", output.len());
}

/// The shortest limits apply: a stop leaves 20 s for the output, and a second reason leaves 2 s. The reports are small, because a
/// stop leaves 2 s for the look-up of a run, which has the output twice.
#[test]
fn a_huge_output_does_not_delay_the_report_of_a_cancel_or_a_stop() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let mut worker = stage.start(stage.worker().args(["--max-output", "256KiB", "-v", &sync.mount()]));
    let script = format!("trap 'exit 1' TERM; {HUGE}; echo >> /sync/log; sleep 1000 & wait");
    let [cancelled, stopped] = [(); 2].map(|()| stage.plane.submit(stage.spec(&script)));
    sync.wait_lines(&stage, 2);
    stage.plane.cancel(&cancelled);
    worker.wait_log(DEADLINE, |line| line.contains("container stopping") && line.contains(&cancelled));
    worker.signal(Signal::TERM);
    assert_cut(&stage.plane.wait_message(&cancelled, "task_failed"), "task_cancelled");
    assert_cut(&stage.plane.wait_message(&stopped, "task_failed"), "graceful_shutdown");
    assert_eq!(worker.wait_exit(DEADLINE).code(), Some(0), "{:#?}", worker.stderr().all());
    assert_eq!(stage.engine.containers_of(&stage.worker_id), Vec::<Value>::new());
}

/// A worker that adopts the container reads the same output.
#[test]
fn a_cancel_interrupts_the_reading_of_a_timed_out_tasks_output() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let builder = || stage.worker().args(["--task-timeout", "5s", "-v", &sync.mount()]);
    let mut worker = stage.start(builder());
    let script = format!("{HUGE}; echo >> /sync/log; trap 'exit 1' TERM; sleep 1000 & wait");
    let id = stage.plane.submit(stage.spec(&script));
    wait_reading(&stage, &worker, &id);
    worker.signal(Signal::KILL);
    worker.wait_exit(DEADLINE);

    let worker = stage.start(builder());
    let adopted = worker.wait_log(DEADLINE, |line| line.contains("container adopted") && line.contains(&id));
    assert!(adopted.contains("state=exited"), "{adopted}");
    stage.plane.cancel(&id);
    assert_cut(&stage.plane.wait_message(&id, "task_failed"), "task_timeout");
    stage.wait_clean();
    stage.stop(worker);
}

/// Waits until a task has ended and its output is being read.
fn wait_reading(stage: &Stage, worker: &Worker, id: &str) {
    worker.wait_log(DEADLINE, |line| line.contains("task timed out") && line.contains(id));
    let label = format!("oz-task-id={id}");
    let exited = || stage.engine.containers("label", &label).iter().all(|one| one["State"] == "exited");
    stage.wait("the container has exited", exited);
}

const PULL_REQUEST: &str = "https://github.com/o/r/pull/1";

#[test]
fn a_file_of_an_earlier_task_in_a_shared_folder_is_not_reported() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let mount = format!("{}:/workspace", folder.path().display());
    let worker = stage.start(stage.worker().args(["-v", &mount]));
    let write = format!("mkdir -p .oz; echo {PULL_REQUEST} > .oz/agent_output.txt");
    let run = stage.run(&stage.spec(&write));
    assert_eq!(run.output.as_deref(), Some(format!("{PULL_REQUEST}\n").as_str()));
    assert_eq!(run.artifacts.len(), 1);
    let run = stage.run(&stage.spec("echo mine"));
    assert_eq!((run.output.as_deref(), run.artifacts.len()), (Some("mine\n"), 0));
    // The same bytes again are this task's.
    let run = stage.run(&stage.spec(&write));
    assert_eq!(run.artifacts.len(), 1);
    stage.stop(worker);
}

#[test]
fn a_file_of_the_image_is_not_reported() {
    let mut stage = Stage::new();
    let root = RootFs::busybox().folder("workspace", 0o755).folder("workspace/.oz", 0o755).file(
        "workspace/.oz/agent_output.txt",
        0o644,
        PULL_REQUEST,
    );
    let image = stage.images.make("baked", root, &["ENV PATH=/bin"]);
    let worker = stage.start_worker();
    for (script, output, artifacts) in [
        ("echo mine", "mine\n".to_owned(), 0),
        ("touch .oz/agent_output.txt", PULL_REQUEST.to_owned(), 1),
        ("echo more >> .oz/agent_output.txt", format!("{PULL_REQUEST}more\n"), 1),
    ] {
        let mut spec = stage.spec(script);
        spec.docker_image = Some(image.clone());
        let run = stage.run(&spec);
        assert_eq!((run.output, run.artifacts.len()), (Some(output), artifacts), "{script}");
    }
    stage.stop(worker);
}

#[test]
fn links_to_the_output_file_are_followed_in_the_container() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    for (script, output) in [
        ("mkdir .oz; echo linked > /out; ln -s /out .oz/agent_output.txt; echo log", "linked\n"),
        ("mkdir .oz; echo linked > out; ln -s ../out .oz/agent_output.txt; echo log", "linked\n"),
        ("mkdir /d; echo linked > /d/agent_output.txt; ln -s ../d .oz; echo log", "linked\n"),
        ("mkdir .oz; ln -s ../../../../../etc/group .oz/agent_output.txt", "root:x:0:\nnogroup:x:65534:\n"),
        ("mkdir .oz; ln -s /no/such .oz/agent_output.txt; echo log", "log\n"),
        ("mkdir .oz; ln -s agent_output.txt .oz/agent_output.txt; echo log", "log\n"),
    ] {
        let run = stage.run(&stage.spec(script));
        assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some(output)), "{script}");
    }
    stage.stop(worker);
}
