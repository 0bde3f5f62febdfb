//! What operators install, tested as it is handed to them: the static binary and the image. `make test-packages` builds them
//! and runs this; a plain `cargo test` does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed, and a panic with its place is how that is said"
)]
#![allow(clippy::print_stderr, unreachable_pub, reason = "it has no log and no public interface of its own")]

mod deb;
mod dist;
mod dns;
mod elf;
mod image;
mod install;
mod jail;
mod made;
mod root;
mod rpm;
mod stage;
mod static_binary;
mod support;
mod systemd;

use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long anything is waited for: far longer than it takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A file of the repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What `make static` builds.
pub fn static_binary() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").filter(|folder| !folder.is_empty());
    let target = target.map_or_else(|| source("target"), |folder| source("").join(folder));
    let path = target.join("static/oz-agent-worker");
    assert!(path.is_file(), "{} is missing: run these tests with `make test-packages`", path.display());
    path
}
