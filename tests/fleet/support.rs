//! The modules of `tests/support` that the fleet uses.

#![allow(dead_code, reason = "the other tests use the rest of these modules")]

#[path = "../support/control_plane/mod.rs"]
pub mod control_plane;
#[path = "../support/engine.rs"]
pub mod engine;
#[path = "../support/images.rs"]
pub mod images;
#[path = "../support/logfmt.rs"]
pub mod logfmt;
#[path = "../support/process.rs"]
pub mod process;
#[path = "../support/rng.rs"]
pub mod rng;
#[path = "../support/stage.rs"]
pub mod stage;
#[path = "../support/sync_dir.rs"]
pub mod sync_dir;
#[path = "../support/worker.rs"]
pub mod worker;
