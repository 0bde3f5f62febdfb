//! Numbers of this process, and their form for people.

use std::fmt::Write;
use std::time::Duration;

/// Returns a number of `/proc/self/status`, such as `VmRSS` in KiB.
pub fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).expect("a number")
}

/// Returns the seconds of processor time that this process has used.
pub fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap().as_secs_f64()
}

/// Returns how many times fall into each second.
pub fn per_second(times: &[Duration]) -> Vec<usize> {
    let mut seconds = Vec::new();
    for time in times {
        let second = usize::try_from(time.as_secs()).unwrap();
        seconds.resize(seconds.len().max(second + 1), 0);
        seconds[second] += 1;
    }
    seconds
}

/// Returns a line for each second, with a bar.
pub fn histogram(seconds: &[usize]) -> String {
    let mut text = String::new();
    for (second, count) in seconds.iter().enumerate() {
        let _ = writeln!(text, "  {second:3} s {count:5} {}", "#".repeat(count.div_ceil(5)));
    }
    text
}

/// Returns the value below which this percentage of the values lies.
pub fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}
