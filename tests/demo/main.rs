//! The demo: a control plane, a worker and a Docker engine, all real, and one task that goes through them.
//!
//! `demo run [WORKER]` runs one task and checks everything about it; `demo serve [WORKER]` leaves both running until
//! Ctrl-C. `WORKER` is the worker's binary, by default the one that was built beside this program. The engine is that
//! of `OZ_TEST_DOCKER_HOST`, which `make demo` and `make demo-server` set.

#![allow(clippy::expect_used, clippy::panic, reason = "what goes wrong ends the demo, with its reason")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to be watched")]
#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod once;
mod serve;
mod stage;
mod support;
mod watch;

/// Set by Ctrl-C and its like.
type Interrupted = Arc<AtomicBool>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mode, worker) = (args.next(), args.next().map_or_else(beside, PathBuf::from));
    let interrupted = Interrupted::default();
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).expect("a signal handler");
    let result = match mode.as_deref() {
        Some("run") => once::run(&worker, &interrupted),
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

/// The worker that cargo puts one folder above its examples.
fn beside() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    own.ancestors().nth(2).expect("a target folder").join("oz-agent-worker")
}
