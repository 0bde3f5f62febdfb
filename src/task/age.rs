//! How long a task's container has run, so that a wrong or changed clock ends no task.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::docker::Docker;
use crate::sys::uptime::Uptime;

/// The engine's time, and what limits the age of its containers.
#[derive(Debug, Clone, Copy)]
pub(super) struct EngineTime {
    now: OffsetDateTime,
    /// That of the engine's machine, if it is this one.
    uptime: Option<Uptime>,
}

impl EngineTime {
    /// Returns the time now. An engine behind a Unix socket is taken to be on this machine; if the socket is forwarded, tasks may
    /// only get more time.
    pub(super) fn of(docker: &Docker) -> Self {
        Self { now: docker.now(), uptime: docker.is_local().then(Uptime::now) }
    }

    /// Returns how long ago a container that runs was started, by its `started_at`, in RFC 3339: zero if that is unreadable or in
    /// the future. Where the uptime is known, it is at most that, because the clock may have been corrected since the start; and
    /// the time in which the machine was suspended is left out, even if that was before the start.
    pub(super) fn since(&self, started_at: &str) -> Duration {
        let started = OffsetDateTime::parse(started_at, &Rfc3339).ok();
        let by_clock = started.and_then(|started| Duration::try_from(self.now - started).ok());
        let by_clock = by_clock.unwrap_or_default();
        self.uptime.map_or(by_clock, |uptime| by_clock.min(uptime.total).saturating_sub(uptime.suspended))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const STARTED: &str = "2026-01-02T03:04:05.123456789Z";

    /// A minute after [`STARTED`], on an engine of another machine.
    pub(in crate::task) fn a_minute_later() -> EngineTime {
        let now = OffsetDateTime::parse("2026-01-02T03:05:05.123456789Z", &Rfc3339).unwrap();
        EngineTime { now, uptime: None }
    }

    fn local(total: u64, suspended: u64) -> EngineTime {
        let seconds = Duration::from_secs;
        EngineTime {
            uptime: Some(Uptime { total: seconds(total), suspended: seconds(suspended) }),
            ..a_minute_later()
        }
    }

    #[test]
    fn the_time_since_the_start_is_zero_if_it_is_unreadable_or_in_the_future() {
        let cases = [
            (STARTED, Duration::from_secs(60)),
            ("2026-01-02T03:05:05Z", Duration::from_nanos(123_456_789)),
            ("2026-01-02T04:05:04.123456789+01:00", Duration::from_secs(1)),
            ("2026-01-02T03:05:06Z", Duration::ZERO),
            ("yesterday", Duration::ZERO),
            ("", Duration::ZERO),
        ];
        for (started_at, expected) in cases {
            assert_eq!(a_minute_later().since(started_at), expected, "{started_at}");
        }
    }

    #[test]
    fn no_container_of_this_machine_is_older_than_its_boot() {
        assert_eq!(local(1000, 0).since(STARTED), Duration::from_secs(60));
        // The clock was corrected by years after the container was started.
        assert_eq!(local(20, 0).since("1970-01-01T00:00:00Z"), Duration::from_secs(20));
    }

    #[test]
    fn the_time_of_a_suspended_machine_does_not_count() {
        assert_eq!(local(1000, 45).since(STARTED), Duration::from_secs(15));
        assert_eq!(local(1000, 900).since(STARTED), Duration::ZERO);
        assert_eq!(local(50, 45).since(STARTED), Duration::from_secs(5));
    }
}
