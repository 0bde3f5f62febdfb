//! The table of families. Every series that can occur is written from the start.

use std::time::Duration;

use super::encode::Encoder;
use super::steps::Steps;
use super::tally::{Phase, RESULTS, Tally};
use crate::sys::process::ProcessStats;

/// The state of the worker at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot<'a> {
    /// This worker's id.
    pub(crate) worker_id: &'a str,
    /// Whether it is connected to the control plane.
    pub(crate) connected: bool,
    /// The most tasks that run at the same time.
    pub(crate) slots: usize,
    /// Tasks that hold a slot.
    pub(crate) active: usize,
    /// Assignments that wait for a slot.
    pub(crate) backlog: usize,
    /// Reports that are not known to be stored.
    pub(crate) unsettled: usize,
    /// Whether the engine could be used when it was last called.
    pub(crate) engine_up: bool,
    /// How long the present outage of the engine has lasted; zero without one.
    pub(crate) outage: Duration,
    /// What the coordinator counted.
    pub(crate) tally: &'a Tally,
    /// What the tasks' threads measured.
    pub(crate) steps: &'a Steps,
    /// Free bytes of the engine's disk; `None` if that is not watched.
    pub(crate) disk_free: Option<u64>,
    /// Log lines that were dropped.
    pub(crate) dropped_lines: u64,
    /// The process; without what could not be read.
    pub(crate) process: ProcessStats,
    /// When the process began, since 1970.
    pub(crate) started: Duration,
}

/// Returns a snapshot in the text format 0.0.4.
pub(crate) fn text(now: &Snapshot<'_>) -> String {
    let mut encoder = Encoder::default();
    upstream(now, &mut encoder);
    own(now, &mut encoder);
    process(&now.process, now.started, &mut encoder);
    encoder.finish()
}

/// The families of the public worker of this name.
fn upstream(now: &Snapshot<'_>, to: &mut Encoder) {
    let tally = now.tally;
    let gauges = [
        ("oz_worker_connected", "1 if connected to the control plane.", usize::from(now.connected)),
        ("oz_worker_tasks_active", "Tasks that hold a slot.", now.active),
        ("oz_worker_tasks_max_concurrent", "The most tasks that run at the same time.", now.slots),
    ];
    for (name, help, value) in gauges {
        to.family(name, "gauge", help).sample(&[], value);
    }
    to.family("oz_worker_tasks_claimed_total", "counter", "Claims of tasks.").sample(&[], tally.claimed);
    to.family("oz_worker_tasks_rejected_total", "counter", "Runs given back, by reason.");
    for (reason, count) in tally.rejections() {
        to.sample(&[("reason", reason)], count);
    }
    to.family("oz_worker_tasks_completed_total", "counter", "Tasks that ended, by result.");
    for (result, durations) in RESULTS.iter().zip(&tally.durations) {
        to.sample(&[("result", result)], durations.cumulative().1);
    }
    to.family(
        "oz_worker_task_duration_seconds",
        "histogram",
        "From the slot to the end of a task, by result.",
    );
    for (result, durations) in RESULTS.iter().zip(&tally.durations) {
        to.histogram(&[("result", result)], durations);
    }
    to.family("oz_worker_task_failures_total", "counter", "Failures by phase and reason.");
    for (phase, reason, count) in tally.failures() {
        let phase = match phase {
            Phase::Assignment => "assignment",
            Phase::Backend => "backend",
        };
        to.sample(&[("phase", phase), ("reason", reason)], count);
    }
    to.sample(&[("phase", "cleanup"), ("reason", "cleanup")], now.steps.failed_cleanups());
    to.family("oz_worker_websocket_reconnects_total", "counter", "Attempts to connect again, by cause.")
        .sample(&[("reason", "dial_failed")], tally.dials_failed)
        .sample(&[("reason", "remote_close")], tally.connections_lost);
    let version = env!("CARGO_PKG_VERSION");
    let labels = [("version", version), ("backend", "docker"), ("worker_id", now.worker_id)];
    to.family("oz_worker_info", "gauge", "1, with the version and the id of the worker.").sample(&labels, 1);
}

/// Further families.
fn own(now: &Snapshot<'_>, to: &mut Encoder) {
    let (tally, steps) = (now.tally, now.steps);
    to.family("oz_worker_backlog", "gauge", "Assignments that wait for a slot.").sample(&[], now.backlog);
    let help = "Reports of ended tasks that are not known to be stored.";
    to.family("oz_worker_reports_unsettled", "gauge", help).sample(&[], now.unsettled);
    let help = "Tasks of an earlier process that were taken over.";
    to.family("oz_worker_tasks_adopted_total", "counter", help).sample(&[], tally.adopted);
    let help = "1 if the engine could be used when it was last called.";
    to.family("oz_worker_engine_up", "gauge", help).sample(&[], u8::from(now.engine_up));
    let help = "Outages of the engine that began.";
    to.family("oz_worker_engine_outages_total", "counter", help).sample(&[], tally.outages);
    let outages = (tally.outage_time + now.outage).as_secs_f64();
    let help = "Seconds without the engine.";
    to.family("oz_worker_engine_outage_seconds_total", "counter", help).sample(&[], outages);
    let histograms = [
        ("oz_worker_image_pull_seconds", "Pulls of images that succeeded.", &steps.pulls),
        ("oz_worker_sidecar_fill_seconds", "Fills of sidecar volumes that succeeded.", &steps.sidecars),
        ("oz_worker_container_start_seconds", "Starts of containers that succeeded.", &steps.starts),
    ];
    for (name, help, histogram) in histograms {
        to.family(name, "histogram", help).histogram(&[], histogram);
    }
    if let Some(free) = now.disk_free {
        let help = "Free bytes of the engine's disk, without those reserved for root.";
        to.family("oz_worker_disk_free_bytes", "gauge", help).sample(&[], free);
    }
    let help = "Log lines that were dropped because stderr was not read.";
    to.family("oz_worker_log_lines_dropped_total", "counter", help).sample(&[], now.dropped_lines);
}

/// The families that client libraries write for every process.
fn process(stats: &ProcessStats, started: Duration, to: &mut Encoder) {
    let seconds = |time: Duration| time.as_secs_f64();
    if let Some(cpu) = stats.cpu {
        let help = "User and system processor time in seconds.";
        to.family("process_cpu_seconds_total", "counter", help).sample(&[], seconds(cpu));
    }
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory in bytes.", stats.resident),
        ("process_virtual_memory_bytes", "Virtual memory in bytes.", stats.virtual_memory),
        ("process_threads", "Threads.", stats.threads),
        ("process_open_fds", "Open file descriptors.", stats.open_fds),
        ("process_max_fds", "The limit of open file descriptors.", stats.max_fds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            to.family(name, "gauge", help).sample(&[], value);
        }
    }
    let help = "Start of the process, in seconds since 1970.";
    to.family("process_start_time_seconds", "gauge", help).sample(&[], seconds(started));
}

#[cfg(test)]
#[path = "families_tests.rs"]
mod tests;
