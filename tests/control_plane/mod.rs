//! The control plane of the tests is tested itself: what it gets wrong, every whole-worker test gets wrong. And the worker's
//! look-ups over REST, at it and at servers that lie.

mod check;
mod claims;
mod client;
mod door;
mod ends;
mod lies;
mod lookup;
mod trust;
