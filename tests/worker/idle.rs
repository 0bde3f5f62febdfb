//! The wake-ups of an idle worker.

use std::path::Path;
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

/// The late sweep comes once, 30 s after the start: its time, its result, and one more on a busy machine.
const SWEEP: u64 = 3;

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
    let process = |worker: &Worker| format!("/proc/{}/task", worker.id());
    let before: Vec<_> = workers.iter().map(|(worker, ..)| settled(Path::new(&process(worker)))).collect();
    std::thread::sleep(WINDOW);
    for ((worker, stage, most), before) in workers.into_iter().zip(before) {
        let (woken, most) = (switches(Path::new(&process(&worker))) - before, most + SWEEP);
        assert!(woken <= most, "{woken} wake-ups in {WINDOW:?}, at most {most}");
        stage.stop(worker);
    }
    manager.until("WATCHDOG=1");
}

/// Returns the count once it does not change for two seconds.
fn settled(process: &Path) -> u64 {
    let end = Instant::now() + crate::support::stage::DEADLINE;
    let mut last = switches(process);
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = switches(process);
        if now == last {
            return now;
        }
        assert!(Instant::now() < end, "the worker does not become idle");
        last = now;
    }
}

/// Returns the number of voluntary context switches of a process's threads: how often they were woken.
fn switches(process: &Path) -> u64 {
    let threads = std::fs::read_dir(process).unwrap();
    let count = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    threads
        .map(|thread| count(&std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap()))
        .sum()
}
