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
mod systemd_podman;
mod upgrade;

use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// Returns the path of the static binary, which `make static` builds.
pub fn static_binary() -> PathBuf {
    let path = target().join("static/oz-agent-worker");
    assert!(path.is_file(), "{} is missing: run these tests with `make test-packages`", path.display());
    path
}
