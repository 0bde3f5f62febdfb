//! Time limits of the phases of an engine call.

use std::time::{Duration, Instant};

use super::request::Limit;

/// Longer limits are cut to this, as an `Instant` cannot represent every duration.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The time limits. Tests shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole connect: all addresses of a host, and TLS.
    pub connect: Duration,
    /// From the end of the request to the end of the response, for most calls.
    pub call: Duration,
    /// Like `call`, for lists.
    pub list: Duration,
    /// Like `call`, for the inspects at a start that the list can replace.
    pub search: Duration,
    /// Like `call`, for create and start: they may copy an image's folder into a new volume.
    pub create: Duration,
    /// From the end of the request to the response's head, for calls whose response may take any time.
    pub head: Duration,
    /// The longest silence within a body, and the longest time that a write may block.
    pub idle: Duration,
    /// The longest silence of a pull. The engine is silent while it unpacks a large layer.
    pub pull_idle: Duration,
    /// How long to wait for the exit of a container that was killed.
    pub stop_margin: Duration,
    /// Like `call`, for the removal of a container, and for waiting until one that is already in progress is done.
    pub remove: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            call: Duration::from_secs(60),
            list: Duration::from_secs(120),
            search: Duration::from_secs(10),
            create: Duration::from_secs(300),
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            pull_idle: Duration::from_secs(300),
            stop_margin: Duration::from_secs(30),
            remove: Duration::from_secs(600),
        }
    }
}

/// The end of a call's time.
#[derive(Debug, Clone, Copy)]
pub(super) struct End {
    pub(super) at: Instant,
    /// How long that was away at first, for errors.
    pub(super) limit: Duration,
}

impl End {
    /// Returns the end of a limit that begins now.
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: deadline(limit), limit }
    }

    /// Returns the end of a limit that begins now, if it is one for the whole response.
    pub(super) fn of(limit: Limit) -> Option<Self> {
        match limit {
            Limit::Whole(limit) => Some(Self::after(limit)),
            Limit::Head(_) => None,
        }
    }
}

/// Returns the instant when `limit` ends.
pub(super) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit.min(LONGEST)
}
