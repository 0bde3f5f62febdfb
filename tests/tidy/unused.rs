//! The product as a private binary, so that `dead_code` finds unused items. `make check` builds it.
//!
//! In the library every `pub` item counts as used. Here only the items that `app::run` or `for_tests` uses count. An item
//! that only unit tests need is `#[cfg(test)]`; one that only fuzzing needs is `#[cfg(feature = "fuzzing")]`.

#![deny(dead_code)]
#![allow(unreachable_pub, unused_imports, reason = "`pub` and re-exports are for the library")]

#[path = "../../src/app/mod.rs"]
mod app;
#[path = "../../src/cli/mod.rs"]
mod cli;
#[path = "../../src/control_plane/mod.rs"]
mod control_plane;
#[path = "../../src/coordinator/mod.rs"]
mod coordinator;
#[path = "../../src/docker/mod.rs"]
mod docker;
#[path = "../../src/exit.rs"]
mod exit;
#[path = "../../src/job.rs"]
mod job;
#[path = "../../src/logging/mod.rs"]
mod logging;
#[path = "../../src/metrics/mod.rs"]
mod metrics;
#[path = "../../src/net/mod.rs"]
mod net;
#[path = "../../src/policy/mod.rs"]
mod policy;
#[path = "../../src/protocol/mod.rs"]
mod protocol;
#[path = "../../src/secret.rs"]
mod secret;
#[path = "../../src/sys/mod.rs"]
mod sys;
#[path = "../../src/task/mod.rs"]
mod task;

fn main() -> std::process::ExitCode {
    for_tests();
    let environment: sys::environment::Environment = std::env::vars_os().collect();
    std::process::ExitCode::from(app::run(std::env::args_os().skip(1), &environment).code())
}

/// Every item that the integration tests use and the product does not.
fn for_tests() {
    let _ = control_plane::rest::ControlPlane::look_up;
    let _ = control_plane::rest::ControlPlane::with_max_body;
}
