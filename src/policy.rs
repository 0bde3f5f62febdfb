//! The operator's choices that reach the coordinator and the tasks.

use std::fmt;

/// When images are pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always, but an image that is here for the right platform is used when the pull fails.
    Auto,
    /// Always, and a pull that fails is a failure.
    Always,
    /// Only when the image is not here.
    Missing,
    /// Not at all.
    Never,
}

/// What becomes of a task whose run the control plane has failed while it was running here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostRuns {
    /// It is stopped.
    Stop,
    /// It goes on to its end, and is reported.
    Finish,
}

/// One mount, checked. `Display` gives the engine's `Binds` string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeBind {
    /// An absolute path of the engine's host, or the name of a volume. Without a colon.
    pub host: String,
    /// An absolute path in the container: no `.`, `..`, empty parts or colon; not `/`, not `/agent` or below it.
    pub container: String,
    /// A comma-separated list of words the engine knows, or empty.
    pub mode: String,
}

impl fmt::Display for VolumeBind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.container)?;
        if self.mode.is_empty() { Ok(()) } else { write!(f, ":{}", self.mode) }
    }
}
