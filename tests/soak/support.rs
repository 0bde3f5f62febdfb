//! What the soak takes from the tests' support.

#![allow(dead_code, reason = "the tests use the rest of it")]

#[path = "../support/control_plane/mod.rs"]
pub mod control_plane;
#[path = "../support/cutter/mod.rs"]
pub mod cutter;
#[path = "../support/dice.rs"]
pub mod dice;
#[path = "../support/engine.rs"]
pub mod engine;
#[path = "../support/images.rs"]
pub mod images;
#[path = "../support/process.rs"]
pub mod process;
#[path = "../support/worker.rs"]
pub mod worker;
