//! The wake-ups of an idle worker.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::control_plane::State;
use crate::support::stage::Stage;

/// How long wake-ups are counted. Two or three pings fall into it, and the late sweep for containers of an earlier process.
const WINDOW: Duration = Duration::from_secs(60);

/// Two for each ping, and one for the sweep; the sweep's own thread has ended by then.
const WAKE_UPS: u64 = 7;

#[test]
fn an_idle_worker_wakes_up_only_for_pings_and_the_late_sweep() {
    let stage = Stage::new();
    let worker = stage.start_worker();
    // One task first, because a worker that has run a task may behave differently from a new one.
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.wait_no_containers();
    let process = format!("/proc/{}/task", worker.id());
    let before = settled(Path::new(&process));
    std::thread::sleep(WINDOW);
    let woken = switches(Path::new(&process)) - before;
    assert!(woken <= WAKE_UPS, "{woken} wake-ups in {WINDOW:?}");
    stage.stop(worker);
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
