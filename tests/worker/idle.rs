//! What the worker costs when nothing happens.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Stage;
use crate::support::control_plane::State;

/// The time that is looked at: two pings fall into it, or three, and the second look for what an earlier process has left.
const WINDOW: Duration = Duration::from_secs(60);

/// Two for each ping, and one for that look; the look's own thread is gone at the end.
const WAKE_UPS: u64 = 7;

#[test]
fn an_idle_worker_wakes_up_for_its_pings_and_a_second_look_only() {
    let stage = Stage::new();
    let worker = stage.started();
    // One task first: what is idle then is a worker that has worked.
    assert_eq!(stage.run(&stage.spec("true")).state, State::Succeeded);
    stage.wait_no_containers();
    let process = format!("/proc/{}/task", worker.id());
    let before = settled(Path::new(&process));
    std::thread::sleep(WINDOW);
    let woken = switches(Path::new(&process)) - before;
    assert!(woken <= WAKE_UPS, "{woken} wake-ups in {WINDOW:?}");
    stage.stop(worker);
}

/// The count once it stands still, which it does between two pings.
fn settled(process: &Path) -> u64 {
    let end = Instant::now() + super::DEADLINE;
    let mut last = switches(process);
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let now = switches(process);
        if now == last {
            return now;
        }
        assert!(Instant::now() < end, "the worker never rests");
        last = now;
    }
}

/// How often the threads of a process have gone to sleep and, so, been woken.
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
