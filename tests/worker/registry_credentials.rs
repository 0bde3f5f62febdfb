//! Images behind a registry's password: where the password comes from, and the message when none works.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::control_plane::{Run, RunSpec, State};
use crate::support::engine::Engine;
use crate::support::registry::{PASSWORD, Registry, USER};
use crate::support::stage::{DEADLINE, Stage};
use crate::support::worker::Worker;

/// A task image and a sidecar image in a registry, and a folder for `config.json` and credential helpers.
struct Lab {
    /// Dropped first: the engine does not remove an image that a container uses.
    stage: Stage,
    registry: Registry,
    images: Pushed,
    folder: TempDir,
}

/// Images that the worker pulls; removed from the engine when dropped.
struct Pushed(Engine, [String; 2]);

impl Lab {
    fn new(registry: Registry) -> Self {
        let stage = Stage::new();
        let push = |image: &str, name: &str| registry.push(&stage.engine, image, name, "v1");
        let images = [push(&stage.task_image, "team/task"), push(&stage.sidecar_image, "team/agent")];
        let images = Pushed(stage.engine.clone(), images);
        Self { stage, registry, images, folder: tempfile::tempdir().unwrap() }
    }

    /// Starts a worker that always pulls, with the folder as `DOCKER_CONFIG` and first on the `PATH`.
    fn worker(&self) -> Worker {
        let folder = self.folder.path().to_str().unwrap();
        let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
        let builder = self.stage.worker_pulling("always").args(["--log-level", "debug"]);
        self.stage.start(builder.env("DOCKER_CONFIG", folder).env("PATH", &path).env("LAB", folder))
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("config.json")
    }

    fn configure(&self, config: &Value) {
        fs::write(self.file(), config.to_string()).unwrap();
    }

    /// Installs `docker-credential-test`. A shell writes it: a child of another test could inherit a descriptor that is open
    /// for writing here, and the helper could not be executed.
    fn helper(&self, script: &str) {
        let path = self.folder.path().join("docker-credential-test");
        let shell = ["-c", "cat >\"$0\" && chmod 755 \"$0\""];
        let mut child = Command::new("/bin/sh").args(shell).arg(path).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }

    /// Returns a run with both images from the registry.
    fn spec(&self) -> RunSpec {
        let [task, sidecar] = self.images.1.clone();
        RunSpec {
            docker_image: Some(task),
            sidecar_image: sidecar,
            ..self.stage.spec("cat /agent/lib/data.txt")
        }
    }

    fn run(&self) -> Run {
        self.stage.run(&self.spec())
    }

    fn assert_runs(&self) {
        let run = self.run();
        assert_eq!(
            (run.state, run.output.as_deref()),
            (State::Succeeded, Some("data\n")),
            "{:?}",
            run.message
        );
    }

    /// Runs a task whose pull fails, and returns its message.
    fn pull_error(&self) -> String {
        let run = self.run();
        assert_eq!(run.failure_reason.as_deref(), Some("image_pull"), "{:?}", run.message);
        run.message.unwrap()
    }

    /// Checks that no secret is in the log or in a message, and stops the worker.
    fn stop(&self, worker: Worker) {
        let auth = data_encoding::BASE64.encode(format!("{USER}:{PASSWORD}").as_bytes());
        // How an auth header with the password begins.
        let header = data_encoding::BASE64URL.encode(format!("{{\"password\":\"{PASSWORD}").as_bytes());
        let secrets = [PASSWORD, "MARKER", &auth, header.get(..32).unwrap(), self.stage.plane.key()];
        let mut logged = worker.stderr().all();
        assert!(logged.iter().any(|line| line.contains("DEBUG")), "not a debug log");
        logged.extend(self.stage.plane.runs().into_iter().filter_map(|run| run.message));
        let leaks = logged.iter().filter(|line| secrets.iter().any(|secret| line.contains(secret)));
        assert_eq!(leaks.collect::<Vec<_>>(), Vec::<&String>::new());
        self.stage.stop(worker);
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        self.1.iter().for_each(|image| self.0.remove_image(image));
    }
}

/// The worker needs no restart, because it reads the file for each pull.
#[test]
fn a_password_added_to_config_json_is_used_from_the_next_pull_on() {
    let lab = Lab::new(Registry::with_password());
    let (worker, host, file) = (lab.worker(), lab.registry.host(), lab.file());
    let message = lab.pull_error();
    let expected =
        format!("no credentials for {host} were found in {}, which does not exist", file.display());
    assert!(message.contains("is not available: ") && message.ends_with(&expected), "{message}");
    lab.configure(&json!({"auths": {&host: {"username": USER, "password": "MARKER-wrong"}}}));
    let message = lab.pull_error();
    let expected = format!("{host} refused the credentials from {}", file.display());
    assert!(message.contains("unauthorized") && message.ends_with(&expected), "{message}");
    lab.configure(&lab.registry.docker_config());
    lab.assert_runs();
    lab.configure(
        &json!({"auths": {format!("http://{host}/v2/"): {"username": USER, "password": PASSWORD}}}),
    );
    lab.assert_runs();
    lab.configure(&json!({"auths": {}}));
    assert!(lab.pull_error().ends_with(&format!("found in {}", file.display())));
    lab.stop(worker);
}

#[test]
fn a_credential_helper_provides_the_password_and_does_not_see_the_api_key() {
    let lab = Lab::new(Registry::with_password());
    let (worker, host) = (lab.worker(), lab.registry.host());
    lab.configure(&json!({"auths": {}, "credHelpers": {&host: "test"}, "credsStore": "absent"}));
    lab.helper(&format!(
        "env >\"$LAB/env\"; cat >\"$LAB/asked\"; echo noise MARKER >&2
         echo '{{\"ServerURL\":\"'$(cat \"$LAB/asked\")'\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'"
    ));
    lab.assert_runs();
    assert_eq!(lab.read("asked"), host);
    let environment = lab.read("env");
    assert!(environment.lines().any(|line| line == "HOME=/nonexistent"), "{environment}");
    assert!(!environment.contains("OZ_API_KEY") && !environment.contains(lab.stage.plane.key()));
    lab.helper("echo '{\"Username\":\"<token>\",\"Secret\":\"MARKER\"}'");
    let message = lab.pull_error();
    assert!(
        message.ends_with(&format!("{host} refused the credentials from docker-credential-test")),
        "{message}"
    );
    lab.helper("echo credentials not found in native keychain; exit 1");
    let message = lab.pull_error();
    assert!(message.ends_with(&format!("no credentials for {host} were found in docker-credential-test")));
    lab.helper("echo MARKER; exit 4");
    let message = lab.pull_error();
    let expected = format!(
        "cannot get credentials for {host}: credential helper docker-credential-test: it failed (exit status: 4)"
    );
    assert!(message.ends_with(&expected), "{message}");
    lab.stop(worker);
}

#[test]
fn unusable_credentials_do_not_prevent_the_pull_of_a_public_image() {
    let lab = Lab::new(Registry::open());
    let worker = lab.worker();
    let warned = |expected: &str| {
        let line = worker.wait_log(DEADLINE, |line| line.contains(expected));
        assert!(
            line.contains("WARN") && line.contains("task=") && line.contains(&lab.registry.host()),
            "{line}"
        );
    };
    lab.assert_runs();
    fs::write(lab.file(), "MARKER {").unwrap();
    lab.assert_runs();
    warned("config.json: it is not JSON (line 1, column 1)");
    fs::write(lab.file(), vec![b' '; 1 << 21]).unwrap();
    lab.assert_runs();
    warned("config.json: it cannot be read: it is longer than 1048576 bytes");
    lab.configure(&json!({"credsStore": "test"}));
    lab.assert_runs();
    warned("docker-credential-test: no such program is on the PATH");
    lab.helper("echo MARKER");
    lab.assert_runs();
    warned("docker-credential-test: its output is not valid credentials");
    lab.helper("head -c 1073741824 /dev/zero");
    lab.assert_runs();
    warned("docker-credential-test: it printed more than 65536 bytes and was killed");
    lab.helper("sleep 1000");
    lab.assert_runs();
    warned("docker-credential-test: it did not exit within 10s and was killed");
    lab.stop(worker);
}

#[test]
fn a_cancel_does_not_wait_for_a_credential_helper() {
    let lab = Lab::new(Registry::open());
    let worker = lab.worker();
    lab.configure(&json!({"credsStore": "test"}));
    lab.helper("echo $$ >\"$LAB/$$.pid\"; sleep 1000");
    let pids = || -> Vec<String> {
        let files = fs::read_dir(lab.folder.path()).unwrap().map(|file| file.unwrap().path());
        let pids = files.filter(|path| path.extension().is_some_and(|extension| extension == "pid"));
        pids.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let id = lab.stage.plane.submit(lab.spec());
    lab.stage.wait("both helpers are running", || pids().len() == 2);
    lab.stage.plane.cancel(&id);
    lab.stage.plane.wait_message(&id, "task_failed");
    let exists = |pid: &String| PathBuf::from("/proc").join(pid).exists();
    assert!(!pids().iter().any(exists), "neither a process nor a zombie");
    assert!(!worker.stderr().all().iter().any(|line| line.contains("did not exit within")));
    lab.stop(worker);
}
