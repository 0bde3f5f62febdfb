//! What the tests, the demo and the soak share: a control plane, a real engine with images and a registry, proxies, the
//! worker as a process, and a scripted engine.
//!
//! Nothing here uses the worker's own code, except for `fake_docker`: a mistake in the worker must not hide behind the
//! same mistake here. The other programs list what they use in their own `support.rs`.

#![allow(dead_code, reason = "several programs share it, and none uses all of it")]

pub mod control_plane;
pub mod engine;
pub mod engine_proxy;
pub mod engine_usr;
pub(crate) mod fake_docker;
pub mod fault_proxy;
pub mod images;
pub mod logfmt;
pub mod machine;
pub mod messages;
pub mod peer;
pub mod pki;
pub mod podman;
pub mod private_engine;
pub mod process;
pub mod proxy;
pub mod proxy_only;
pub mod registry;
pub mod rng;
pub mod sleeping_engine;
pub mod stage;
pub mod sync_dir;
pub mod tls_proxy;
pub mod worker;
