//! The engine's clock. It may differ from this machine's, even by hours.

use std::time::{Instant, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::net::date;

/// The engine's time when the client connected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    time: OffsetDateTime,
    read_at: Instant,
}

impl Clock {
    /// Reads the time of an answer that has just arrived: its header `Date`, else `system_time` of the engine's properties, else
    /// this machine's.
    pub(super) fn read(date: Option<&str>, system_time: Option<&str>) -> Self {
        let of_engine =
            date.and_then(date::parse).or_else(|| OffsetDateTime::parse(system_time?, &Rfc3339).ok());
        Self { time: of_engine.unwrap_or_else(|| SystemTime::now().into()), read_at: Instant::now() }
    }

    /// Returns the engine's time now. It is late by as long as this machine was suspended since the client connected.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.time + self.read_at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Returns the time that a clock shows, in seconds since 1970, without what has passed since.
    fn seconds(date: Option<&str>, system_time: Option<&str>) -> i64 {
        let clock = Clock::read(date, system_time);
        assert!(clock.now() >= clock.time && clock.now() - clock.time < Duration::from_secs(60));
        clock.time.unix_timestamp()
    }

    #[test]
    fn the_header_is_used_before_the_property_and_both_before_the_own_clock() {
        let (date, system_time) = ("Sun, 06 Nov 1994 08:49:37 GMT", "1994-11-06T09:49:40.5+00:00");
        assert_eq!(seconds(Some(date), Some(system_time)), 784_111_777);
        assert_eq!(seconds(None, Some(system_time)), 784_115_380);
        assert_eq!(seconds(Some("x"), Some(system_time)), 784_115_380);
        let own = OffsetDateTime::now_utc().unix_timestamp();
        for system_time in [None, Some(""), Some("yesterday")] {
            assert!((seconds(None, system_time) - own).abs() < 60);
        }
    }
}
