//! What the worker holds: resident memory, threads and open files, as the kernel tells.
//!
//! Owns the samples and the rule by which they are compared. It must not know what the worker was doing.

use std::time::{Duration, Instant};

use crate::Until;

/// Between two samples, and between two that are shown.
const EVERY: Duration = Duration::from_secs(1);
const SHOWN: usize = 10;

/// How many percent more there may be at the end.
const MORE: u64 = 10;

/// Of one moment, or the medians of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    pub rss_kib: u64,
    pub threads: u64,
    pub files: u64,
}

pub struct Gauge {
    process: u32,
    start: Instant,
    /// The medians of the last stretch of each load, and of each rest.
    pub loads: Vec<Sample>,
    pub rests: Vec<Sample>,
    /// The most at any sample; the memory's own is the kernel's, which misses nothing.
    pub peak: Sample,
}

impl Gauge {
    pub fn of(process: u32) -> Self {
        Self { process, start: Instant::now(), loads: Vec::new(), rests: Vec::new(), peak: Sample::default() }
    }

    /// Looks while there is load; the last `stretch` of it counts.
    pub fn watch_load(&mut self, until: &Until<'_>, stretch: Duration) {
        let samples = self.watch(until);
        let count = usize::try_from(stretch.as_secs()).expect("it is short");
        self.loads.push(medians(&samples[samples.len().saturating_sub(count)..]));
    }

    /// Looks while there is none.
    pub fn watch_rest(&mut self, until: &Until<'_>) {
        let samples = self.watch(until);
        self.rests.push(medians(&samples));
    }

    fn watch(&mut self, until: &Until<'_>) -> Vec<Sample> {
        let mut samples = Vec::new();
        while !until.over() {
            until.pause(EVERY);
            let Some((sample, most)) = read(self.process) else { break };
            let peak = &mut self.peak;
            peak.rss_kib = peak.rss_kib.max(most);
            (peak.threads, peak.files) = (peak.threads.max(sample.threads), peak.files.max(sample.files));
            samples.push(sample);
            if samples.len() % SHOWN == 0 {
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
    /// What has grown, and when. Memory counts under load and at rest. Threads and files count at rest only, where nothing
    /// is under way: under load the files are as many as there are calls to the engine at that moment.
    pub fn grown(&self) -> Option<String> {
        let (Some([first, .., last]), Some([calm, .., end])) = (self.loads.get(..2), self.rests.get(..2))
        else {
            return Some("what was never measured".to_owned());
        };
        let pairs = [
            ("resident memory under load", first.rss_kib, last.rss_kib),
            ("resident memory at rest", calm.rss_kib, end.rss_kib),
            ("the number of threads at rest", calm.threads, end.threads),
            ("the number of open files at rest", calm.files, end.files),
        ];
        let grown = pairs.into_iter().find(|(_, then, now)| now * 100 > then * (100 + MORE));
        grown.map(|(what, then, now)| format!("{what} has grown by more than {MORE} %: from {then} to {now}"))
    }
}

/// What it holds, and the most memory that it ever held; `None` when it has ended.
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
