//! The worker's REST calls: against the control plane of the tests and against servers that lie.

mod lies;
mod lookup;
mod trust;
