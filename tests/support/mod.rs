//! What tests and the demo stand on: a control plane, a real engine with its images and registry, the worker as a process.
//!
//! Nothing here knows the worker's own code, so a mistake there cannot hide behind the same mistake here.

// Two programs share it (the tests and the demo), and neither uses all of it.
#![allow(dead_code)]

pub mod control_plane;
pub mod engine;
pub mod images;
pub mod process;
pub mod registry;
pub mod worker;
