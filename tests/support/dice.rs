//! Random choices that can be made again: numbers that follow from a seed, and the seed told when a test fails.
//!
//! What threads and processes make of them still depends on their timing; the choices themselves do not. It must not know
//! what is chosen.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::RangeInclusive;

/// Names the seed of a test that is to be repeated.
const VARIABLE: &str = "OZ_TEST_SEED";

/// The seed of one test; keep it as long as the test lasts.
#[derive(Debug)]
pub struct Seed(u64);

/// A sequence of numbers.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Seed {
    /// That of `OZ_TEST_SEED`, else a new one.
    pub fn new() -> Self {
        let given = std::env::var(VARIABLE).ok().map(|text| text.parse().expect("OZ_TEST_SEED is a number"));
        Self(given.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32))
    }

    /// The numbers that follow from it, the same at every call.
    pub fn dice(&self) -> Dice {
        Dice(self.0)
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
            eprintln!("the same choices again: {VARIABLE}={}", self.0);
        }
    }
}

impl Dice {
    /// The next number (the method is known as SplitMix64).
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number of this range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = (range.end() - range.start()).saturating_add(1);
        range.start() + self.roll() % span
    }

    /// As [`Dice::within`], for sizes.
    pub fn size(&mut self, range: RangeInclusive<usize>) -> usize {
        let (low, high) = (*range.start() as u64, *range.end() as u64);
        usize::try_from(self.within(low..=high)).expect("it came from sizes")
    }

    /// Brings a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, self.size(0..=last));
        }
    }

    /// A sequence of its own, for a thread.
    pub fn split(&mut self) -> Self {
        Self(self.roll())
    }
}
