//! Where tasks wait for the test, and tell it how far they are: a folder that is mounted into them at `/gate`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::process::Command;

use tempfile::TempDir;

use super::Stage;

/// In a script: goes on once the test lets it, see [`Gate::open`].
pub(crate) const PASS: &str = "read x < /gate/pipe";

/// The folder, with a pipe that lets as many tasks through as bytes are written into it.
pub(crate) struct Gate {
    folder: TempDir,
    pipe: File,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        // Open for both, it neither blocks nor ever ends.
        let pipe = OpenOptions::new().read(true).write(true).open(path).unwrap();
        Self { folder, pipe }
    }

    /// For the worker's `-v`.
    pub(crate) fn mount(&self) -> String {
        format!("{}:/gate", self.folder.path().display())
    }

    /// Lets `count` tasks go on, those that wait and those that will.
    pub(crate) fn open(&self, count: usize) {
        (&self.pipe).write_all("\n".repeat(count).as_bytes()).unwrap();
    }

    /// What scripts have told with `echo ... >> /gate/log`, by lines.
    pub(crate) fn told(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until scripts have told so many lines.
    pub(crate) fn wait_told(&self, stage: &Stage, count: usize) {
        stage.wait(&format!("{count} lines are told"), || self.told().len() >= count);
    }
}
