//! Choices of the operator that the coordinator and the tasks act on.

mod admission;
mod container;
mod glob;
mod paths;

use std::fmt;

pub use admission::Admission;
pub(crate) use container::{ContainerOptions, Gpus, NO_NEW_PRIVILEGES, Ulimit};
pub use glob::{Glob, MAX_GLOB};
pub(crate) use paths::{check_folder, is_below, is_of_engine};

/// The most bytes of an argument, or of a variable with its name, that Linux passes to a process: 128 KiB with a final NUL.
pub(crate) const MAX_STRING: usize = 128 * 1024 - 1;

/// When to pull images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always; if the pull fails, a local image for the right platform is used.
    Auto,
    /// Always; if the pull fails, the task fails.
    Always,
    /// Only if there is no local image.
    Missing,
    /// Never.
    Never,
}

/// What to do with a running task whose run the control plane has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostRuns {
    /// Stop it.
    Stop,
    /// Let it finish, and report it.
    Finish,
}

/// A valid mount. `Display` writes it as the engine's `Binds` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeBind {
    /// An absolute path on the engine's host, or the name of a volume. No colon.
    pub host: String,
    /// An absolute path in the container, without `.`, `..`, empty parts or colon. Not `/`, nor `/agent` or below.
    pub container: String,
    /// A comma-separated list of the engine's mode words, or empty.
    pub mode: String,
}

impl fmt::Display for VolumeBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.container)?;
        if self.mode.is_empty() { Ok(()) } else { write!(f, ":{}", self.mode) }
    }
}
