//! Pull policies, against a scripted engine.

use std::os::unix::net::UnixStream;

use super::*;
use crate::sys::cancel::CancelToken;
use crate::task::scripted_engine::{ScriptedEngine, json};

const LOCAL: &str = r#"{"Id":"sha256:1","Os":"linux","Architecture":"amd64"}"#;
const FOREIGN: &str = r#"{"Id":"sha256:1","Os":"linux","Architecture":"s390x"}"#;

/// Returns an engine whose pulls fail, with `image` for every name.
fn engine(image: &'static str) -> ScriptedEngine {
    ScriptedEngine::start(move |line: &str, stream: &mut UnixStream| {
        if line.contains("/images/create") {
            json(stream, 500, r#"{"message":"the registry says: transport is closing"}"#);
        } else {
            json(stream, 200, image);
        }
    })
}

fn images(policy: PullPolicy, config: &std::path::Path) -> Images {
    Images::new(policy, RegistryEnv::new(Some(config.as_os_str()), None, Vec::new()), Arc::default())
}

fn ensure(engine: &ScriptedEngine, images: &Images) -> Result<Image, Failure> {
    let image = Reference::parse("registry.example/team/task:v1").unwrap();
    engine.with(&CancelToken::new(), |engine| images.ensure(engine, &image))
}

#[test]
fn a_pull_that_has_just_failed_is_not_repeated_until_the_login_changes() {
    let config = tempfile::tempdir().unwrap();
    let engine = engine(LOCAL);
    let images = images(PullPolicy::Auto, config.path());
    for _ in 0..3 {
        assert_eq!(ensure(&engine, &images).unwrap().id, "sha256:1");
    }
    assert_eq!(engine.count("/images/create"), 1);
    let login = r#"{"auths":{"registry.example":{"auth":"dTpw"}}}"#;
    std::fs::write(config.path().join("config.json"), login).unwrap();
    for _ in 0..2 {
        ensure(&engine, &images).unwrap();
    }
    assert_eq!(engine.count("/images/create"), 2, "a new login counts at once");
}

#[test]
fn a_failed_pull_is_repeated_without_a_usable_local_image() {
    let config = tempfile::tempdir().unwrap();
    let engine = engine(FOREIGN);
    let images = images(PullPolicy::Auto, config.path());
    for _ in 0..2 {
        let Err(Failure::Failed { reason, message, .. }) = ensure(&engine, &images) else { panic!("usable") };
        assert_eq!(reason, FailureReason::ImagePull);
        assert!(message.ends_with("; the image on this engine is for linux/s390x"), "{message}");
    }
    assert_eq!(engine.count("/images/create"), 2);
}

#[test]
fn a_message_tells_that_an_image_is_there_for_another_platform() {
    let config = tempfile::tempdir().unwrap();
    let images = images(PullPolicy::Never, config.path());
    let Err(Failure::Failed { message, .. }) = ensure(&engine(FOREIGN), &images) else { panic!("usable") };
    assert!(message.ends_with("is for linux/s390x, and this engine runs linux/amd64"), "{message}");
}

#[test]
fn an_image_that_names_no_platform_is_used() {
    let config = tempfile::tempdir().unwrap();
    for policy in [PullPolicy::Never, PullPolicy::Missing, PullPolicy::Auto] {
        for image in [r#"{"Id":"sha256:1"}"#, r#"{"Id":"sha256:1","Os":"linux","Architecture":""}"#] {
            ensure(&engine(image), &images(policy, config.path())).unwrap();
        }
    }
}
