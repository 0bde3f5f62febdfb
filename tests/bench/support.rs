//! The modules of tests/support that the bench uses.

#![allow(dead_code, reason = "the tests use the rest of it")]

#[path = "../support/control_plane/mod.rs"]
pub mod control_plane;
#[path = "../support/engine.rs"]
pub mod engine;
#[path = "../support/engine_proxy.rs"]
pub mod engine_proxy;
#[path = "../support/images.rs"]
pub mod images;
#[path = "../support/process.rs"]
pub mod process;
#[path = "../support/registry.rs"]
pub mod registry;
#[path = "../support/rng.rs"]
pub mod rng;
#[path = "../support/sleeping_engine.rs"]
pub mod sleeping_engine;
