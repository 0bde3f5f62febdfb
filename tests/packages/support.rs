//! The modules of `tests/support` that the package tests use.

#![allow(dead_code, reason = "the other tests use the rest of these modules")]

#[path = "../support/control_plane/mod.rs"]
pub mod control_plane;
#[path = "../support/engine.rs"]
pub mod engine;
#[path = "../support/engine_proxy.rs"]
pub mod engine_proxy;
#[path = "../support/engine_usr.rs"]
pub mod engine_usr;
#[path = "../support/fault_proxy/mod.rs"]
pub mod fault_proxy;
#[path = "../support/images.rs"]
pub mod images;
#[path = "../support/logfmt.rs"]
pub mod logfmt;
#[path = "../support/peer.rs"]
pub mod peer;
#[path = "../support/pki.rs"]
pub mod pki;
#[path = "../support/podman.rs"]
pub mod podman;
#[path = "../support/process.rs"]
pub mod process;
#[path = "../support/registry.rs"]
pub mod registry;
#[path = "../support/rng.rs"]
pub mod rng;
#[path = "../support/stage.rs"]
pub mod stage;
#[path = "../support/sync_dir.rs"]
pub mod sync_dir;
#[path = "../support/tls_proxy.rs"]
pub mod tls_proxy;
#[path = "../support/worker.rs"]
pub mod worker;
