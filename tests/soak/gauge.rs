//! The worker's resident memory, threads and open files over time, from /proc, and the check that they do not grow.

use std::time::{Duration, Instant};

use crate::Until;

/// The time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// Every such sample is printed.
const PRINTED: usize = 10;

/// The growth that is allowed, in percent.
const MAX_GROWTH: u64 = 10;

/// The resident memory that is allowed at the end, in KiB, with eight slots and the default cap on output.
const MAX_RSS_KIB: u64 = 32 << 10;

/// One sample, or the medians of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    pub rss_kib: u64,
    pub threads: u64,
    pub files: u64,
}

pub struct Gauge {
    process: u32,
    start: Instant,
    /// The medians of the last stretch of each load.
    pub loads: Vec<Sample>,
    /// The medians of each rest.
    pub rests: Vec<Sample>,
    /// The maxima. The kernel measures the peak of the memory, so it is exact.
    pub peak: Sample,
}

impl Gauge {
    pub fn of(process: u32) -> Self {
        Self { process, start: Instant::now(), loads: Vec::new(), rests: Vec::new(), peak: Sample::default() }
    }

    /// Measures until the load is over; keeps the medians of the last `stretch`.
    pub fn watch_load(&mut self, until: &Until<'_>, stretch: Duration) {
        let samples = self.watch(until);
        let count = usize::try_from(stretch.as_secs()).expect("it is short");
        self.loads.push(medians(&samples[samples.len().saturating_sub(count)..]));
    }

    /// Measures until the rest is over.
    pub fn watch_rest(&mut self, until: &Until<'_>) {
        let samples = self.watch(until);
        self.rests.push(medians(&samples));
    }

    fn watch(&mut self, until: &Until<'_>) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !until.over() {
            until.pause(INTERVAL);
            let Some((sample, peak_rss)) = read(self.process) else { break };
            let peak = &mut self.peak;
            peak.rss_kib = peak.rss_kib.max(peak_rss);
            peak.threads = peak.threads.max(sample.threads);
            peak.files = peak.files.max(sample.files);
            samples.push(sample);
            if samples.len() % PRINTED == 0 {
                let Sample { rss_kib, threads, files } = sample;
                println!(
                    "{:5} s  {rss_kib:7} KiB  {threads} threads  {files} files",
                    self.start.elapsed().as_secs()
                );
            }
        }
        samples
    }
}

impl Gauge {
    /// Returns the values that have grown, if any. Memory is compared under load and at rest. Threads and files are compared at
    /// rest only: under load the number of files depends on how many calls to the engine are in flight.
    pub fn grown(&self) -> Option<String> {
        let (Some([first, .., last]), Some([calm, .., end])) = (self.loads.get(..2), self.rests.get(..2))
        else {
            return Some("no measurements: a phase was too short".to_owned());
        };
        let pairs = [
            ("resident memory under load", first.rss_kib, last.rss_kib),
            ("resident memory at rest", calm.rss_kib, end.rss_kib),
            ("the number of threads at rest", calm.threads, end.threads),
            ("the number of open files at rest", calm.files, end.files),
        ];
        if end.rss_kib > MAX_RSS_KIB {
            return Some(format!("resident memory at rest is {} KiB, more than {MAX_RSS_KIB}", end.rss_kib));
        }
        let grown = pairs.into_iter().find(|(_, then, now)| now * 100 > then * (100 + MAX_GROWTH));
        grown
            .map(|(what, then, now)| format!("{what} grew by more than {MAX_GROWTH} %: from {then} to {now}"))
    }
}

/// Returns a sample and the peak resident memory in KiB, or `None` once the process has exited.
fn read(process: u32) -> Option<(Sample, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
    let sample = Sample { rss_kib: field("VmRSS:")?, threads: field("Threads:")?, files };
    Some((sample, field("VmHWM:")?))
}

fn medians(samples: &[Sample]) -> Sample {
    let median = |value: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Sample {
        rss_kib: median(|sample| sample.rss_kib),
        threads: median(|sample| sample.threads),
        files: median(|sample| sample.files),
    }
}
