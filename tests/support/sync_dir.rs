//! A folder mounted into tasks at `/sync`, by which tasks and the test wait for each other.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::Command;

use tempfile::TempDir;

use super::stage::Stage;

/// In a task's script: blocks until the test calls [`SyncDir::release`].
pub const WAIT: &str = "read x < /sync/pipe";

/// The folder. Tasks append lines to `/sync/log` and block on `/sync/pipe`, where each line releases one of them.
pub struct SyncDir {
    folder: TempDir,
    pipe: File,
}

impl SyncDir {
    /// Creates the folder and its pipe.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        // With both ends open here, opening the pipe never blocks a task and reading it never ends.
        let pipe = OpenOptions::new().read(true).write(true).open(path).unwrap();
        Self { folder, pipe }
    }

    /// Returns the value for the worker's `-v`.
    pub fn mount(&self) -> String {
        format!("{}:/sync", self.folder.path().display())
    }

    /// Lets `count` tasks continue, those that wait now or later.
    pub fn release(&self, count: usize) {
        (&self.pipe).write_all("\n".repeat(count).as_bytes()).unwrap();
    }

    /// Returns the lines that tasks have appended to `/sync/log`.
    pub fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until tasks have appended `count` lines.
    pub fn wait_lines(&self, stage: &Stage, count: usize) {
        stage.wait(&format!("/sync/log has {count} lines"), || self.lines().len() >= count);
    }
}
