//! `oz-agent-worker status`, without a key, against a real engine.

use std::process::Command;

use serde_json::Value;

use super::monitoring::free_port;
use super::settings::end;
use crate::support::control_plane::{ControlPlane, Options};
use crate::support::engine::Engine;
use crate::support::process::Process;
use crate::support::stage::{DEADLINE, Stage, StageBuilder};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{WorkerBuilder, binary, worker_id};

/// In the environment of a task; must not be shown.
const SECRET: &str = "hunter2-in-a-task";

/// The sub-command with these arguments, at this engine.
fn status(engine: &Engine, args: &[&str]) -> WorkerBuilder {
    let all = std::iter::once("status").chain(args.iter().copied());
    WorkerBuilder::new(&binary()).args(all).env("DOCKER_HOST", engine.host())
}

/// Its exit code, stdout and stderr.
fn run(engine: &Engine, args: &[&str]) -> (Option<i32>, String, String) {
    end(status(engine, args).start())
}

#[test]
fn the_tasks_of_all_workers_are_listed_without_a_key() {
    let stage = Stage::new();
    let other = StageBuilder::new("test").engine(Engine::get()).build();
    let sync = SyncDir::new();
    let args = ["-v", &sync.mount(), "-e", &format!("PASSWORD={SECRET}")];
    let workers = [&stage, &other].map(|stage| stage.start(stage.worker().args(args)));
    let busy = "while :; do :; done & echo >> /sync/log; ";
    let tasks =
        [&stage, &other].map(|stage| stage.plane.submit(stage.spec(&format!("{busy}{WAIT}; kill %1"))));
    sync.wait_lines(&stage, 2);
    // The engine shows a container as created for a moment after its process has begun.
    for (stage, id) in [&stage, &other].into_iter().zip(&tasks) {
        stage.wait_running(id);
    }

    let (code, out, err) = run(&stage.engine, &["--json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(seen["engine"]["address"], stage.engine.host());
    for (stage, (id, worker)) in [&stage, &other].into_iter().zip(tasks.iter().zip(&workers)) {
        let all = seen["tasks"].as_array().unwrap();
        let task = all.iter().find(|task| task["task_id"] == id.as_str()).unwrap_or_else(|| panic!("{out}"));
        assert_eq!(
            (&task["worker_id"], &task["state"]),
            (&stage.worker_id.as_str().into(), &"running".into())
        );
        assert_eq!(task["container"], stage.container_name(id, None).as_str());
        let image = task["image"].as_str().unwrap();
        assert!(image.starts_with(stage.task_image.split(':').next().unwrap()), "{image}");
        assert!(task["age_s"].as_u64().is_some_and(|age| age < 120), "{task}");
        assert!(task["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{task}");
        assert!(task["cpu_percent"].as_f64().is_some_and(|percent| percent > 1.0), "{task}");
        let found = seen["workers"].as_array().unwrap();
        let found = found.iter().find(|found| found["worker_id"] == stage.worker_id.as_str()).unwrap();
        assert_eq!(found["pids"], serde_json::json!([worker.id()]), "{out}");
    }

    // As text, of one worker.
    let (code, out, err) = run(&stage.engine, &["--worker-id", &other.worker_id]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let line = out.lines().find(|line| line.starts_with(&tasks[1])).unwrap_or_else(|| panic!("{out}"));
    assert!(line.contains("  running  ") && line.contains('%') && line.contains(&other.worker_id), "{out}");
    assert!(out.contains("TASK ") && !out.contains(&tasks[0]) && !out.contains(SECRET), "{out}");
    sync.release(2);
    for (stage, worker) in [&stage, &other].into_iter().zip(workers) {
        stage.wait_no_containers();
        stage.stop(worker);
    }
    let (code, out, err) = run(&stage.engine, &["--worker-id", &stage.worker_id]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.starts_with("engine  ") && out.contains(" tasks=0") && !out.contains("TASK"), "{out}");
}

#[test]
fn the_output_of_a_running_task_is_followed_to_its_end() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(stage.worker().args(["-v", &sync.mount()]));
    let script = format!("echo one; echo error >&2; echo >> /sync/log; {WAIT}; echo two; exit 3");
    let id = stage.plane.submit(stage.spec(&script));
    sync.wait_lines(&stage, 1);
    stage.wait_running(&id);
    let mut following = status(&stage.engine, &["--follow", &id]).start();
    assert_eq!(following.stdout().find(DEADLINE, |_| true).as_deref(), Some("one"));
    let first = following.wait_log(DEADLINE, |line| line.contains("following"));
    let name = stage.container_name(&id, None);
    assert_eq!(first, format!("oz-agent-worker: following task={id} container={name} state=running"));
    following.wait_log(DEADLINE, |line| line == "error");
    assert!(following.is_running());
    sync.release(1);
    assert_eq!(following.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(following.stdout().all(), ["one", "two"]);
    let last = following.stderr().all().pop().unwrap();
    assert!(last.starts_with(&format!("oz-agent-worker: ended task={id} state=")), "{last}");
    assert_eq!(stage.plane.wait_ended(&id).state, crate::support::control_plane::State::Failed);
    stage.stop(worker);

    let (code, out, err) = run(&stage.engine, &["--follow", "no-such-task"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(
        err.contains("no container of task \"no-such-task\"") && err.contains("lists the tasks"),
        "{err}"
    );
}

#[test]
fn kept_containers_and_what_the_worker_serves_are_shown() {
    let stage = Stage::new();
    let port = free_port().to_string();
    let worker = stage.start(stage.worker().args(["--keep-failed", "1h", "--metrics-listen", &port]));
    let id = stage.plane.submit(stage.spec(&format!("echo {SECRET}; exit 3")));
    worker.wait_log(DEADLINE, |line| line.contains("container kept"));
    let of_worker = ["--worker-id", &stage.worker_id];
    let with = |more: &[&str]| {
        let (code, out, err) = run(&stage.engine, &[&of_worker[..], more].concat());
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        out
    };
    let kept: Value = serde_json::from_str(&with(&["--kept", "--json"])).unwrap();
    let list = kept["kept"].as_array().unwrap();
    assert_eq!(
        (list.len(), &list[0]["task_id"], &list[0]["state"]),
        (1, &id.as_str().into(), &"exited".into())
    );
    assert!(list[0]["container"].as_str().unwrap().starts_with("oz-failed-"), "{kept}");
    let text = with(&["--kept"]);
    assert!(text.contains(" kept=1\n") && text.contains(&id) && !text.contains("daemon  http"), "{text}");
    stage.wait("the task is over", || !with(&[]).contains(&id));

    let source = format!("http://127.0.0.1:{port}");
    let text = with(&["--metrics-listen", &port]);
    let line = text.lines().find(|line| line.starts_with(&format!("daemon  {source} "))).unwrap();
    for word in [" state=connected", " ready=true", " slots=", &format!(" worker_id={}", stage.worker_id)] {
        assert!(line.contains(word), "{word}: {line}");
    }
    let seen: Value = serde_json::from_str(&with(&["--metrics-listen", &port, "--json"])).unwrap();
    let daemons = seen["daemons"].as_array().unwrap();
    let own = daemons.iter().find(|daemon| daemon["source"] == source.as_str()).unwrap();
    assert_eq!(own["says"]["pid"], worker.id());
    // The variable is the worker's. A worker with another id is not asked for.
    let with_variable =
        |args: &[&str], value: &str| end(status(&stage.engine, args).env("OZ_METRICS_LISTEN", value).start());
    let (_, out, err) = with_variable(&[], &port);
    assert!(out.contains(&source) && err.is_empty(), "{out}{err}");
    assert!(!with_variable(&["--worker-id", "another"], &port).1.contains(&source));
    let (code, _, err) = with_variable(&[], "x:y");
    assert!(code == Some(0) && err.contains("warning: invalid OZ_METRICS_LISTEN"), "{err}");

    stage.engine.remove_container(list[0]["id"].as_str().unwrap());
    stage.stop(worker);
    assert!(!with(&["--metrics-listen", &port]).contains("daemon  http"));
}

#[test]
fn a_reader_that_goes_away_ends_a_follow_without_an_error() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(stage.worker().args(["-v", &sync.mount()]));
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; while :; do echo x; done & {WAIT}")));
    sync.wait_lines(&stage, 1);
    let mut command = Command::new("sh");
    // The code of the worker, not that of head.
    let script = "{ \"$0\" status --follow \"$1\"; echo $? >&2; } | head -n 1";
    command.args(["-c", script, binary().to_str().unwrap(), &id]).env("DOCKER_HOST", stage.engine.host());
    let mut process = Process::spawn(&mut command, None);
    assert_eq!(process.wait_exit(DEADLINE).code(), Some(0));
    assert_eq!(process.stdout().all(), ["x"]);
    let lines = process.stderr().all();
    assert!(lines.len() == 2 && lines[0].contains("following") && lines[1] == "0", "{lines:?}");
    sync.release(1);
    stage.plane.wait_ended(&id);
    stage.stop(worker);
}

#[test]
fn without_an_engine_the_cause_and_the_remedy_are_shown_with_code_4() {
    let folder = tempfile::tempdir().unwrap();
    let none = format!("unix://{}", folder.path().join("none").display());
    let at = |args: &[&str]| {
        let all = std::iter::once("status").chain(args.iter().copied());
        end(WorkerBuilder::new(&binary()).args(all).env("DOCKER_HOST", &none).start())
    };
    for args in [&[][..], &["--follow", "x"]] {
        let (code, out, err) = at(args);
        assert_eq!((code, out.as_str()), (Some(4), ""), "{err}");
        assert!(err.starts_with("oz-agent-worker: the docker engine at unix://"), "{err}");
        assert!(err.contains("No such file") && err.contains("set DOCKER_HOST"), "{err}");
    }
    let (code, out, err) = at(&["--json"]);
    assert_eq!((code, err.as_str()), (Some(4), ""), "{out}");
    let seen: Value = serde_json::from_str(&out).unwrap();
    assert!(seen["error"].as_str().unwrap().contains("set DOCKER_HOST") && seen["engine"].is_null(), "{out}");
}

#[test]
fn a_settings_file_is_used_if_it_can_be_read_and_a_warning_if_not() {
    let engine = Engine::get();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.env");
    std::fs::write(&path, format!("DOCKER_HOST={}\nOZ_API_KEY={SECRET}\n", engine.host())).unwrap();
    let path = path.to_str().unwrap();
    let with = |path: &str| WorkerBuilder::new(&binary()).args(["status", "--settings-file", path]);
    let (code, out, err) = end(with(path).start());
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains(engine.host()) && !out.contains(SECRET), "{out}");
    let missing = format!("{path}.none");
    let (code, out, err) = end(with(&missing).env("DOCKER_HOST", engine.host()).start());
    assert_eq!(code, Some(0), "{out} {err}");
    assert!(err.contains("warning: cannot read --settings-file") && err.contains("No such file"), "{err}");
}

/// In place of systemd, which no test of this folder runs.
#[test]
fn what_a_service_reports_to_systemd_is_shown_even_without_an_engine() {
    let folder = tempfile::tempdir().unwrap();
    let systemctl = folder.path().join("systemctl");
    let answer =
        "MainPID=7\\nId=oz-agent-worker.service\\nActiveState=active\\nStatusText=connected, tasks: 2\\n";
    std::fs::write(&systemctl, format!("#!/bin/sh\nprintf '{answer}'\n")).unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&systemctl).status().unwrap().success());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let none = format!("unix://{}", folder.path().join("none").display());
    let asked = WorkerBuilder::new(&binary()).args(["status"]).env("PATH", &path).env("DOCKER_HOST", &none);
    let (code, out, err) = end(asked.start());
    assert_eq!(code, Some(4), "{err}");
    let expected = "daemon  oz-agent-worker.service pid=7 state=active status=\"connected, tasks: 2\"";
    assert_eq!(out, expected);
    assert!(err.contains("set DOCKER_HOST"), "{err}");
}

#[test]
fn an_unknown_sub_command_and_an_unknown_option_are_usage_errors() {
    let plane = ControlPlane::start(Options::default());
    for (args, expected) in [
        (&["start"][..], "argument 1 is neither a flag nor a sub-command ("),
        (&["hunter2"], "argument 1 is neither a flag nor a sub-command ("),
        (&["status", "--api-key", "hunter2"], "unknown flag --api-key; see --help"),
        (&["status", "--follow"], "--follow needs a value; see --help"),
        (&["status", "hunter2"], "argument 2 is not a flag (a sub-command comes first); see --help"),
    ] {
        let worker =
            WorkerBuilder::new(&binary()).args(args.iter().copied()).control_plane(&plane, &worker_id());
        let (code, out, err) = end(worker.start());
        assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
        assert!(err.contains(expected) && !err.contains("hunter2"), "{args:?}: {err}");
    }
    let (code, out, err) = end(WorkerBuilder::new(&binary()).args(["status", "--help"]).start());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("Usage: oz-agent-worker status ") && out.contains("--follow TASK"), "{out}");
}
