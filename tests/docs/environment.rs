//! The sample environment file, as a shell and the scripts of a package read it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{page, quietly};
use crate::support::worker::binary;

/// The sample with these variables set, as an operator would.
fn edited(settings: &[(&str, &str)]) -> String {
    let mut sample = page("environment");
    for (name, value) in settings {
        let line = sample.lines().find(|line| line.starts_with(&format!("#{name}="))).unwrap().to_owned();
        sample = sample.replace(&format!("\n{line}\n"), &format!("\n{name}={value}\n"));
    }
    sample
}

/// The environment after `sh` has read the file.
fn variables(file: &Path) -> BTreeSet<String> {
    let script = "set -a; . \"$1\"; set +a; exec /usr/bin/env";
    let mut command = Command::new("/bin/sh");
    command.args(["-eu", "-c", script, "sh"]).arg(file).env_clear();
    let lines = quietly(&mut command);
    let own = ["PWD=", "_=", "SHLVL=", "OLDPWD=", "LC_ALL="];
    lines.lines().filter(|line| !own.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.env");
    std::fs::write(&file, text).unwrap();
    (folder, file)
}

#[test]
fn a_shell_reads_no_variable_from_the_sample() {
    let (_folder, file) = written(&page("environment"));
    assert_eq!(variables(&file), BTreeSet::new());
}

#[test]
fn a_shell_reads_the_variables_that_were_set_and_the_worker_uses_them() {
    let (_folder, file) = written(&edited(&[
        ("OZ_API_KEY", "'a $key with \\ and \"'"),
        ("OZ_WORKER_ID", "build-host-1"),
        ("OZ_SERVER_ROOT_URL", "https://oz.example.com"),
        ("OZ_TASK_TIMEOUT", "90m"),
        ("OZ_ENGINE_START_TIMEOUT", "0"),
        ("DOCKER_HOST", "unix:///nonexistent/docker.sock"),
    ]));
    let expected = [
        "OZ_API_KEY=a $key with \\ and \"",
        "OZ_WORKER_ID=build-host-1",
        "OZ_SERVER_ROOT_URL=https://oz.example.com",
        "OZ_TASK_TIMEOUT=90m",
        "OZ_ENGINE_START_TIMEOUT=0",
        "DOCKER_HOST=unix:///nonexistent/docker.sock",
    ];
    assert_eq!(variables(&file), expected.map(str::to_owned).into());
    let mut worker = Command::new("/bin/sh");
    worker.args(["-c", "set -a; . \"$1\"; exec \"$2\"", "sh"]).arg(&file).arg(binary()).env_clear();
    let output = worker.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    // Exit code 4 is for no engine; an invalid setting would be 2.
    assert_eq!(output.status.code(), Some(4), "{log}");
    assert!(log.contains("worker=build-host-1") && log.contains("/nonexistent/docker.sock"), "{log}");
}

#[test]
fn every_variable_is_set_by_removing_its_mark() {
    let sample = page("environment");
    let all: String = sample
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let (_folder, file) = written(&all);
    let expected: BTreeSet<_> = super::parse::environment(&sample)
        .into_iter()
        .map(|(name, (_, value))| format!("{name}={value}"))
        .collect();
    assert_eq!(variables(&file), expected);
}

/// The scripts of packages start the service only if a key is set.
#[test]
fn a_script_can_see_whether_a_key_is_set() {
    let is_configured = |text: &str| {
        let (_folder, file) = written(text);
        let status = Command::new("grep")
            .args(["-qE", "^(OZ_API_KEY(_FILE)?|WARP_API_KEY)=."])
            .arg(&file)
            .status()
            .unwrap();
        status.success()
    };
    assert!(!is_configured(&page("environment")));
    assert!(!is_configured(&edited(&[("OZ_API_KEY", "")])));
    assert!(is_configured(&edited(&[("OZ_API_KEY", "k")])));
    assert!(is_configured(&edited(&[("WARP_API_KEY", "k")])));
    assert!(is_configured(&edited(&[("OZ_API_KEY_FILE", "/etc/oz-agent-worker/key")])));
}
