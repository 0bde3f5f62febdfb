//! A chroot that contains only the static binary and the files that a test adds, and the emulator if the binary needs one.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::images::tool;
use crate::support::worker::WorkerBuilder;
use crate::{emulator, static_binary};

/// The root folder; removed when dropped.
pub struct Jail(TempDir);

impl Jail {
    /// Makes a jail with the binary. `cp` copies it, because a file that this process writes can be inherited by a child that
    /// another test starts meanwhile, and a file that is open for writing cannot be executed.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in [Some(static_binary()), emulator()].into_iter().flatten() {
            let status = Command::new("cp").arg(file).arg(folder.path()).status().unwrap();
            assert!(status.success());
        }
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
    pub fn program(&self) -> WorkerBuilder {
        assert!(rustix::process::geteuid().is_root(), "chroot needs root: run these tests as root");
        let emulator = emulator().map(|path| format!("/{}", path.file_name().unwrap().display()));
        let program = emulator.iter().map(String::as_str).chain(["/oz-agent-worker"]);
        WorkerBuilder::new(&tool("busybox")).args(["chroot", self.0.path().to_str().unwrap()]).args(program)
    }
}
