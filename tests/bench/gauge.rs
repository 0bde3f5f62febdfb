//! What the kernel counts for a process and for the machine, from /proc.

use std::fs::{read_dir, read_to_string};
use std::time::Duration;

/// The unit of times in /proc is 1/100 s on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// The counters of one process. Every function panics once the process has exited.
#[derive(Debug, Clone, Copy)]
pub struct Gauge(u32);

/// The load of the machine at one moment.
pub struct Load {
    /// The load average of the last minute.
    pub average: f64,
    /// The share of processor time, in percent, that was in use during one second.
    pub busy: f64,
}

impl Gauge {
    pub fn of(process: u32) -> Self {
        Self(process)
    }

    /// Returns the processor time that the process has used, user and system, in milliseconds. The kernel rounds each of the
    /// two down to 10 ms.
    pub fn cpu_ms(self) -> f64 {
        let stat = read_to_string(format!("/proc/{}/stat", self.0)).expect("a running process");
        // The name, in parentheses, may contain spaces.
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let ticks = fields.split_whitespace().skip(11).take(2).map(number).sum::<f64>();
        ticks / TICKS_PER_SECOND * 1000.0
    }

    /// Returns the resident memory in MiB.
    pub fn rss_mib(self) -> f64 {
        self.status("VmRSS:") / 1024.0
    }

    /// Returns the peak of the resident memory since [`Gauge::reset_peak`], in MiB.
    pub fn peak_mib(self) -> f64 {
        self.status("VmHWM:") / 1024.0
    }

    /// Starts a new measurement of the peak.
    pub fn reset_peak(self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.0), "5").expect("a running process");
    }

    pub fn threads(self) -> f64 {
        self.status("Threads:")
    }

    /// Returns how often the threads that exist now were woken.
    pub fn wake_ups(self) -> f64 {
        let threads = read_dir(format!("/proc/{}/task", self.0)).expect("a running process");
        let path =
            |thread: std::io::Result<std::fs::DirEntry>| thread.expect("a thread").path().join("status");
        // A thread may have ended in the meantime.
        let status = threads.filter_map(|thread| read_to_string(path(thread)).ok());
        status.map(|text| field(&text, "voluntary_ctxt_switches:")).sum()
    }

    fn status(self, name: &str) -> f64 {
        field(&read_to_string(format!("/proc/{}/status", self.0)).expect("a running process"), name)
    }
}

impl Load {
    /// Measures for one second.
    pub fn measure() -> Self {
        let (busy, idle) = processor_ticks();
        std::thread::sleep(Duration::from_secs(1));
        let (busy, idle) = (processor_ticks().0 - busy, processor_ticks().1 - idle);
        let text = read_to_string("/proc/loadavg").expect("/proc/loadavg");
        let average = number(text.split_whitespace().next().expect("an average"));
        Self { average, busy: 100.0 * busy / (busy + idle).max(1.0) }
    }
}

/// Returns the ticks of all processors so far: in use, and idle.
fn processor_ticks() -> (f64, f64) {
    let text = read_to_string("/proc/stat").expect("/proc/stat");
    let line = text.lines().next().expect("a line for all processors");
    // user nice system idle iowait irq softirq steal; the rest is part of user and nice.
    let ticks: Vec<f64> = line.split_whitespace().skip(1).take(8).map(number).collect();
    let idle = ticks[3] + ticks[4];
    (ticks.iter().sum::<f64>() - idle, idle)
}

fn field(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    number(value.and_then(|value| value.split_whitespace().next()).expect("a field"))
}

fn number(text: &str) -> f64 {
    text.parse().expect("a number")
}
