//! A root folder with nothing in it but the static binary and what a test puts there.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::static_binary;
use crate::support::images::tool;
use crate::support::worker::WorkerBuilder;

/// The folder; it goes when it is dropped.
pub struct Jail(TempDir);

impl Jail {
    /// The binary alone. Another process copies it: what is open for writing here is so for a moment in any child that
    /// another test starts meanwhile, and a file that is open for writing cannot be run.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("cp").arg(static_binary()).arg(folder.path()).status().unwrap();
        assert!(status.success());
        Self(folder)
    }

    /// Puts a file at an absolute path of the jail.
    pub fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Puts a copy of a file there.
    pub fn copy(&self, from: &Path, path: &str) {
        self.put(path, std::fs::read(from).unwrap());
    }

    /// The binary with this folder as its root, which only root can have.
    pub fn program(&self) -> WorkerBuilder {
        assert!(rustix::process::geteuid().is_root(), "only root can change a process's root folder");
        WorkerBuilder::new(&tool("busybox")).args([
            "chroot",
            self.0.path().to_str().unwrap(),
            "/oz-agent-worker",
        ])
    }
}
