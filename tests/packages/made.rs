//! The packages that are tested, made of the static binary.
//!
//! `make test-packages` makes them before; nothing here builds the worker.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::root::run;
use crate::{source, static_binary};

/// A file in `target/dist`.
pub fn dist(name: &str) -> PathBuf {
    let path = static_binary().with_file_name("../dist").join(name);
    assert!(path.exists(), "{} is not there: run these tests with `make test-packages`", path.display());
    path
}

/// The version of the project.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The deb, or with release 2 one that upgrades it.
pub fn deb(release: u8) -> PathBuf {
    let name = format!("oz-agent-worker_{VERSION}-{release}_amd64.deb");
    if release == 1 { dist(&name) } else { next().join(name) }
}

/// The rpm, likewise.
pub fn rpm(release: u8) -> PathBuf {
    let name = format!("oz-agent-worker-{VERSION}-{release}.x86_64.rpm");
    if release == 1 { dist(&name) } else { next().join(name) }
}

/// Makes a package again.
pub fn package(kind: &str, release: u8, out: &Path) {
    let mut command = Command::new(source("packaging/package.sh"));
    run(command.arg(kind).env("WORKER", static_binary()).env("OUT", out).env("RELEASE", release.to_string()));
}

/// The folder with both packages of release 2, made once.
fn next() -> &'static Path {
    static NEXT: OnceLock<TempDir> = OnceLock::new();
    let made = NEXT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        ["deb", "rpm"].into_iter().for_each(|kind| package(kind, 2, folder.path()));
        folder
    });
    made.path()
}

/// Every file and folder of the worker's in a root, as `mode owner:group path`, but for those that belong to all.
pub const OURS: &str = "find / -xdev -name '*oz-agent-worker*' -not -path '/var/lib/dpkg/*' -not -path '/root/*' \
    -not -path '/var/lib/rpm/*' -exec find '{}' -printf '%m %u:%g %p\\n' ';' | LC_ALL=C sort -u";
