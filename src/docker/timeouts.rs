//! Time limits of the phases of an engine call.

use std::time::{Duration, Instant};

/// Longer limits are cut to this, as an `Instant` cannot represent every duration.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time limits. Tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole connect: all addresses of a host, and TLS.
    pub connect: Duration,
    /// From the end of the request to the response's head, for most calls.
    pub head: Duration,
    /// Like `head`, for create and start: they may copy an image's folder into a new volume.
    pub create: Duration,
    /// The longest silence within a body, and the longest time that a write may block.
    pub idle: Duration,
    /// The longest silence of a pull. The engine is silent while it unpacks a large layer.
    pub pull_idle: Duration,
    /// How long to wait for the exit of a container that was killed.
    pub stop_margin: Duration,
    /// How long to wait for a removal that is already in progress.
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

/// Returns the instant when `limit` ends.
pub(super) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST)
}
