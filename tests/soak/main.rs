//! The soak: one worker for many minutes under random tasks, cuts, cancels and failing look-ups. What it holds of memory,
//! threads and files must not grow, and nothing may be lost, run twice or left behind.
//!
//! `soak [WORKER]`. `WORKER` is the worker's binary, by default the one that was built beside this program; the engine is
//! that of `OZ_TEST_DOCKER_HOST`, the length `SOAK_SECONDS` (600), the choices follow from `OZ_TEST_SEED`. `make soak` sets
//! them all.
//!
//! After a warm-up, in which every slot reports the largest output, the load comes in two parts with a rest after each: the
//! first is a minute (a tenth of the whole), the second all that is left. So there are two pairs of moments of the same
//! kind to compare: the first and the last minute under load, and the rests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what goes wrong ends it, with its reason"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to be watched")]
#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod cuts;
mod gauge;
mod ledger;
mod stage;
mod support;
mod tasks;

use cuts::Cuts;
use gauge::{Gauge, Sample};
use ledger::Ledger;
use stage::Stage;
use support::dice::Seed;
use tasks::Tasks;

/// How long a rest is looked at.
const REST: Duration = Duration::from_secs(10);

/// Until when something goes on, unless Ctrl-C or the end of the worker comes before.
pub struct Until<'a> {
    end: Instant,
    stage: &'a Stage,
    interrupted: &'a AtomicBool,
}

impl Until<'_> {
    fn over(&self) -> bool {
        Instant::now() >= self.end || self.interrupted.load(Ordering::SeqCst) || !self.stage.worker.runs()
    }

    /// Lets so much time pass, less at the end.
    fn pause(&self, time: Duration) {
        let until = self.end.min(Instant::now() + time);
        while !self.over() && Instant::now() < until {
            std::thread::sleep(
                until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)),
            );
        }
    }
}

/// All that is counted.
struct Soak<'a> {
    stage: &'a Stage,
    interrupted: &'a AtomicBool,
    tasks: Tasks,
    ledger: Ledger,
    cuts: Cuts,
    gauge: Gauge,
}

fn main() -> ExitCode {
    let worker = std::env::args().nth(1).map_or_else(beside, PathBuf::from);
    let seconds = std::env::var("SOAK_SECONDS").unwrap_or_else(|_| "600".to_owned());
    let length = Duration::from_secs(seconds.parse().expect("SOAK_SECONDS is a number"));
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupted);
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).expect("a signal handler");
    match soak(&worker, length, &interrupted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("\nThe soak failed: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// The worker that cargo puts one folder above its examples.
fn beside() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    own.ancestors().nth(2).expect("a target folder").join("oz-agent-worker")
}

fn soak(worker: &Path, length: Duration, interrupted: &AtomicBool) -> Result<(), String> {
    let (minute, seed) = (length / 10, Seed::new());
    println!(
        "seed {seed}, {} s of load after a warm-up; a minute is {} s",
        length.as_secs(),
        minute.as_secs()
    );
    let mut dice = seed.dice();
    let stage = Stage::set(worker, &mut dice)?;
    let gauge = Gauge::of(stage.worker.id());
    let (tasks, ledger, cuts) = (Tasks::new(&mut dice), Ledger::default(), Cuts::new(&mut dice));
    let mut soak = Soak { stage: &stage, interrupted, tasks, ledger, cuts, gauge };
    soak.tasks.warm_up(&stage, &mut soak.ledger)?;
    for time in [minute, length.saturating_sub(minute)] {
        soak.load(time, minute)?;
        soak.rest()?;
    }
    let Soak { ledger, cuts, gauge, tasks, .. } = soak;
    let left = stage.strike()?;
    let (ends, whole) = ledger.close(&left);
    show_counts(&tasks.count, &ends, &cuts);
    let steady = show_figures(&gauge);
    whole.and(steady)
}

impl Soak<'_> {
    fn load(&mut self, time: Duration, stretch: Duration) -> Result<(), String> {
        let Self { stage, interrupted, tasks, ledger, cuts, gauge } = self;
        let until = Until { end: Instant::now() + time, stage, interrupted };
        std::thread::scope(|scope| {
            scope.spawn(|| cuts.strike(&until, stage));
            scope.spawn(|| gauge.watch_load(&until, stretch));
            tasks.submit(&until, stage, ledger);
        });
        if interrupted.load(Ordering::SeqCst) { Err("interrupted".to_owned()) } else { Ok(()) }
    }

    /// Waits until all is done, and looks at what is held then.
    fn rest(&mut self) -> Result<(), String> {
        self.stage.wait_idle()?;
        self.ledger.settle(&self.stage.plane);
        let until = Until { end: Instant::now() + REST, stage: self.stage, interrupted: self.interrupted };
        self.gauge.watch_rest(&until);
        Ok(())
    }
}

fn show_counts(tasks: &tasks::Count, ends: &ledger::Count, cuts: &Cuts) {
    let mib = ends.output_bytes >> 20;
    println!("{:6} tasks submitted, {} of them sent twice", tasks.tasks, tasks.repeated);
    println!(
        "{:6} cancelled, {} of them without the worker being told",
        tasks.cancelled + tasks.cancelled_unheard,
        tasks.cancelled_unheard
    );
    println!("{:6} reported as completed, with {mib} MiB of output", ends.completed);
    println!("{:6} reported as failed on purpose, {} as cancelled", ends.failed, ends.cancelled);
    println!("{:6} reported although the control plane had given them up with their connection", ends.late);
    println!("{:6} claims lost, {} cancelled before any claim", ends.void, ends.unclaimed);
    println!("{:6} cuts:", cuts.count.values().sum::<usize>());
    cuts.count.iter().for_each(|(name, count)| println!("{count:6}   {name}"));
    println!("{:6} times the look-ups failed for a while", cuts.lookup_failures);
}

/// The table; the error says what has grown.
fn show_figures(gauge: &Gauge) -> Result<(), String> {
    println!("\n{:34}{:>10}{:>9}{:>8}", "medians", "KiB", "threads", "files");
    let row = |name: &str, sample: &Sample| {
        println!("{name:34}{:10}{:9}{:8}", sample.rss_kib, sample.threads, sample.files);
    };
    let (loads, rests) = (&gauge.loads, &gauge.rests);
    row("under load, first minute", &loads[0]);
    row("under load, last minute", &loads[1]);
    row("at rest, after the first minute", &rests[0]);
    row("at rest, at the end", &rests[1]);
    row("peak", &gauge.peak);
    gauge.grown().map_or(Ok(()), Err)
}
