//! Remembers failed pulls for a short time, so that not every task asks a registry that does not answer. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::secret::Secret;

/// How long a failed pull is not repeated with the same credentials.
const MEMORY: Duration = Duration::from_secs(30);

/// The most images that are remembered.
const MAX_IMAGES: usize = 256;

/// The last failed pull of each image.
#[derive(Default)]
pub(super) struct FailedPulls(HashMap<String, FailedPull>);

struct FailedPull {
    /// The credentials that were used.
    auth: Option<Secret>,
    at: Instant,
}

impl FailedPulls {
    /// Whether the pull of this image with these credentials has just failed.
    pub(super) fn is_recent(&self, image: &str, auth: Option<&Secret>, now: Instant) -> bool {
        let failed = self.0.get(image).filter(|failed| failed.auth.as_ref() == auth);
        failed.is_some_and(|failed| now.saturating_duration_since(failed.at) < MEMORY)
    }

    /// Records that the pull has failed.
    pub(super) fn record(&mut self, image: String, auth: Option<Secret>, now: Instant) {
        if self.0.len() >= MAX_IMAGES {
            self.0.clear();
        }
        self.0.insert(image, FailedPull { auth, at: now });
    }

    /// Records that a pull has succeeded.
    pub(super) fn forget(&mut self, image: &str) {
        self.0.remove(image);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_counts_for_30_seconds_and_for_the_same_credentials() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (old, new) = (Secret::new("old"), Secret::new("new"));
        let mut failed = FailedPulls::default();
        failed.record("a".into(), Some(old.clone()), start);
        assert!(failed.is_recent("a", Some(&old), at(29)) && !failed.is_recent("a", Some(&old), at(30)));
        assert!(!failed.is_recent("a", Some(&new), start), "a new login");
        assert!(!failed.is_recent("a", None, start) && !failed.is_recent("b", Some(&old), start));
        failed.record("a".into(), None, at(40));
        assert!(failed.is_recent("a", None, at(41)));
        failed.forget("a");
        assert!(!failed.is_recent("a", None, at(41)));
    }

    #[test]
    fn the_number_of_images_is_bounded() {
        let now = Instant::now();
        let mut failed = FailedPulls::default();
        for image in 0..3 * MAX_IMAGES {
            failed.record(image.to_string(), None, now);
            assert!(failed.0.len() <= MAX_IMAGES && failed.is_recent(&image.to_string(), None, now));
        }
    }
}
