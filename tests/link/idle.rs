//! The wake-ups and the processor time of an idle connection.

use std::fs;
use std::path::{Path, PathBuf};

use oz_agent_worker::control_plane::ws::Timing;

use super::{accept_ws, fast_retry, in_own_process, listen, millis, start};

/// Returns the /proc folder of the only thread named oz-link.
fn link_thread() -> PathBuf {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> =
        tasks.filter(|path| fs::read_to_string(path.join("comm")).unwrap() == "oz-link\n").collect();
    assert_eq!(found.len(), 1);
    found.into_iter().next().unwrap()
}

/// Returns the number of the thread's voluntary context switches: how often it has slept.
fn sleeps(thread: &Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// Returns the thread's processor time in nanoseconds.
fn processor_time(thread: &Path) -> u64 {
    let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap();
    schedstat.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_idle_link_wakes_only_for_pings() {
    in_own_process("link::idle::in_a_process_with_one_link", &[]);
}

#[test]
#[ignore = "run by the test above in a separate process"]
fn in_a_process_with_one_link() {
    let (listener, url) = listen();
    let running = start(&url, Timing { ping_every: millis(100), ..fast_retry() });
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    // The waker must be cleared after its use.
    running.send(epoch, None, "x");
    (0..3).for_each(|_| drop(peer.read().unwrap()));
    let thread = link_thread();
    let before = (sleeps(&thread), processor_time(&thread));
    (0..20).for_each(|_| drop(peer.read().unwrap()));
    let (slept, worked) = (sleeps(&thread) - before.0, processor_time(&thread) - before.1);
    assert!(slept <= 2 * 20 + 4, "{slept} wake-ups for 20 pings and 20 pongs");
    // 20 pings cost a few milliseconds. A busy loop would cost most of the two seconds between them.
    assert!(worked < 200_000_000, "{worked} ns of processor time");
}
