//! A worker process runs a task through each kind of endpoint other than a Unix socket.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::guarded;
use crate::support::control_plane::State;
use crate::support::door::Door;
use crate::support::pki::{Key, Pki};
use crate::support::worker::Builder;
use crate::worker::{DEADLINE, Stage};

/// Runs one task. Returns the worker's log line about the engine.
fn run_a_task(stage: &Stage, worker: Builder) -> String {
    let worker = stage.connected(worker);
    let run = stage.run(&stage.spec("seq 20000; echo done"));
    assert_eq!((run.state, run.exit_code), (State::Succeeded, Some(0)), "{:?}", worker.stderr().all());
    let output = run.output.unwrap();
    assert!(output.starts_with("1\n2\n") && output.ends_with("20000\ndone\n"), "{} bytes", output.len());
    let found = worker.wait_log(DEADLINE, |line| line.contains("engine found"));
    stage.stop(worker);
    found
}

#[test]
fn a_task_runs_over_mutual_tls_with_every_key_format() {
    let stage = Stage::new();
    let pki = Pki::new();
    let door = guarded(&pki, stage.engine.host());
    let host = format!("tcp://localhost:{}", door.port());
    for kind in [Key::Pkcs8, Key::Pkcs1, Key::Sec1] {
        let before = door.passed();
        let folder = pki.client(&format!("{kind:?}"), kind, 2).display().to_string();
        let worker = stage.worker().env("DOCKER_HOST", &host).env("DOCKER_TLS_VERIFY", "0");
        let found = run_a_task(&stage, worker.env("DOCKER_CERT_PATH", &folder));
        let address = format!("address=https://localhost:{} source=DOCKER_HOST", door.port());
        assert!(found.contains(&address), "{found}");
        assert!(door.passed() > before + 5, "{kind:?}: the task's calls went through the proxy");
    }
}

#[test]
fn a_task_runs_over_plain_tcp() {
    let stage = Stage::new();
    let door = Door::open(stage.engine.host(), None);
    let host = format!("tcp://127.0.0.1:{}", door.port());
    let found = run_a_task(&stage, stage.worker().env("DOCKER_HOST", &host));
    assert!(found.contains(&format!("address={host} source=DOCKER_HOST")), "{found}");
}

/// Writes a context into a store, like `docker context create`.
fn create_context(config: &Path, name: &str, host: &str, certificates: Option<&Path>) {
    let id: String = Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect();
    let meta = config.join("contexts/meta").join(&id);
    std::fs::create_dir_all(&meta).unwrap();
    let json = serde_json::json!({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}}});
    std::fs::write(meta.join("meta.json"), json.to_string()).unwrap();
    if let Some(from) = certificates {
        let to = config.join("contexts/tls").join(&id).join("docker");
        std::fs::create_dir_all(&to).unwrap();
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

#[test]
fn a_task_runs_on_the_engine_of_a_context() {
    let stage = Stage::new();
    let pki = Pki::new();
    let door = guarded(&pki, stage.engine.host());
    let config = tempfile::tempdir().unwrap();
    let host = format!("tcp://localhost:{}", door.port());
    create_context(config.path(), "build", &host, Some(&pki.client("client", Key::Pkcs1, 2)));
    let folder = config.path().display().to_string();
    let worker = || stage.worker().env_remove("DOCKER_HOST").env("DOCKER_CONFIG", &folder);
    if Path::new("/var/run/docker.sock").exists() {
        // The socket takes precedence, so only the warning can be tested.
        let started = worker().env("DOCKER_CONTEXT", "build").start();
        started.wait_log(DEADLINE, |line| line.contains("DOCKER_CONTEXT is not used"));
        return;
    }
    let found = run_a_task(&stage, worker().env("DOCKER_CONTEXT", "build"));
    assert!(found.contains(" source=context:build "), "{found}");
    std::fs::write(config.path().join("config.json"), r#"{"currentContext":"build"}"#).unwrap();
    let before = door.passed();
    let found = run_a_task(&stage, worker());
    assert!(found.contains(" source=context:build ") && door.passed() > before, "{found}");
}

#[test]
fn an_unused_docker_context_is_warned_about() {
    let stage = Stage::new();
    let worker = stage.connected(stage.worker().env("DOCKER_CONTEXT", "my build"));
    let line = worker.wait_log(DEADLINE, |line| line.contains("DOCKER_CONTEXT is not used"));
    assert!(
        line.contains("WARN") && line.contains("context=\"my build\"") && line.contains(stage.engine.host()),
        "{line}"
    );
    stage.stop(worker);
}
