//! How long the engine may take, phase by phase.
//!
//! Owns the numbers and their reasons. It must not know how they are enforced.

use std::time::{Duration, Instant};

/// A limit beyond this is as good as none, and an `Instant` cannot hold any number.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Every deadline of this room. Tests make them short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole connect, all addresses of a host together.
    pub connect: Duration,
    /// From the request's end to the response's head, for calls that only look something up or flip a state.
    pub head: Duration,
    /// The same for a create: it may copy an image's folder into a new volume first.
    pub create: Duration,
    /// The longest silence within a body, and the longest that a write may be stuck.
    pub idle: Duration,
    /// The longest silence of a pull: the engine says nothing while it unpacks a large layer.
    pub pull_idle: Duration,
    /// What a stop may take beyond the grace time that it was given.
    pub stop_margin: Duration,
    /// How long a removal that somebody else began is waited for.
    pub remove: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(60),
            create: Duration::from_secs(120),
            idle: Duration::from_secs(60),
            pull_idle: Duration::from_secs(300),
            stop_margin: Duration::from_secs(30),
            remove: Duration::from_secs(30),
        }
    }
}

/// The moment when `limit` will be over.
pub(super) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST)
}
