//! The soak: one worker for many minutes under random tasks, connection faults, cancels and failing look-ups. Its memory,
//! threads and open files must not grow, and no task may be lost, run twice or left behind.
//!
//! `soak [WORKER]`. `WORKER` is the worker's binary; the default is the one built beside this program. The engine is the
//! one of `OZ_TEST_DOCKER_HOST`, the length is `SOAK_SECONDS` (600), and the random choices follow from `OZ_TEST_SEED`.
//! `make soak` sets all of them.
//!
//! First comes a warm-up, in which every slot reports the largest output. Then comes load in two parts, with a rest after
//! each: one minute (a tenth of the whole), and the remaining nine. That gives two comparisons: the first and the last
//! minute under load, and the two rests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failure ends the soak with its reason"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints for a person")]
#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod connection_faults;
mod gauge;
mod ledger;
mod setup;
mod support;
mod tasks;

use connection_faults::ConnectionFaults;
use gauge::{Gauge, Sample};
use ledger::Ledger;
use setup::Setup;
use support::rng::Seed;
use tasks::Tasks;

/// How long a rest lasts before it is measured: the worker's threads without work end after 10 s.
const SETTLE: Duration = Duration::from_secs(15);

/// How long a rest is measured.
const REST: Duration = Duration::from_secs(10);

/// The end of a phase: a time, Ctrl-C, or the worker's exit.
pub struct Until<'a> {
    end: Instant,
    setup: &'a Setup,
    interrupted: &'a AtomicBool,
}

impl Until<'_> {
    fn over(&self) -> bool {
        Instant::now() >= self.end
            || self.interrupted.load(Ordering::SeqCst)
            || !self.setup.worker.is_running()
    }

    /// Sleeps for `time`, or until the phase is over.
    fn pause(&self, time: Duration) {
        let until = self.end.min(Instant::now() + time);
        while !self.over() && Instant::now() < until {
            std::thread::sleep(
                until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)),
            );
        }
    }
}

/// The parts of the soak, with their counters.
struct Soak<'a> {
    setup: &'a Setup,
    interrupted: &'a AtomicBool,
    tasks: Tasks,
    ledger: Ledger,
    faults: ConnectionFaults,
    gauge: Gauge,
}

fn main() -> ExitCode {
    let worker = std::env::args().nth(1).map_or_else(default_worker, PathBuf::from);
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

/// Returns the worker that cargo builds, one folder above its examples.
fn default_worker() -> PathBuf {
    let own = std::env::current_exe().expect("its own path");
    own.ancestors().nth(2).expect("a target folder").join("oz-agent-worker")
}

fn soak(worker: &Path, length: Duration, interrupted: &AtomicBool) -> Result<(), String> {
    let minute = length / 10;
    let seed = Seed::new();
    println!(
        "seed {seed}; {} s of load after a warm-up; a \"minute\" is {} s",
        length.as_secs(),
        minute.as_secs()
    );
    let mut rng = seed.rng();
    let setup = Setup::start(worker, &mut rng)?;
    let mut soak = Soak {
        setup: &setup,
        interrupted,
        tasks: Tasks::new(&mut rng),
        ledger: Ledger::default(),
        faults: ConnectionFaults::new(&mut rng),
        gauge: Gauge::of(setup.worker.id()),
    };
    soak.tasks.warm_up(&setup, &mut soak.ledger)?;
    for time in [minute, length.saturating_sub(minute)] {
        soak.load(time, minute)?;
        soak.rest()?;
    }
    let Soak { ledger, faults, gauge, tasks, .. } = soak;
    let remains = setup.stop()?;
    let (outcomes, correct) = ledger.close(&remains);
    print_counts(&tasks.count, &outcomes, &faults);
    let steady = print_figures(&gauge);
    correct.and(steady)
}

impl Soak<'_> {
    fn load(&mut self, time: Duration, stretch: Duration) -> Result<(), String> {
        let Self { setup, interrupted, tasks, ledger, faults, gauge } = self;
        let until = Until { end: Instant::now() + time, setup, interrupted };
        std::thread::scope(|scope| {
            scope.spawn(|| faults.inject(&until, setup));
            scope.spawn(|| gauge.watch_load(&until, stretch));
            tasks.submit(&until, setup, ledger);
        });
        if interrupted.load(Ordering::SeqCst) { Err("interrupted".to_owned()) } else { Ok(()) }
    }

    /// Waits until the worker is idle, and measures it then.
    fn rest(&mut self) -> Result<(), String> {
        self.setup.wait_idle()?;
        self.ledger.settle(&self.setup.stage.plane);
        let until =
            |time| Until { end: Instant::now() + time, setup: self.setup, interrupted: self.interrupted };
        until(SETTLE).pause(SETTLE);
        self.gauge.watch_rest(&until(REST));
        Ok(())
    }
}

fn print_counts(tasks: &tasks::Count, outcomes: &ledger::Count, faults: &ConnectionFaults) {
    let mib = outcomes.output_bytes >> 20;
    println!("{:6} tasks submitted, {} of them sent twice", tasks.tasks, tasks.resent);
    println!(
        "{:6} cancelled, {} of them without a message to the worker",
        tasks.cancelled + tasks.cancelled_silently,
        tasks.cancelled_silently
    );
    println!("{:6} reported as completed, with {mib} MiB of output", outcomes.completed);
    println!("{:6} reported as failed, as planned, and {} as cancelled", outcomes.failed, outcomes.cancelled);
    println!("{:6} reported after the control plane had failed the run with its connection", outcomes.late);
    println!("{:6} claims lost, {} runs cancelled before their claim", outcomes.void, outcomes.unclaimed);
    println!("{:6} connection faults:", faults.count.values().sum::<usize>());
    faults.count.iter().for_each(|(name, count)| println!("{count:6}   {name}"));
    println!("{:6} periods with failing look-ups", faults.lookup_failures);
}

/// Prints the table. Returns an error that says what has grown.
fn print_figures(gauge: &Gauge) -> Result<(), String> {
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
