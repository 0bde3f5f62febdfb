//! Repeatable random choices from a seed, which is printed when a test fails.
//!
//! The timing of threads and processes still varies; only the choices are the same.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::RangeInclusive;

/// Sets the seed of a test that is to be repeated.
const VARIABLE: &str = "OZ_TEST_SEED";

/// The seed of one test. Keep it until the test ends: its drop prints the seed if the test panics.
#[derive(Debug)]
pub struct Seed(u64);

/// A random number generator (SplitMix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Seed {
    /// Returns the seed of `OZ_TEST_SEED`, or else a new one.
    pub fn new() -> Self {
        Self::from_env().unwrap_or_else(|| Self(RandomState::new().build_hasher().finish() >> 32))
    }

    /// Returns the seed of `OZ_TEST_SEED`, or else `default`.
    pub fn or(default: u64) -> Self {
        Self::from_env().unwrap_or(Self(default))
    }

    fn from_env() -> Option<Self> {
        let text = std::env::var(VARIABLE).ok()?;
        Some(Self(text.parse().expect("OZ_TEST_SEED is a number")))
    }

    /// Returns a generator; the same one at every call.
    pub fn rng(&self) -> Rng {
        Rng(self.0)
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat the random choices: {VARIABLE}={}", self.0);
        }
    }
}

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number in `range`.
    pub fn u64(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = (range.end() - range.start()).saturating_add(1);
        range.start() + self.next() % span
    }

    /// Returns a number in `range`.
    pub fn usize(&mut self, range: RangeInclusive<usize>) -> usize {
        let (low, high) = (*range.start() as u64, *range.end() as u64);
        usize::try_from(self.u64(low..=high)).expect("the range is of usize")
    }

    /// Returns a separate generator, for a thread.
    pub fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
