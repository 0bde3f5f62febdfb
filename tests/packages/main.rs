//! Tests of the static binary, the image and the packages. `make test-packages` builds and tests them; a plain `cargo test` does
//! not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]
#![allow(clippy::print_stderr, unreachable_pub, reason = "tests have no log and no public interface")]

mod artifacts;
mod deb;
mod dist;
mod dns;
mod elf;
mod image;
mod install;
mod jail;
mod root;
mod rpm;
mod stage;
mod static_binary;
mod support;
mod systemd;
mod systemd_monitoring;
mod systemd_podman;
mod upgrade;

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::images::tool;

/// The time limit of every wait; far more than needed on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Returns the path of a file in the repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Returns the folder of what is built.
pub fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    target.map_or_else(|| source("target"), |folder| source("").join(folder))
}

/// Returns the architecture whose binary and packages are under test, by its name in rpm: `OZ_TEST_ARCH`, by default this
/// machine's. Programs for another one run in an emulator.
pub fn arch() -> String {
    std::env::var("OZ_TEST_ARCH").unwrap_or_else(|_| ARCH.to_owned())
}

/// Returns the architectures of the release in `target/dist`: `ARCHITECTURES`, by default both.
pub fn architectures() -> Vec<String> {
    let named = std::env::var("ARCHITECTURES").unwrap_or_else(|_| "x86_64 aarch64".to_owned());
    named.split_whitespace().map(str::to_owned).collect()
}

/// Returns the name in Debian of an architecture.
pub fn debian_name(arch: &str) -> &'static str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("unknown architecture {other}"),
    }
}

/// Returns the architecture under test by its name in Debian.
pub fn debian_arch() -> &'static str {
    debian_name(&arch())
}

/// Returns the path of the emulator for the architecture under test, or `None` if that is this machine's.
pub fn emulator() -> Option<PathBuf> {
    (arch() != ARCH).then(|| tool(&format!("qemu-{}-static", arch())))
}

/// Returns the path of the static binary, which `make static` builds.
pub fn static_binary() -> PathBuf {
    static_binary_for(&arch())
}

/// Returns the path of the static binary for an architecture.
pub fn static_binary_for(arch: &str) -> PathBuf {
    let folder = if arch == ARCH { "static".to_owned() } else { format!("static-{arch}") };
    let path = target().join(folder).join("oz-agent-worker");
    assert!(path.is_file(), "{} is missing: run these tests with `make test-packages`", path.display());
    path
}
