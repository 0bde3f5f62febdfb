//! The bench: how long the worker takes and what it uses, beside the same work done by hand.
//!
//! `bench`. It measures the binaries named by `BENCH_WORKERS` (separated by spaces; the default is `target/static/oz-agent-worker`,
//! if that exists, and `target/release/oz-agent-worker`), and the program of the command in `BENCH_VS`. The engine is the one of
//! `OZ_TEST_DOCKER_HOST`, which `make bench` sets. `BENCH_QUICK=1` takes two minutes instead of ten. `BENCH_ONLY` names the
//! scenarios to run; the default is all.
//!
//! Each sample of a worker is taken right after a sample of its floor, and the workers take turns, so that a change of the
//! machine's load affects all of them. Nothing here asserts a time. A file in `scenarios` measures one subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the scenario with its reason"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for a person")]
#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod bench;
mod figure;
mod gauge;
mod hand;
mod link;
mod plot;
mod report;
mod scenarios;
mod session;
mod support;
mod targets;

use bench::Bench;
use report::Report;
use scenarios::{SCENARIOS, Scenario};
use session::{Program, VERSUS, limit_waits, name_of};

/// The time for all scenarios, with and without `BENCH_QUICK`. The rest is for the engine and the images.
const QUICK: Duration = Duration::from_secs(105);
const FULL: Duration = Duration::from_secs(560);
/// How much longer a worker that hangs is waited for.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let quick = variable("BENCH_QUICK").is_some();
    let target = target_folder();
    let (programs, versus) = match programs(&target) {
        Ok(found) => found,
        Err(reason) => {
            eprintln!("bench: {reason}");
            return ExitCode::from(2);
        }
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).expect("a signal handler");
    let mut report = Report::start(&programs, versus);
    let only = variable("BENCH_ONLY");
    let bench = Bench::new(programs, [quick, only.is_none()], Arc::clone(&interrupted));
    let start = Instant::now();
    limit_waits(start + bench.pick(FULL, QUICK) + GRACE);
    let mut failed = false;
    let mut share = Duration::ZERO;
    let is_named =
        |name: &str| only.as_ref().is_none_or(|list| list.split_whitespace().any(|one| one == name));
    for scenario in SCENARIOS.iter().filter(|scenario| is_named(scenario.name)) {
        share += bench.pick(FULL, QUICK).mul_f64(scenario.share / 100.0);
        failed |= !run(&bench, scenario, &mut report, start, share);
        if interrupted.load(Ordering::SeqCst) {
            return ExitCode::FAILURE;
        }
    }
    let path = report.finish(&target.join("bench"), &bench, start.elapsed().as_secs_f64());
    println!("{:.0} s; all samples: {}", start.elapsed().as_secs_f64(), path.display());
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Runs one scenario. It may take its share of the time and what earlier ones have left of theirs. Returns `false` if it fails.
fn run(bench: &Bench, scenario: &Scenario, report: &mut Report, start: Instant, share: Duration) -> bool {
    let limit = bench.pick(FULL, QUICK);
    let own = limit.mul_f64(scenario.share / 100.0) / 2;
    let least = Instant::now() + own;
    let end = (start + share).max(least).min(start + limit);
    if least > end {
        report.skip(scenario.name, "skipped, because no time is left");
        return true;
    }
    bench.ends_at(end);
    match catch_unwind(AssertUnwindSafe(|| (scenario.measure)(bench))) {
        Ok(figures) => report.add(scenario.name, &figures),
        Err(_) => {
            report.skip(scenario.name, "failed; the reason is above");
            return false;
        }
    }
    true
}

/// Returns the workers, and the index of the one of `BENCH_VS` if there is one.
fn programs(target: &Path) -> Result<(Vec<Program>, Option<usize>), String> {
    let named = variable("BENCH_WORKERS");
    let paths: Vec<PathBuf> = match &named {
        Some(list) => list.split_whitespace().map(PathBuf::from).collect(),
        None => {
            let built = ["static", "release"].map(|folder| target.join(folder).join("oz-agent-worker"));
            built.into_iter().filter(|path| path.exists()).collect()
        }
    };
    let mut programs = Vec::new();
    for path in paths {
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        programs.push(Program { name: name_of(&path), path, args: Vec::new() });
    }
    if programs.is_empty() {
        return Err("no worker: build one, or name some in BENCH_WORKERS".to_owned());
    }
    let versus = variable("BENCH_VS").map(|command| {
        programs.push(Program::of(VERSUS.to_owned(), &command));
        programs.len() - 1
    });
    Ok((programs, versus))
}

/// Returns a variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Returns cargo's target folder, two above that of the examples.
fn target_folder() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    own.ancestors().nth(3).expect("a target folder").to_owned()
}
