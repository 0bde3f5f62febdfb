//! The service as systemd watches it, and as its journal shows it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::DEADLINE;
use crate::root::System;
use crate::support::logfmt;
use crate::support::process::Process;
use crate::systemd::{Host, UNIT, WAITS, worker_settings};

/// The watchdog's time limit in these tests.
const WATCHDOG: Duration = Duration::from_secs(5);

/// What the journal has of a line of the worker: its priority and its text.
type Entry = (String, String);

/// Checks an entry and returns the event words of its line.
type EventOf = fn(&Entry) -> String;

/// Returns the unit's time of a property, in microseconds since the machine's start.
fn time(system: &System, property: &str) -> u64 {
    system.property(UNIT, &format!("{property}TimestampMonotonic")).parse().unwrap()
}

/// Returns what the worker itself has written to the journal, without systemd's own lines.
fn entries(system: &System) -> Vec<Entry> {
    let script =
        format!("journalctl --no-pager -o json --output-fields PRIORITY,MESSAGE,_TRANSPORT -u {UNIT}");
    let own = |line: &str| {
        let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let get = |field: &str| entry[field].as_str().unwrap_or_else(|| panic!("{field}: {line}")).to_owned();
        (get("_TRANSPORT") == "stdout").then(|| (get("PRIORITY"), get("MESSAGE")))
    };
    system.sh(&script).lines().filter_map(own).collect()
}

/// Waits for a line with `last` behind the first `seen` entries, and returns all behind those.
fn entries_until(system: &System, seen: usize, last: &str) -> Vec<Entry> {
    let end = Instant::now() + DEADLINE;
    loop {
        let found: Vec<_> = entries(system).into_iter().skip(seen).collect();
        if found.iter().any(|(_, message)| message.contains(last)) {
            return found;
        }
        assert!(Instant::now() < end, "no {last:?}: {found:#?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns the priority in the journal of a level of the worker.
fn priority(level: &str) -> &'static str {
    match level {
        "ERROR" => "3",
        "WARN" => "4",
        "INFO" => "6",
        "DEBUG" => "7",
        other => panic!("the level {other:?}"),
    }
}

/// Checks a line in text and returns its event words.
fn text_event((written, message): &Entry) -> String {
    let (level, rest) = message.split_once(' ').unwrap();
    assert_eq!(written, priority(level), "{message}");
    let (_, event) = rest.trim_start().strip_prefix('[').unwrap().split_once("] ").unwrap();
    logfmt::parse(event).unwrap_or_else(|error| panic!("{error}: {message}")).0
}

/// Checks a line in JSON and returns its event words.
fn json_event((written, message): &Entry) -> String {
    let object: Value = serde_json::from_str(message).unwrap_or_else(|error| panic!("{error}: {message}"));
    assert_eq!(written, priority(object["level"].as_str().unwrap()), "{message}");
    assert!(object.get("time").is_none(), "{message}");
    object["message"].as_str().unwrap().to_owned()
}

/// Starts the service with a short watchdog.
fn watched() -> Host {
    let host = Host::new();
    let (stage, system) = (&host.stage, &host.system);
    // The control plane takes a run of a lost connection for failed.
    host.set(&(worker_settings(stage) + "OZ_LOST_RUNS=finish\nOZ_DRAIN_TIMEOUT=0\n"));
    let drop_in = format!("[Service]\nWatchdogSec={}s\nRestartSec=100ms\n", WATCHDOG.as_secs());
    system.root().write(&format!("/etc/systemd/system/{UNIT}.d/watchdog.conf"), &drop_in);
    system.sh("systemctl daemon-reload");
    host.start(UNIT);
    host
}

/// Freezes a thread of the worker; the others go on. Waits until systemd has killed the worker.
fn freeze(system: &System, thread: u32) {
    let tracer = Process::freeze(thread, DEADLINE);
    system.await_journal(UNIT, "Watchdog timeout");
    // systemd hears of the death of a traced process from the tracer, or once that has ended.
    drop(tracer);
    system.await_journal(UNIT, "Failed with result 'watchdog'");
}

#[test]
fn a_frozen_worker_is_killed_by_the_watchdog_and_the_next_process_adopts_its_task() {
    let host = watched();
    let (stage, system) = (&host.stage, &host.system);
    let task = stage.plane.submit(stage.spec(WAITS));
    let container = host.running(&task);
    // A worker that makes progress outlives the limit.
    let limit = u64::try_from(WATCHDOG.as_micros()).unwrap();
    let end = Instant::now() + DEADLINE;
    while time(system, "Watchdog") < time(system, "ActiveEnter") + limit {
        assert!(Instant::now() < end, "{}", system.journal(UNIT));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(system.property(UNIT, "NRestarts"), "0", "{}", system.journal(UNIT));

    let old = system.property(UNIT, "MainPID");
    freeze(system, system.outer_pid(&old));
    stage.plane.wait_connected(2);
    system.await_journal(UNIT, &format!("container adopted task={task}"));
    host.release(&container);
    let report = stage.plane.wait_message(&task, "task_completed").data;
    assert_eq!(
        (report["exit_code"].as_i64(), report["output"].as_str()),
        (Some(0), Some("done\n")),
        "{report}"
    );
    assert_ne!(system.property(UNIT, "MainPID"), old);
    assert_eq!(system.property(UNIT, "NRestarts"), "1", "{}", system.journal(UNIT));
    stage.plane.assert_no_violations();
}

/// Only the thread of the connection: the main thread still answers. It takes a minute, since a slow network is no reason for a restart.
#[test]
fn a_worker_with_a_frozen_link_is_killed_by_the_watchdog() {
    let host = watched();
    let (stage, system) = (&host.stage, &host.system);
    let process = system.outer_pid(&system.property(UNIT, "MainPID"));
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let is_link = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "oz-link")
    };
    let link = tasks.map(|task| task.unwrap().path()).find(is_link).expect("a thread oz-link");
    freeze(system, link.file_name().unwrap().to_str().unwrap().parse().unwrap());
    stage.plane.wait_connected(2);
    stage.run_a_task();
}

#[test]
fn the_priority_of_an_entry_is_the_level_of_its_line_which_has_no_time() {
    let host = Host::new();
    let (stage, system) = (&host.stage, &host.system);
    let formats: [(&str, EventOf); 2] = [("text", text_event), ("json", json_event)];
    let mut seen = 0;
    for (format, event) in formats {
        let settings = worker_settings(stage) + &format!("OZ_LOG_FORMAT={format}\nOZ_LOG_LEVEL=debug\n");
        host.set(&settings);
        host.start(UNIT);
        assert_eq!(stage.run(&stage.spec("exit 3")).exit_code, Some(3));
        system.sh(&format!("systemctl stop {UNIT}"));
        host.set(&format!("{settings}OZ_API_KEY=wrong\n"));
        host.fails_to_start(UNIT);

        let found = entries_until(system, seen, "worker ended");
        seen += found.len();
        let events: Vec<_> = found.iter().map(|entry| (entry.0.as_str(), event(entry))).collect();
        for (priority, words) in
            [("3", "worker ended"), ("4", "task ended"), ("6", "worker ready"), ("7", "message sent")]
        {
            assert!(events.contains(&(priority, words.to_owned())), "{format}, {words}: {found:#?}");
        }
    }
    // Before the log begins.
    host.set("");
    host.fails_to_start(UNIT);
    let found = entries_until(system, seen, "missing API key");
    let is_error = |entry: &Entry| entry.0 == "3" && entry.1.starts_with("oz-agent-worker: ");
    assert!(found.iter().all(is_error), "{found:#?}");
}
