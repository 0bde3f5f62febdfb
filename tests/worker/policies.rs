//! What the operator admits: a refused task pulls nothing, and mounts lead where they may.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::settings::end;
use crate::support::control_plane::{Dialect, Options, RunSpec, State};
use crate::support::engine_proxy::EngineProxy;
use crate::support::fault_proxy::FaultProxy;
use crate::support::images::{AGENT, Layout, RootFs};
use crate::support::registry::Registry;
use crate::support::stage::{DEADLINE, Stage};

const NATIVE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// How many requests a registry has logged for images.
fn requests(registry: &Registry) -> usize {
    registry.log().iter().filter(|line| line.contains("/v2/")).count()
}

/// A registry with `acme/task:1` and `acme/agent:1`, and the same images below `evil`.
fn registry() -> Registry {
    let registry = Registry::open();
    for owner in ["acme", "evil"] {
        let task = RootFs::busybox().file("mark", 0o644, registry.host());
        registry.put(&format!("{owner}/task:1"), task, NATIVE, &["PATH=/bin"]);
        let agent = RootFs::sidecar(Layout::Root, AGENT).file("mark", 0o644, registry.host());
        registry.put(&format!("{owner}/agent:1"), agent, NATIVE, &[]);
    }
    registry
}

#[test]
fn a_task_that_is_not_admitted_is_failed_with_the_reason_and_nothing_is_pulled() {
    let registry = registry();
    let host = registry.host();
    for dialect in [Dialect::Old, Dialect::Upstream] {
        let stage = Stage::with(Options { dialect, ..Options::default() });
        let glob = format!("{host}/acme/*");
        let rules =
            ["--allow-image", &glob, "--allow-env", "OZ_*", "--allow-env", "A", "--deny-env", "OZ_D?"];
        let worker = stage.start(stage.worker_pulling("always").args(rules).args(["--env", "OZ_DX=1"]));
        let before = requests(&registry);
        let good = RunSpec {
            docker_image: Some(format!("{host}/acme/task:1")),
            sidecar_image: format!("{host}/acme/agent:1"),
            ..stage.spec("echo $OZ_DX")
        };
        let image = |image: String| RunSpec { docker_image: Some(image), ..good.clone() };
        let variable = |name: &str| {
            let mut spec = good.clone();
            spec.env_vars.insert(name.to_owned(), "hunter2".to_owned());
            spec
        };
        let sidecar = json!({"image": format!("{host}/evil/agent"), "mount_path": "/x"});
        let id = stage.engine.json("GET", &format!("/images/{}/json", stage.task_image), &json!(null))["Id"]
            .clone();
        let id = id.as_str().unwrap().to_owned();
        let none = "matches no --allow-image of the worker";
        let cases = [
            (image(format!("{host}/evil/task:1")), format!("data.docker_image: {host}/evil/task:1 {none}")),
            (image(format!("{host}/evil/{host}/acme/task:1")), "data.docker_image: image name ".to_owned()),
            (
                image(format!("{host}/evil/acme/task:1")),
                format!("data.docker_image: {host}/evil/acme/task:1 {none}"),
            ),
            (image("acme/task:1".to_owned()), format!("data.docker_image: docker.io/acme/task:1 {none}")),
            (image(id.clone()), format!("data.docker_image: {id:?} may be the id of an image")),
            (
                RunSpec { docker_image: None, ..good.clone() },
                "data.docker_image: must be set, because ".to_owned(),
            ),
            (
                RunSpec { sidecar_image: format!("{host}/evil/agent:1"), ..good.clone() },
                format!("data.sidecar_image: {host}/evil/agent:1 {none}"),
            ),
            (
                RunSpec { additional_sidecars: vec![sidecar], ..good.clone() },
                format!("data.additional_sidecars[0].image: {host}/evil/agent:latest {none}"),
            ),
            (variable("B"), "data.env_vars.B: matches no --allow-env of the worker".to_owned()),
            (variable("OZ_DY"), "data.env_vars.OZ_DY: matches --deny-env of the worker".to_owned()),
        ];
        let reason = if dialect == Dialect::Old { "invalid_assignment" } else { "unknown" };
        for (spec, expected) in &cases {
            let run = stage.run(spec);
            let message = run.message.clone().unwrap_or_default();
            assert!(message.contains(expected.as_str()) && !message.contains("hunter2"), "{message}");
            assert_eq!((run.state, run.failure_reason.as_deref()), (State::Failed, Some(reason)));
            assert_eq!((run.claims, run.history.len()), (0, 1), "{run:#?}");
        }
        assert_eq!(requests(&registry), before, "{:#?}", registry.log());
        worker
            .wait_log(DEADLINE, |line| line.contains("task refused") && line.contains("data.env_vars.OZ_DY"));
        // The operator's own variables are not compared.
        let run = stage.run(&variable("A"));
        assert_eq!(run.state, State::Succeeded, "{run:#?}");
        assert!(dialect != Dialect::Old || run.output.as_deref() == Some("1\n"), "{run:#?}");
        assert!(requests(&registry) > before, "{:#?}", registry.log());
        stage.stop(worker);
        for name in ["acme/task:1", "acme/agent:1"] {
            stage.engine.remove_image(&format!("{host}/{name}"));
        }
    }
}

#[test]
fn local_images_are_found_by_their_names_with_a_registry() {
    let stage = Stage::new();
    let worker = stage.start(stage.worker().args(["--allow-image", "docker.io/library/oz-*"]));
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.stop(worker);
}

/// A folder with `allowed/data`, `allowed/link`, which leads there, and `outside`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["allowed/data", "outside"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    symlink("data", folder.path().join("allowed/link")).unwrap();
    folder
}

fn lead(link: &Path, target: &Path) {
    fs::remove_file(link).unwrap();
    symlink(target, link).unwrap();
}

#[test]
fn a_mount_that_leads_elsewhere_is_refused_before_a_pull_and_at_the_start() {
    let (registry, folder) = (registry(), folder());
    let [allowed, outside, link] =
        ["allowed", "outside", "allowed/link"].map(|name| folder.path().join(name));
    let volume = format!("{}:/data", link.display());
    let stage = Stage::new();
    let proxy = EngineProxy::start(stage.engine.host());
    let rules = ["-v", &volume, "--allow-mount-path", allowed.to_str().unwrap()];
    let worker = stage.start(stage.worker().args(rules).env("DOCKER_HOST", &proxy.host()));
    assert_eq!(stage.run(&stage.spec("echo in > /data/1")).state, State::Succeeded);
    assert_eq!(fs::read_to_string(allowed.join("data/1")).unwrap(), "in\n");
    // The link changes while the container is created.
    let hold = proxy.hold("/containers/create", 1);
    let id = stage.plane.submit(stage.spec("echo out > /data/2"));
    hold.wait(1);
    lead(&link, &outside);
    hold.release();
    let run = stage.plane.wait_ended(&id);
    let message = run.message.unwrap();
    let right = format!("--volumes {link:?} leads to {outside:?}, which is not below any --allow-mount-path");
    assert_eq!((run.failure_reason.as_deref(), message.as_str()), (Some("container_start"), right.as_str()));
    let before = requests(&registry);
    let image = Some(format!("{}/acme/task:1", registry.host()));
    let run = stage.run(&RunSpec { docker_image: image, ..stage.spec("echo out > /data/3") });
    assert_eq!((run.failure_reason.as_deref(), run.message), (Some("container_create"), Some(right)));
    assert_eq!(requests(&registry), before);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    stage.stop(worker);
}

#[test]
fn a_worker_that_cannot_keep_to_its_policies_does_not_start() {
    let (stage, folder) = (Stage::new(), folder());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (allowed, volume) = (path("allowed"), format!("{}:/data", path("allowed/link")));
    let start = |args: &[&str]| {
        let (code, _, err) = end(stage.worker().args(args.iter().copied()).start());
        assert_eq!(code, Some(2), "{err}");
        err
    };
    let err = start(&["--allow-image", "ghcr.io/acme/*", "--default-image", "alpine"]);
    assert!(err.contains("invalid --default-image \"alpine\": must match --allow-image"), "{err}");
    let outside = format!("{}:/x", path("outside"));
    let err = start(&["-v", &outside, "--allow-mount-path", &allowed]);
    assert!(err.contains("which is not below any --allow-mount-path"), "{err}");
    let proxy = FaultProxy::to(stage.engine.host());
    let address = proxy.host();
    let worker = stage.worker().args(["-v", &volume, "--allow-mount-path", &allowed]);
    let (code, _, err) = end(worker.env("DOCKER_HOST", &address).start());
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("the engine is reached over a network"), "{err}");
}
