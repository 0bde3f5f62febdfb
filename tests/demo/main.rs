//! The demo: one task through a control plane, the worker and a real Docker engine.
//!
//! `demo run [WORKER]` runs one task and checks its result. `demo serve [WORKER]` keeps the control plane and the worker
//! running until Ctrl-C. `WORKER` is the worker's binary; the default is the one built beside this program. The engine
//! is the one of `OZ_TEST_DOCKER_HOST`, which `make demo` and `make demo-server` set.

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

/// Set by SIGINT, SIGTERM and SIGHUP.
type Interrupted = Arc<AtomicBool>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mode = args.next();
    let worker = args.next().map_or_else(default_worker, PathBuf::from);
    let interrupted = Interrupted::default();
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).expect("a signal handler");
    let result = match mode.as_deref() {
        Some("run") => run_once::run(&worker, &interrupted),
        Some("serve") => serve::run(&worker, &interrupted),
        _ => Err("usage: demo run|serve [WORKER]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("\nThe demo failed: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the worker that cargo builds, one folder above its examples.
fn default_worker() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    own.ancestors().nth(2).expect("a target folder").join("oz-agent-worker")
}
