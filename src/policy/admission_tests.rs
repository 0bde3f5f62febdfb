use super::*;
use crate::protocol::{AdditionalSidecar, ExecutionKey};
use crate::secret::Secret;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn admission(images: &[&str], variables: &[&str], denied: &[&str]) -> Admission {
    let variable = |texts: &[&str]| texts.iter().map(|text| Glob::variable(text).unwrap()).collect();
    Admission {
        images: images.iter().map(|text| Glob::image(text).unwrap()).collect(),
        variables: variable(variables),
        denied_variables: variable(denied),
        default_image: Reference::parse("ubuntu:22.04").unwrap(),
        replaces_sidecar: false,
    }
}

fn assignment(image: Option<&str>, sidecar: Option<&str>, additional: &[&str]) -> Assignment {
    let mount = |image: &&str| AdditionalSidecar {
        image: (*image).to_owned(),
        mount_path: "/x".to_owned(),
        read_write: false,
    };
    Assignment {
        key: ExecutionKey::new("t", None),
        docker_image: image.map(str::to_owned),
        sidecar_image: sidecar.map(str::to_owned),
        additional_sidecars: additional.iter().map(mount).collect(),
        ..Assignment::default()
    }
}

#[test]
fn every_image_of_a_task_must_match() {
    let admission = admission(&["ghcr.io/acme/*", "docker.io/library/alpine:*"], &[], &[]);
    let refusal = |image: &str| admission.refusal(&assignment(Some(image), None, &[]));
    let both = format!("ghcr.io/acme/x:1@{DIGEST}");
    for image in [
        "ghcr.io/acme/x",
        "GHCR.IO/acme/x:2",
        &both,
        "alpine",
        "docker.io/alpine",
        "index.docker.io/library/alpine:3",
    ] {
        assert_eq!(refusal(image), None, "{image}");
    }
    for (image, name) in [
        ("evil.example/ghcr.io/acme/x", "evil.example/ghcr.io/acme/x:latest"),
        ("acme/x", "docker.io/acme/x:latest"),
        ("ghcr.io:443/acme/x", "ghcr.io:443/acme/x:latest"),
        ("ghcr.io/acme/x/y", "ghcr.io/acme/x/y:latest"),
        (&format!("alpine:3@{DIGEST}"), &format!("docker.io/library/alpine@{DIGEST}")),
        ("busybox", "docker.io/library/busybox:latest"),
    ] {
        let expected = format!("data.docker_image: {name} matches no --allow-image of the worker");
        assert_eq!(refusal(image), Some(expected));
    }
    let good = "ghcr.io/acme/x";
    let refused =
        |sidecar, additional: &[&str]| admission.refusal(&assignment(Some(good), sidecar, additional));
    assert_eq!(refused(Some(good), &[good, "alpine"]), None);
    assert!(
        refused(Some("x"), &[])
            .unwrap()
            .starts_with("data.sidecar_image: docker.io/library/x:latest matches")
    );
    assert!(
        refused(Some(good), &[good, "x"])
            .unwrap()
            .starts_with("data.additional_sidecars[1].image: docker.io/")
    );
}

#[test]
fn an_invalid_name_and_the_id_of_an_image_are_never_admitted() {
    let admission = admission(&["**"], &[], &[]);
    let refusal = |image: &str| admission.refusal(&assignment(Some(image), None, &[]));
    assert_eq!(refusal("a.example/x:1"), None);
    for id in [DIGEST, "sha256:abcd"] {
        assert!(refusal(id).unwrap().contains("may be the id of an image"), "{id}");
    }
    for name in [DIGEST.trim_start_matches("sha256:"), "", "A", "a b"] {
        let text = refusal(name).unwrap();
        assert!(text.starts_with("data.docker_image: image name "), "{text}");
    }
}

#[test]
fn the_image_of_the_operator_counts_where_it_is_used() {
    let mut admission = admission(&["ghcr.io/acme/*"], &[], &[]);
    let text = admission.refusal(&assignment(None, None, &[])).unwrap();
    let expected = "data.docker_image: must be set, because the worker's default image docker.io/library/ubuntu:22.04 matches no --allow-image \
                    of the worker";
    assert_eq!(text, expected);
    admission.default_image = Reference::parse("ghcr.io/acme/base").unwrap();
    assert_eq!(admission.refusal(&assignment(None, None, &[])), None);
    assert!(admission.refusal(&assignment(None, Some("evil"), &[])).is_some());
    // The assignment's is not used.
    admission.replaces_sidecar = true;
    assert_eq!(admission.refusal(&assignment(None, Some("evil"), &[])), None);
    assert!(admission.refusal(&assignment(None, Some("evil"), &["evil"])).is_some());
}

#[test]
fn a_denied_variable_is_refused_also_if_it_is_allowed() {
    let refusal = |variables: &[&str], denied: &[&str], names: &[&str]| {
        let env_vars = names.iter().map(|name| ((*name).to_owned(), Secret::new("hunter2"))).collect();
        let assignment = Assignment { env_vars, ..assignment(Some("x"), None, &[]) };
        let text = admission(&[], variables, denied).refusal(&assignment);
        assert!(!text.clone().unwrap_or_default().contains("hunter2"));
        text
    };
    assert_eq!(refusal(&[], &[], &["A"]), None);
    assert_eq!(refusal(&["A", "B*"], &[], &["A", "B", "B2"]), None);
    assert_eq!(
        refusal(&["A"], &[], &["A", "C"]).unwrap(),
        "data.env_vars.C: matches no --allow-env of the worker"
    );
    assert_eq!(
        refusal(&[], &["LD_*"], &["LD_PRELOAD", "A"]).unwrap(),
        "data.env_vars.LD_PRELOAD: matches --deny-env of the worker"
    );
    assert_eq!(refusal(&["*"], &["A"], &["A"]).unwrap(), "data.env_vars.A: matches --deny-env of the worker");
    assert_eq!(refusal(&["*"], &["A"], &["B"]), None);
    let long = "X\n".repeat(5000);
    let text = refusal(&["A"], &[], &[&long]).unwrap();
    assert!(text.len() < 500 && !text.contains('\n'), "{text}");
}
