//! What the threads of tasks measure.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::Histogram;

/// The bounds of the histograms of steps, in milliseconds.
const BOUNDS: &[u64] =
    &[100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000];

/// How long the steps of tasks took, and how often a clean-up failed.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Pulls of images.
    pub(crate) pulls: Histogram,
    /// Fills of sidecar volumes.
    pub(crate) sidecars: Histogram,
    /// Starts of containers, each one call to the engine.
    pub(crate) starts: Histogram,
    failed_cleanups: AtomicU64,
}

impl Default for Steps {
    fn default() -> Self {
        let [pulls, sidecars, starts] = [(); 3].map(|()| Histogram::new(BOUNDS));
        Self { pulls, sidecars, starts, failed_cleanups: AtomicU64::new(0) }
    }
}

impl Steps {
    /// Counts a container or a volume that could not be removed.
    pub(crate) fn cleanup_failed(&self) {
        self.failed_cleanups.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many containers and volumes could not be removed.
    pub(super) fn failed_cleanups(&self) -> u64 {
        self.failed_cleanups.load(Ordering::Relaxed)
    }
}
