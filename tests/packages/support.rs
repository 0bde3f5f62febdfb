//! The modules of `tests/support` that the package tests use.

#![allow(dead_code, reason = "the other tests use the rest of these modules")]

#[path = "../support/control_plane/mod.rs"]
pub mod control_plane;
#[path = "../support/door.rs"]
pub mod door;
#[path = "../support/engine.rs"]
pub mod engine;
#[path = "../support/images.rs"]
pub mod images;
#[path = "../support/pki.rs"]
pub mod pki;
#[path = "../support/process.rs"]
pub mod process;
#[path = "../support/proxy.rs"]
pub mod proxy;
#[path = "../support/worker.rs"]
pub mod worker;
