//! Paths of the packages under test, which `make test-packages` builds first.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::root::run;
use crate::{arch, debian_arch, source, static_binary};

/// Returns the path of a file in `target/dist`.
pub fn dist(name: &str) -> PathBuf {
    let path = static_binary().with_file_name("../dist").join(name);
    assert!(path.exists(), "{} is missing: run these tests with `make test-packages`", path.display());
    path
}

/// The version of the project.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns the path of the deb: release 1 from `target/dist`, release 2 made here to test upgrades.
pub fn deb(release: u8) -> PathBuf {
    let name = format!("oz-agent-worker_{VERSION}-{release}_{}.deb", debian_arch());
    if release == 1 { dist(&name) } else { upgrades().join(name) }
}

/// Returns the path of the rpm, release 1 or 2.
pub fn rpm(release: u8) -> PathBuf {
    let name = format!("oz-agent-worker-{VERSION}-{release}.{}.rpm", arch());
    if release == 1 { dist(&name) } else { upgrades().join(name) }
}

/// Makes a package of the static binary in the folder `out`.
pub fn package(kind: &str, release: u8, out: &Path) {
    let mut command = Command::new(source("packaging/package.sh"));
    run(command.arg(kind).arg(static_binary()).env("OUT", out).env("RELEASE", release.to_string()));
}

/// Returns the folder with both packages of release 2, made once.
fn upgrades() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        for kind in ["deb", "rpm"] {
            package(kind, 2, folder.path());
        }
        folder
    });
    folder.path()
}

/// A shell command that lists the worker's files and folders as `mode owner:group path`, without the package manager's own.
pub const INSTALLED: &str = "find / -xdev -name '*oz-agent-worker*' -not -path '/var/lib/dpkg/*' -not -path '/root/*' \
    -not -path '/var/lib/rpm/*' -exec find '{}' -printf '%m %u:%g %p\\n' ';' | LC_ALL=C sort -u";
