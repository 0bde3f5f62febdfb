//! `demo serve`: a control plane and a worker that stay up for runs that people submit.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use crate::setup::Setup;
use crate::support::control_plane::Dialect;
use crate::watch::{self, Outcome};

/// Runs until Ctrl-C. Returns an error that says what went wrong.
pub fn run(worker: &Path, dialect: Dialect, interrupted: &AtomicBool) -> Result<(), String> {
    // 8080 is the port of the worker's default URL.
    let setup = Setup::start(worker, dialect, 8080..8100)?;
    print_usage(&setup);
    let outcome = watch::until(&setup, interrupted, None, |_| false);
    println!("\nstopping");
    setup.stop()?;
    match outcome {
        Outcome::Interrupted => Ok(()),
        other => Err(other.to_string()),
    }
}

fn print_usage(setup: &Setup) {
    let spec = setup.spec("say hello");
    let body = json!({
        "prompt": spec.prompt,
        "docker_image": spec.docker_image,
        "sidecar_image": spec.sidecar_image,
        "env_vars": {"DEMO_SCRIPT": "echo hello from $(hostname); date; sleep 2; exit 3"},
    });
    let plane = &setup.stage.plane;
    let (url, key) = (format!("{}/api/v1/agent/runs", plane.root_url()), plane.key());
    println!("\nSubmit a run from another terminal:\n");
    println!("curl -H 'Authorization: Bearer {key}' {url} -d '{body}'");
    println!("\nList the runs, or cancel one while it sleeps:\n");
    println!("curl -H 'Authorization: Bearer {key}' {url}");
    println!("curl -H 'Authorization: Bearer {key}' -X POST {url}/RUN_ID/cancel");
    println!("\nPress Ctrl-C to stop.\n");
}
