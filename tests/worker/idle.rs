//! The wake-ups of an idle worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::monitoring::free_port;
use super::notify::Manager;
use crate::support::control_plane::State;
use crate::support::stage::Stage;
use crate::support::worker::Worker;

/// How long wake-ups are counted: two pings at most fall into it, one check of the engine, and the late sweep for containers of an
/// earlier process.
const WINDOW: Duration = Duration::from_secs(55);

/// Two for each ping, and one for the check; the thread of the check, which waits once, has ended by then.
const WAKE_UPS: u64 = 5;

/// As [`WAKE_UPS`], with a service manager that wants to hear of the worker, and with metrics that nobody reads: one more.
const WITH_SYSTEMD: u64 = 6;

/// The late sweep comes once, 30 s after the start: its time, its own thread, and its result.
const SWEEP: u64 = 3;

/// How often the threads are looked at. On a busy machine a thread that was woken once waits several times, as for the parts of an
/// answer: what happens within one such time counts once.
const LOOK: Duration = Duration::from_secs(1);

#[test]
fn an_idle_worker_wakes_up_only_for_pings_the_check_and_the_late_sweep() {
    let (plain, managed) = (Stage::new(), Stage::new());
    let manager = Manager::new();
    let builder = managed.worker().env("NOTIFY_SOCKET", &manager.address());
    let builder =
        builder.env("WATCHDOG_USEC", "180000000").args(["--metrics-listen", &free_port().to_string()]);
    let workers =
        [(plain.start_worker(), &plain, WAKE_UPS), (managed.start(builder), &managed, WITH_SYSTEMD)];
    for (_, stage, _) in &workers {
        // One task first, because a worker that has run a task may behave differently from a new one.
        assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
        stage.wait_no_containers();
    }
    for (worker, ..) in &workers {
        settle(&threads_of(worker));
    }
    let counters = workers.iter().map(|(worker, ..)| WakeUps::new(threads_of(worker)));
    let mut counters: Vec<_> = counters.collect();
    let end = Instant::now() + WINDOW;
    while Instant::now() < end {
        std::thread::sleep(LOOK);
        counters.iter_mut().for_each(WakeUps::look);
    }
    for ((worker, stage, most), counter) in workers.into_iter().zip(counters) {
        let (woken, most) = (counter.count, most + SWEEP);
        assert!(woken <= most, "{woken} wake-ups in {WINDOW:?}, at most {most}");
        stage.stop(worker);
    }
    manager.until("WATCHDOG=1");
}

/// Counts how often the threads of a process are woken.
struct WakeUps {
    threads: PathBuf,
    switches: BTreeMap<OsString, u64>,
    /// Of how many threads the switches changed between two looks, over all looks.
    count: u64,
}

impl WakeUps {
    fn new(threads: PathBuf) -> Self {
        Self { switches: switches(&threads), threads, count: 0 }
    }

    fn look(&mut self) {
        let now = switches(&self.threads);
        let woken = now.iter().filter(|(thread, switches)| self.switches.get(*thread) != Some(switches));
        self.count += woken.count() as u64;
        self.switches = now;
    }
}

fn threads_of(worker: &Worker) -> PathBuf {
    format!("/proc/{}/task", worker.id()).into()
}

/// Waits until no thread is woken for two seconds.
fn settle(threads: &Path) {
    let end = Instant::now() + crate::support::stage::DEADLINE;
    let mut last = switches(threads);
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = switches(threads);
        if now == last {
            return;
        }
        assert!(Instant::now() < end, "the worker does not become idle");
        last = now;
    }
}

/// Returns the number of voluntary context switches of each thread.
fn switches(threads: &Path) -> BTreeMap<OsString, u64> {
    let count = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    // A thread may end between the two calls.
    let read = |thread: DirEntry| {
        Some((thread.file_name(), count(&fs::read_to_string(thread.path().join("status")).ok()?)))
    };
    fs::read_dir(threads).unwrap().filter_map(|thread| read(thread.unwrap())).collect()
}
