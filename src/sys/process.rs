//! What the system knows about this process.

use std::path::Path;
use std::time::Duration;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::files;

/// The limit of the file that is read, in bytes. It has about 300.
const STAT_LIMIT: usize = 4096;

/// The use of the system's resources. What could not be read is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ProcessStats {
    /// Time of the processor, of all threads.
    pub(crate) cpu: Option<Duration>,
    /// In bytes.
    pub(crate) resident: Option<u64>,
    /// In bytes.
    pub(crate) virtual_memory: Option<u64>,
    /// The number of threads.
    pub(crate) threads: Option<u64>,
    /// The number of open file descriptors.
    pub(crate) open_fds: Option<u64>,
    /// The limit of open file descriptors; `None` also if there is none.
    pub(crate) max_fds: Option<u64>,
}

impl ProcessStats {
    /// Returns those of this process now.
    pub(crate) fn now() -> Self {
        let stat = files::read(Path::new("/proc/self/stat"), STAT_LIMIT).unwrap_or_default();
        // The folder that is read is open as well.
        let open_fds = files::names(Path::new("/proc/self/fd")).ok().map(|names| names.len() as u64 - 1);
        Self {
            open_fds,
            max_fds: getrlimit(Resource::Nofile).current,
            ..of_stat(&String::from_utf8_lossy(&stat))
        }
    }
}

/// Returns what `/proc/PID/stat` tells, see proc(5).
fn of_stat(stat: &str) -> ProcessStats {
    // The name in parentheses may have spaces and parentheses. The third field follows it.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.trim().parse::<u64>().ok());
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    let seconds = |ticks: u64| Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
    ProcessStats {
        cpu: ticks.map(seconds),
        threads: field(20),
        virtual_memory: field(23),
        resident: field(24).map(|pages| pages * page_size() as u64),
        ..ProcessStats::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 123 4096000 100 18446744073709551615 1\n";
        let stats = of_stat(stat);
        assert_eq!((stats.cpu, stats.threads), (Some(Duration::from_secs(2)), Some(9)));
        assert_eq!((stats.virtual_memory, stats.resident), (Some(4_096_000), Some(100 * page_size() as u64)));
        assert_eq!(of_stat("nonsense"), ProcessStats::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let stats = ProcessStats::now();
        assert!(stats.cpu.is_some() && stats.resident > Some(1 << 20), "{stats:?}");
        assert!(stats.open_fds > Some(2) && stats.threads > Some(0), "{stats:?}");
    }
}
