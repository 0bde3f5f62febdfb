//! What a connection costs on which nothing happens.

use std::fs;
use std::path::{Path, PathBuf};

use oz_agent_worker::control_plane::ws::Timing;

use super::{accept_ws, calm, in_a_process_of_its_own, listen, millis, start};

/// Where the kernel tells about the link's thread: the only one of its name in the process.
fn thread() -> PathBuf {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let ours: Vec<_> =
        tasks.filter(|path| fs::read_to_string(path.join("comm")).unwrap() == "oz-link\n").collect();
    assert_eq!(ours.len(), 1);
    ours.into_iter().next().unwrap()
}

/// How often the thread has gone to sleep.
fn sleeps(thread: &Path) -> u64 {
    let status = fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

/// How long it has been on a processor, in nanoseconds.
fn busy(thread: &Path) -> u64 {
    let told = fs::read_to_string(thread.join("schedstat")).unwrap();
    told.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn an_idle_link_wakes_only_for_its_pings() {
    in_a_process_of_its_own("link::idle::in_a_process_with_one_link", &[]);
}

#[test]
#[ignore = "run by the test above in a process of its own"]
fn in_a_process_with_one_link() {
    let (listener, url) = listen();
    let running = start(&url, Timing { ping_every: millis(100), ..calm() });
    let mut peer = accept_ws(&listener);
    let epoch = running.up();
    // The bell has to be quiet again after it was used.
    running.send(epoch, None, "x");
    (0..3).for_each(|_| drop(peer.read().unwrap()));
    let thread = thread();
    let before = (sleeps(&thread), busy(&thread));
    (0..20).for_each(|_| drop(peer.read().unwrap()));
    let (slept, worked) = (sleeps(&thread) - before.0, busy(&thread) - before.1);
    assert!(slept <= 2 * 20 + 4, "{slept} wake-ups for 20 pings and 20 pongs");
    // 20 pings take a few milliseconds; a thread that spins takes most of the two seconds between them.
    assert!(worked < 200_000_000, "{worked} ns at work");
}
