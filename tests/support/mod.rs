//! What tests and the demo stand on: a control plane, a real engine with its images and registry, the worker as a process,
//! and a scripted engine.
//!
//! But for that last one nothing here knows the worker's own code, so a mistake there cannot hide behind the same
//! mistake here. The demo takes most of it, by its own list in `tests/demo/support.rs`.

#![allow(dead_code, reason = "two programs share it, the tests and the demo, and neither uses all of it")]

pub mod control_plane;
pub mod cutter;
pub mod dice;
pub mod door;
pub mod engine;
pub(crate) mod fake_docker;
pub mod images;
pub mod pki;
pub mod podman;
pub mod private_engine;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod worker;
