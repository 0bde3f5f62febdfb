//! The demo: one task through a control plane, the worker and a real Docker engine.
//!
//! `demo run WORKER [DIALECT]` runs one task and checks its result. `demo serve WORKER [DIALECT]` keeps the control plane and the
//! worker running until Ctrl-C. `WORKER` is the worker's binary. `DIALECT` is the kind of the control plane, `old` (the default) or
//! `upstream`. The engine is the one of `OZ_TEST_DOCKER_HOST`, which `make demo` and `make demo-server` set.

#![allow(clippy::expect_used, clippy::panic, reason = "a failure ends the demo with its reason")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for a person")]
#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod run_once;
mod serve;
mod setup;
mod support;
mod watch;

use support::control_plane::Dialect;

/// Set by SIGINT, SIGTERM and SIGHUP.
type Interrupted = Arc<AtomicBool>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mode = args.next();
    let worker = args.next().map(PathBuf::from);
    let dialect = args.next();
    let interrupted = Interrupted::default();
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).expect("a signal handler");
    let dialect = match dialect.as_deref() {
        None | Some("old") => Some(Dialect::Old),
        Some("upstream") => Some(Dialect::Upstream),
        Some(_) => None,
    };
    let result = match (mode.as_deref(), worker, dialect) {
        (Some("run"), Some(worker), Some(dialect)) => run_once::run(&worker, dialect, &interrupted),
        (Some("serve"), Some(worker), Some(dialect)) => serve::run(&worker, dialect, &interrupted),
        _ => Err("usage: demo run|serve WORKER [old|upstream]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("\nThe demo failed: {reason}");
            ExitCode::FAILURE
        }
    }
}
