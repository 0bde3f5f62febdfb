//! The control plane of the tests is tested itself: what it gets wrong, every whole-worker test gets wrong.

mod check;
mod claims;
mod client;
mod door;
mod ends;
