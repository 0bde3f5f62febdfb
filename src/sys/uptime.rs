//! How long this machine has been running.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// The time since the machine was booted. No change of its clock affects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uptime {
    /// All of it.
    pub(crate) total: Duration,
    /// The part in which the machine was suspended.
    pub(crate) suspended: Duration,
}

impl Uptime {
    /// Returns the uptime now.
    pub(crate) fn now() -> Self {
        let since_boot = |clock| duration(clock_gettime(clock));
        // In this order, so that the difference is not negative.
        let awake = since_boot(ClockId::Monotonic);
        let total = since_boot(ClockId::Boottime);
        // Below that the difference is the time between the two calls.
        let suspended = Some(total.saturating_sub(awake)).filter(|time| *time >= Duration::from_secs(1));
        Self { total, suspended: suspended.unwrap_or_default() }
    }
}

fn duration(time: Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uptime_is_that_of_the_kernel() {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
        let uptime = Uptime::now();
        assert!((uptime.total.as_secs_f64() - seconds).abs() < 60.0, "{uptime:?} {text}");
        assert!(uptime.suspended < uptime.total);
    }
}
