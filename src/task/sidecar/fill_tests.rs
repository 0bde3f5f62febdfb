//! Fills that fail, against a scripted engine.

use super::*;
use crate::sys::cancel::CancelToken;
use crate::task::scripted_engine::{ScriptedEngine, head, json};

const IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef";

fn populate(engine: &ScriptedEngine) -> Result<PopulatedVolume, Failure> {
    let settings = TaskSettings::plain();
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

/// Both are tried again later: else they would stay until the next start.
#[test]
fn helpers_that_cannot_be_removed_are_handed_over() {
    let engine = ScriptedEngine::start(|line, stream| match line {
        _ if line.contains("/volumes/create") => json(stream, 201, r#"{"Name":"oz-sidecar-v"}"#),
        _ if line.contains("/containers/create?name=oz-fill-oz-sidecar-v-source") => {
            json(stream, 201, r#"{"Id":"source"}"#);
        }
        _ if line.contains("/containers/create") => json(stream, 201, r#"{"Id":"populator"}"#),
        _ if line.contains("/archive") => json(stream, 404, "{}"),
        _ if line.starts_with("DELETE") => json(stream, 500, r#"{"message":"device is busy"}"#),
        _ if line.contains("/export") => json(stream, 500, r#"{"message":"no such layer"}"#),
        _ => json(stream, 200, r#"{"Id":"c"}"#),
    });
    populate(&engine).unwrap_err();
    let left = engine.left.lock().unwrap();
    let ids: Vec<_> = left.iter().map(|left| left.id.as_deref()).collect();
    assert_eq!(ids, [Some("source"), Some("populator")]);
    assert!(left.iter().all(|left| !left.started && left.volumes.is_empty()), "{left:?}");
}

/// As after `docker container prune`.
#[test]
fn a_fill_whose_helper_is_gone_is_repeated_a_few_times() {
    let engine = engine(404);
    populate(&engine).unwrap_err();
    assert_eq!(engine.count("PUT "), FILL_ATTEMPTS);
}
