//! A chroot that contains only the static binary and the files that a test adds.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::static_binary;
use crate::support::images::tool;
use crate::support::worker::Builder;

/// The root folder; removed when dropped.
pub struct Jail(TempDir);

impl Jail {
    /// Makes a jail with the binary alone. `cp` copies it, because a file that this process writes can be inherited by a child that
    /// another test starts meanwhile, and a file that is open for writing cannot be executed.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("cp").arg(static_binary()).arg(folder.path()).status().unwrap();
        assert!(status.success());
        Self(folder)
    }

    /// Writes a file at an absolute path in the jail.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Copies a file to an absolute path in the jail.
    pub fn copy(&self, from: &Path, path: &str) {
        self.put(path, std::fs::read(from).unwrap());
    }

    /// Returns a builder that runs the binary with this folder as its root; needs root.
    pub fn program(&self) -> Builder {
        assert!(rustix::process::geteuid().is_root(), "chroot needs root: run these tests as root");
        Builder::new(&tool("busybox")).args(["chroot", self.0.path().to_str().unwrap(), "/oz-agent-worker"])
    }
}
