//! `make install` and `make uninstall`, by a user who may only write to DESTDIR.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::root::run;
use crate::{source, static_binary};

/// A user id that is neither root nor the owner of the sources.
const NOBODY: &str = "65534";

/// A copy of the sources that `make install` needs, and a folder to install to, both readable by everybody.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for part in ["Makefile", "Cargo.toml", "README.md", "CHANGELOG.md", "LICENSE", "packaging"] {
            run(Command::new("cp").arg("-r").arg(source(part)).arg(place.path()));
        }
        std::fs::copy(static_binary(), place.path().join("worker")).unwrap();
        std::fs::create_dir(place.root()).unwrap();
        run(Command::new("chmod").args(["-R", "a+rX"]).arg(place.path()));
        run(Command::new("chown").arg(NOBODY).arg(place.root()));
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn root(&self) -> std::path::PathBuf {
        self.path().join("root")
    }

    /// Runs make as `NOBODY`, without Rust tools in PATH, and returns its output.
    fn make(&self, goals: &[&str]) -> String {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "make", "-C"]).arg(self.path());
        command.args(goals).arg(format!("DESTDIR={}", self.root().display())).arg("WORKER=./worker");
        run(command.env_clear().env("PATH", "/usr/bin:/bin"))
    }

    /// Returns the installed files as sorted lines of `mode path`.
    fn files(&self) -> Vec<String> {
        let found = run(Command::new("find").arg(self.root()).args(["-type", "f", "-printf", "%m %P\\n"]));
        let mut files: Vec<_> = found.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }
}

#[test]
fn everything_is_installed_without_root_and_removed_again() {
    let place = Place::new();
    place.make(&["install"]);
    let expected = [
        "640 etc/oz-agent-worker/worker.env",
        "644 usr/local/lib/systemd/system/oz-agent-worker.service",
        "644 usr/local/lib/systemd/system/oz-agent-worker@.service",
        "644 usr/local/lib/sysusers.d/oz-agent-worker.conf",
        "644 usr/local/share/bash-completion/completions/oz-agent-worker",
        "644 usr/local/share/doc/oz-agent-worker/CHANGELOG.md",
        "644 usr/local/share/doc/oz-agent-worker/LICENSE",
        "644 usr/local/share/doc/oz-agent-worker/README.md",
        "644 usr/local/share/doc/oz-agent-worker/monitoring/alerts.yml",
        "644 usr/local/share/doc/oz-agent-worker/monitoring/dashboard.json",
        "644 usr/local/share/doc/oz-agent-worker/worker.env",
        "644 usr/local/share/fish/vendor_completions.d/oz-agent-worker.fish",
        "644 usr/local/share/man/man1/oz-agent-worker.1",
        "644 usr/local/share/zsh/site-functions/_oz-agent-worker",
        "755 usr/local/bin/oz-agent-worker",
    ];
    assert_eq!(place.files(), expected);
    let unit = place.read("usr/local/lib/systemd/system/oz-agent-worker.service");
    assert!(unit.contains("\nExecStart=/usr/local/bin/oz-agent-worker $OZ_WORKER_ARGS\n"), "{unit}");
    assert!(!unit.contains("DIR@") && !unit.contains("#plain") && !unit.contains("#instance"), "{unit}");
    let instance = place.read("usr/local/lib/systemd/system/oz-agent-worker@.service");
    assert!(instance.contains("\nExecStart=/usr/local/bin/oz-agent-worker --worker-id=%i $OZ_WORKER_ARGS\n"));
    assert!(instance.contains("\nEnvironmentFile=-/etc/oz-agent-worker/%i.env\n"), "{instance}");
    place.make(&["uninstall"]);
    assert_eq!(place.files(), Vec::<String>::new());
    let left = run(Command::new("find").arg(place.root()).args(["-name", "*oz-agent*"]));
    assert_eq!(left, "");
}

#[test]
fn settings_survive_an_install_and_an_uninstall() {
    let place = Place::new();
    place.make(&["install"]);
    let settings = place.root().join("etc/oz-agent-worker/worker.env");
    std::fs::write(&settings, "OZ_WORKER_ID=mine\n").unwrap();
    place.make(&["install"]);
    assert_eq!(place.read("etc/oz-agent-worker/worker.env"), "OZ_WORKER_ID=mine\n");
    let output = place.make(&["uninstall"]);
    assert!(output.contains("kept ") && output.contains("worker.env, which was edited"), "{output}");
    assert_eq!(place.files(), ["640 etc/oz-agent-worker/worker.env"]);
}

#[test]
fn another_prefix_holds_every_file_and_is_named_in_the_units() {
    let place = Place::new();
    place.make(&["install", "PREFIX=/opt/oz", "SYSCONFDIR=/opt/etc"]);
    let files = place.files();
    assert_eq!(files.len(), 15);
    assert!(files.iter().all(|file| file.contains(" opt/oz/") || file.contains(" opt/etc/")), "{files:?}");
    let unit = place.read("opt/oz/lib/systemd/system/oz-agent-worker.service");
    assert!(unit.contains("EnvironmentFile=-/opt/etc/oz-agent-worker/worker.env"), "{unit}");
    place.make(&["uninstall", "PREFIX=/opt/oz", "SYSCONFDIR=/opt/etc"]);
    assert_eq!(place.files(), Vec::<String>::new());
}

#[test]
fn a_prefix_that_a_unit_cannot_name_is_refused() {
    let place = Place::new();
    for prefix in ["opt", "/opt/a b", "/opt/a&b", "/opt/a|b"] {
        let mut command = Command::new("make");
        command
            .arg("-C")
            .arg(place.path())
            .args(["install", "WORKER=./worker"])
            .arg(format!("PREFIX={prefix}"));
        let output = command.arg(format!("DESTDIR={}", place.root().display())).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains("must be absolute paths of letters"), "{stderr}");
        assert_eq!(place.files(), Vec::<String>::new());
    }
}

#[test]
fn a_missing_worker_is_reported_before_anything_is_installed() {
    let place = Place::new();
    std::fs::remove_file(place.path().join("worker")).unwrap();
    let mut command = Command::new("make");
    command.arg("-C").arg(place.path()).args(["install", "WORKER=./worker"]);
    let output = command.arg(format!("DESTDIR={}", place.root().display())).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("run `make build` first"), "{stderr}");
    assert_eq!(place.files(), Vec::<String>::new());
}
