//! Durations, counted in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A histogram of durations. Threads may observe and read it at the same time.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// The upper bounds of the buckets in milliseconds, ascending.
    bounds: &'static [u64],
    /// One for each bound, and one for longer durations.
    counts: Box<[AtomicU64]>,
    micros: AtomicU64,
}

impl Histogram {
    /// Returns an empty histogram with these upper bounds, in milliseconds.
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, micros: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub(crate) fn observe(&self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| Duration::from_millis(*bound) < took);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Returns each bound, in seconds, with the number of durations up to it, and the number of all.
    pub(super) fn cumulative(&self) -> (Vec<(f64, u64)>, u64) {
        let mut total = 0;
        let mut sums = self.counts.iter().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        });
        let buckets: Vec<_> =
            self.bounds.iter().map(|bound| *bound as f64 / 1000.0).zip(sums.by_ref()).collect();
        let all = sums.last().unwrap_or_default();
        (buckets, all)
    }

    /// Returns the sum of all durations, in seconds.
    pub(super) fn sum(&self) -> f64 {
        Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64()
    }
}

impl Clone for Histogram {
    fn clone(&self) -> Self {
        let copy = |value: &AtomicU64| AtomicU64::new(value.load(Ordering::Relaxed));
        Self {
            bounds: self.bounds,
            counts: self.counts.iter().map(copy).collect(),
            micros: copy(&self.micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_every_bucket_from_its_own_on() {
        let histogram = Histogram::new(&[0, 5000, 10_000]);
        for millis in [0, 1, 5000, 5001, 10_000, 99_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert_eq!(histogram.cumulative(), (vec![(0.0, 1), (5.0, 3), (10.0, 5)], 6));
        assert!((histogram.sum() - 119.002).abs() < 1e-9);
        assert_eq!(histogram.clone().cumulative(), histogram.cumulative());
    }
}
