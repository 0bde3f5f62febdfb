//! The text of a scrape.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::metrics::{Rejection, TaskEnd};

fn scraped(tally: &Tally, steps: &Steps) -> String {
    let process = ProcessStats {
        cpu: Some(Duration::from_millis(1500)),
        resident: Some(5),
        virtual_memory: Some(6),
        threads: Some(7),
        open_fds: Some(8),
        max_fds: Some(9),
    };
    text(&Snapshot {
        worker_id: "w \"1\"",
        connected: true,
        slots: 4,
        active: 2,
        backlog: 3,
        unsettled: 1,
        engine_up: false,
        outage: Duration::from_secs(2),
        tally,
        steps,
        disk_free: Some(1 << 40),
        dropped_lines: 0,
        process,
        started: Duration::from_secs(1_700_000_000),
    })
}

/// Returns the series of a text: names with labels.
fn series(text: &str) -> BTreeSet<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

#[test]
fn every_series_exists_from_the_start() {
    let (mut tally, steps) = (Tally::default(), Steps::default());
    let before = scraped(&tally, &steps);
    tally.claim();
    tally.adopt();
    tally.reject(Rejection::Policy);
    for end in [TaskEnd::Succeeded, TaskEnd::Cancelled, TaskEnd::Failed("image_pull"), TaskEnd::Failed("x")] {
        tally.end(end, Duration::from_secs(60));
    }
    tally.dial_failed();
    tally.connection_lost();
    tally.outage();
    steps.pulls.observe(Duration::from_secs(3));
    steps.cleanup_failed();
    let after = scraped(&tally, &steps);
    assert_eq!(series(&before), series(&after));
    assert_ne!(before, after);
    for line in [
        "oz_worker_connected 1",
        "oz_worker_tasks_active 2",
        "oz_worker_tasks_max_concurrent 4",
        "oz_worker_tasks_claimed_total 1",
        "oz_worker_tasks_rejected_total{reason=\"policy\"} 1",
        "oz_worker_tasks_completed_total{result=\"failed\"} 2",
        "oz_worker_tasks_completed_total{result=\"dispatched\"} 0",
        "oz_worker_task_duration_seconds_bucket{result=\"succeeded\",le=\"50\"} 0",
        "oz_worker_task_duration_seconds_bucket{result=\"succeeded\",le=\"75\"} 1",
        "oz_worker_task_failures_total{phase=\"backend\",reason=\"image_pull\"} 1",
        "oz_worker_task_failures_total{phase=\"backend\",reason=\"unknown\"} 1",
        "oz_worker_task_failures_total{phase=\"cleanup\",reason=\"cleanup\"} 1",
        "oz_worker_websocket_reconnects_total{reason=\"dial_failed\"} 1",
        "oz_worker_websocket_reconnects_total{reason=\"remote_close\"} 1",
        "oz_worker_engine_up 0",
        "oz_worker_engine_outage_seconds_total 2",
        "oz_worker_image_pull_seconds_sum 3",
        "oz_worker_disk_free_bytes 1099511627776",
        "process_cpu_seconds_total 1.5",
    ] {
        assert!(after.lines().any(|other| other == line), "{line} is missing in\n{after}");
    }
    let info = format!(
        "oz_worker_info{{version=\"{}\",backend=\"docker\",worker_id=\"w \\\"1\\\"\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(after.contains(&info), "{after}");
}

/// The names, label names and label values of the public worker of this name, and its buckets.
#[test]
fn the_families_of_the_public_worker_have_its_names_and_labels() {
    let text = scraped(&Tally::default(), &Steps::default());
    let series = series(&text);
    let has = |name: &str| assert!(series.contains(name), "{name} is missing in\n{text}");
    for name in ["connected", "tasks_active", "tasks_max_concurrent", "tasks_claimed_total"] {
        has(&format!("oz_worker_{name}"));
    }
    for result in ["succeeded", "failed", "cancelled", "dispatched"] {
        has(&format!("oz_worker_tasks_completed_total{{result=\"{result}\"}}"));
        let buckets = "0 5 10 25 50 75 100 250 500 750 1000 2500 5000 7500 10000 +Inf";
        for bound in buckets.split(' ') {
            has(&format!("oz_worker_task_duration_seconds_bucket{{result=\"{result}\",le=\"{bound}\"}}"));
        }
    }
    let reasons = "at_capacity backlog_full stopping disk_full engine_unavailable policy hold_expired";
    for reason in reasons.split(' ') {
        has(&format!("oz_worker_tasks_rejected_total{{reason=\"{reason}\"}}"));
    }
    let reasons = "image_pull sidecar_prep container_create container_start container_wait container_exit \
                   container_oom task_timeout graceful_shutdown unknown";
    for reason in reasons.split_whitespace() {
        has(&format!("oz_worker_task_failures_total{{phase=\"backend\",reason=\"{reason}\"}}"));
    }
    for (phase, reason) in [("assignment", "unknown"), ("cleanup", "cleanup")] {
        has(&format!("oz_worker_task_failures_total{{phase=\"{phase}\",reason=\"{reason}\"}}"));
    }
}

/// `make setup` unpacks the program from Debian's package `prometheus`.
#[test]
fn promtool_accepts_the_text() {
    let steps = Steps::default();
    steps.starts.observe(Duration::from_millis(1));
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/promtool");
    let tool = if std::path::Path::new(tool).exists() { tool } else { "promtool" };
    let mut promtool = Command::new(tool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; run `make setup`");
    let text = scraped(&Tally::default(), &steps);
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let printed =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.is_empty(), "{printed}");
}
