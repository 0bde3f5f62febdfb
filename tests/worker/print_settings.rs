//! `--print settings`: settings to stdout, what is wrong with them to stderr.

use crate::support::worker::{WorkerBuilder, binary};

use super::settings::{end, write_file};

#[test]
fn settings_are_listed_with_their_origins_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let key = write_file(folder.path(), "key", b"MARKER-key\n");
    let text = format!(
        "OZ_API_KEY_FILE={key}\nOZ_SERVER_ROOT_URL=https://oz.example.com\nHTTPS_PROXY=http://me:MARKER-p@proxy:3128\n"
    );
    let file = write_file(folder.path(), "worker.env", text.as_bytes());
    let start = || WorkerBuilder::new(&binary()).args(["--print", "settings", "--settings-file", &file]);
    let (code, out, err) = end(start().args(["--worker-id=w", "-e", "TOKEN=MARKER-t"]).start());
    assert_eq!((code, err.lines().count()), (Some(0), 1), "{err}");
    assert!(err.starts_with("oz-agent-worker: warning: API key file readable by all users path="), "{err}");
    let line = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line("OZ_API_KEY_FILE"), [format!("{file}:1"), key]);
    assert_eq!(line("OZ_WORKER_ID"), ["--worker-id", "w"]);
    assert_eq!(line("OZ_ENV"), ["--env", "TOKEN=(hidden)"]);
    assert_eq!(line("HTTPS_PROXY"), [format!("{file}:3"), "http://...@proxy:3128".to_owned()]);
    assert_eq!(line("OZ_DRAIN_TIMEOUT"), ["environment", "0"]);
    assert_eq!(line("OZ_TASK_TIMEOUT"), ["default", "8h"]);
    assert!(!out.contains("MARKER"), "{out}");
}

#[test]
fn settings_that_are_missing_or_wrong_are_listed_and_reported() {
    let start = || WorkerBuilder::new(&binary()).args(["--print=settings", "--worker-id=w"]);
    let (code, out, err) = end(start().env("OZ_APIKEY", "MARKER").env("OZ_PULL", "x").start());
    let expected = [
        "oz-agent-worker: missing API key: set OZ_API_KEY or OZ_API_KEY_FILE",
        "oz-agent-worker: invalid OZ_PULL \"x\": must be one of auto, always, missing, never",
        "oz-agent-worker: warning: variable not known name=OZ_APIKEY nearest=OZ_API_KEY",
    ];
    assert_eq!((code, err), (Some(2), expected.join("\n")));
    assert!(out.lines().any(|line| line.starts_with("OZ_PULL ") && line.ends_with("  x")), "{out}");
    let (code, out, err) = end(start().args(["--settings-file=/nonexistent", "--ca-file=/gone"]).start());
    assert_eq!((code, err.lines().count()), (Some(2), 2), "{err}");
    assert!(err.contains("cannot read --settings-file \"/nonexistent\"") && out.contains("/gone"), "{err}");
    let (code, _, err) = end(start().env("OZ_API_KEY", "k").args(["--ca-file=/gone"]).start());
    assert!(code == Some(2) && err.contains("cannot use --ca-file \"/gone\""), "{err}");
}

/// A name that is misspelt explains why a setting is missing.
#[test]
fn a_start_that_fails_names_unknown_variables() {
    let worker = WorkerBuilder::new(&binary()).args(["--worker-id=w"]).env("OZ_APIKEY", "MARKER");
    let (code, _, err) = end(worker.start());
    assert_eq!((code, err.lines().count()), (Some(2), 2), "{err}");
    assert!(err.ends_with("warning: variable not known name=OZ_APIKEY nearest=OZ_API_KEY"), "{err}");
}
