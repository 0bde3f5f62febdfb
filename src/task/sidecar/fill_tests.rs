//! Fills that fail, against a scripted engine.

use super::*;
use crate::docker::Reference;
use crate::sys::cancel::CancelToken;
use crate::task::scripted_engine::{ScriptedEngine, head, json};

const IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef";

fn populate(engine: &ScriptedEngine) -> Result<PopulatedVolume, Failure> {
    let settings = TaskSettings {
        worker_id: "w".into(),
        shared_id: false,
        process_id: "p".into(),
        server_root_url: String::new(),
        volumes: vec![],
        container: Arc::default(),
        env: vec![],
        default_image: Reference::parse("default:1").unwrap(),
        sidecar_image: None,
        idle_on_complete: None,
        session_sharing_server_url: None,
    };
    let sidecars = Sidecars::new(&settings, 1, Arc::default());
    let labels = BTreeMap::new();
    let population =
        Population { volume: "oz-sidecar-v", image_id: IMAGE, image: "agent:v1", labels: &labels };
    engine.with(&CancelToken::new(), |engine| sidecars.populate(engine, &population))
}

/// Answers like an engine on which uploads fail with this status.
fn engine(upload: u16) -> ScriptedEngine {
    ScriptedEngine::start(move |line, stream| {
        let (method, _) = line.split_once(' ').unwrap();
        match method {
            _ if line.contains("/volumes/create") => json(stream, 201, r#"{"Name":"oz-sidecar-v"}"#),
            _ if line.contains("/containers/create") => json(stream, 201, r#"{"Id":"c"}"#),
            _ if line.contains("/export") => head(stream, ""),
            _ if line.contains("/images/") => json(stream, 200, r#"{"Id":"i"}"#),
            "PUT" => json(stream, upload, r#"{"message":"no space left on device"}"#),
            "DELETE" => json(stream, 200, "{}"),
            _ if line.contains("/archive") => json(stream, 404, "{}"),
            _ => json(stream, 200, r#"{"Id":"c"}"#),
        }
    })
}

#[test]
fn a_volume_that_could_not_be_filled_is_removed_at_once() {
    let engine = engine(500);
    let Err(Failure::Failed { reason, message, .. }) = populate(&engine) else { panic!("it was filled") };
    assert_eq!(reason, FailureReason::SidecarPrep);
    assert!(message.contains("no space left on device"), "{message}");
    assert_eq!(engine.count("DELETE /v1.41/volumes/oz-sidecar-v"), 1);
    // The helper, and its source.
    assert_eq!(engine.count("DELETE /v1.41/containers/"), 2);
}

/// As after `docker container prune`.
#[test]
fn a_fill_whose_helper_is_gone_is_repeated_a_few_times() {
    let engine = engine(404);
    populate(&engine).unwrap_err();
    assert_eq!(engine.count("PUT "), FILL_ATTEMPTS);
}
