//! What the worker counts and measures, and its text for Prometheus.
//!
//! Pure. The coordinator counts in a [`Tally`], the threads of tasks in [`Steps`], and [`Snapshot`] is what one scrape shows.

mod encode;
mod families;
mod histogram;
mod steps;
mod tally;

pub(crate) use families::{Snapshot, text};
pub(crate) use steps::Steps;
pub use tally::{Phase, Rejection, Tally, TaskEnd};
