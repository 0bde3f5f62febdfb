//! Signals other than those of a stop, and the line that says what SIGHUP does.

use std::path::Path;

use crate::support::control_plane::State;
use crate::support::process::Signal;
use crate::support::stage::{DEADLINE, Stage};
use crate::support::sync_dir::{SyncDir, WAIT};
use crate::support::worker::{WorkerBuilder, binary};

#[test]
fn sigusr1_logs_the_state_of_the_link_the_engine_and_every_job() {
    let stage = Stage::new();
    let sync = SyncDir::new();
    let worker = stage.start(stage.worker().args(["-v", &sync.mount()]));
    let id = stage.plane.submit(stage.spec(&format!("echo >> /sync/log; {WAIT}")));
    sync.wait_lines(&stage, 1);
    worker.wait_log(DEADLINE, |line| line.contains("container started"));
    worker.signal(Signal::USR1);
    let line = worker.wait_log(DEADLINE, |line| line.contains("job state"));
    assert!(line.contains(&format!("task={id} phase=running running_s=")), "{line}");
    assert!(line.contains("claim=confirmed engine=answers"), "{line}");
    worker.wait_log(DEADLINE, |line| line.contains("link state state=connected tasks=1 backlog=0"));
    worker.wait_log(DEADLINE, |line| line.contains("engine state state=answers"));
    sync.release(1);
    assert_eq!(stage.plane.wait_ended(&id).state, State::Succeeded);
    stage.stop(worker);
}

#[test]
fn sigusr2_and_sigquit_are_logged_and_ignored_and_sigxfsz_does_nothing() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    worker.signal(Signal::XFSZ);
    for (signal, name) in [(Signal::USR2, "SIGUSR2"), (Signal::QUIT, "SIGQUIT")] {
        worker.signal(signal);
        let line = worker.wait_log(DEADLINE, |line| line.contains("signal ignored"));
        assert!(line.contains("WARN"), "{line}");
        worker.wait_log(DEADLINE, |line| line.contains(&format!("signal ignored signal={name}")));
    }
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    assert!(!worker.stderr().all().iter().any(|line| line.contains("XFSZ")));
    stage.stop(worker);
}

/// A log that reaches the limit of a file's size must not end the worker.
#[test]
fn a_worker_runs_on_when_its_log_file_is_full() {
    let stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let script = format!("ulimit -f 2; exec \"$@\" 2>{}", log.display());
    let program = binary();
    let wrapped = WorkerBuilder::new(Path::new("/bin/sh")).args(["-c", &script, "sh"]);
    let builder = wrapped
        .args([program.to_str().unwrap(), "--pull", "missing", "--log-level", "debug"])
        .control_plane(&stage.plane, &stage.worker_id)
        .env("DOCKER_HOST", stage.engine.host());
    let worker = builder.start();
    stage.plane.wait_connected(1);
    // Two blocks of 512 bytes.
    stage.wait("the log is full", || {
        assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
        std::fs::metadata(&log).is_ok_and(|log| log.len() == 1024)
    });
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.stop(worker);
}

#[test]
fn sighup_stops_the_worker_and_the_log_says_that_it_reloads_nothing() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    worker.signal(Signal::HUP);
    worker.wait_log(DEADLINE, |line| {
        line.contains("WARN")
            && line.contains(
                "signal received signal=SIGHUP note=\"SIGHUP stops the worker; settings are read only",
            )
    });
    stage.stop(worker);
}

/// A program that the worker starts is not protected from signals.
#[test]
fn the_programs_that_the_worker_starts_have_no_blocked_signals() {
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let helper = format!("#!/bin/sh\ngrep SigBlk /proc/self/status > {}\nexit 1\n", seen.display());
    let program = folder.path().join("docker-credential-oz-test");
    std::fs::write(&program, helper).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"credsStore": "oz-test"}"#).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let builder = stage.worker_pulling("auto").env("PATH", &path);
    let worker = stage.start(builder.env("DOCKER_CONFIG", folder.path().to_str().unwrap()));
    let task = stage.images.task();
    let mut spec = stage.spec("true");
    spec.docker_image = Some(task);
    assert_eq!(stage.run(&spec).state, State::Succeeded);
    let mask = std::fs::read_to_string(&seen).unwrap();
    assert!(mask.trim_end().ends_with("\t0000000000000000"), "{mask}");
    stage.stop(worker);
}
