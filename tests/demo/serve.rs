//! `demo serve`: the control plane and a worker, left running for runs that people submit.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use crate::stage::Stage;
use crate::watch::{self, Ended};

/// Runs until Ctrl-C; the error says what went wrong.
pub fn run(worker: &Path, interrupted: &AtomicBool) -> Result<(), String> {
    // The first is what a worker connects to when it is told nothing.
    let stage = Stage::set(worker, 8080..8100)?;
    invite(&stage);
    let ended = watch::until(&stage, interrupted, None, |_| false);
    println!("\nstopping");
    stage.strike()?;
    match ended {
        Ended::Interrupted => Ok(()),
        other => Err(format!("it ended by itself: {other:?}")),
    }
}

fn invite(stage: &Stage) {
    let spec = stage.spec("say hello");
    let body = json!({
        "prompt": spec.prompt,
        "docker_image": spec.docker_image,
        "sidecar_image": spec.sidecar_image,
        "env_vars": {"DEMO_SCRIPT": "echo hello from $(hostname); date; sleep 2; exit 3"},
    });
    let (url, key) = (format!("{}/api/v1/agent/runs", stage.plane.root_url()), stage.plane.key());
    println!("\nSubmit a run from another terminal:\n");
    println!("curl -H 'Authorization: Bearer {key}' {url} -d '{body}'");
    println!("\nLook at all of them, or cancel one (before its sleep is over):\n");
    println!("curl -H 'Authorization: Bearer {key}' {url}");
    println!("curl -H 'Authorization: Bearer {key}' -X POST {url}/RUN_ID/cancel");
    println!("\nCtrl-C stops everything.\n");
}
