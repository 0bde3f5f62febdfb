//! Limits the log lines that a peer can cause at will.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time in which a limit counts.
const WINDOW: Duration = Duration::from_secs(10);

/// The lines that are limited, by their beginning and a part, and how many of them are logged in a window; further ones are
/// counted. The first that fits counts. A control plane may assign many tasks at once.
const LIMITS: [(&str, &str, u32); 15] = [
    ("cancel ignored", "", 50),
    ("message ignored", "", 50),
    ("message invalid", "a binary frame", 50),
    ("message invalid", "", 50),
    ("assignment invalid", "", 500),
    ("assignment repeated", "", 500),
    ("assignment received", "", 500),
    ("assignment dropped", "", 500),
    ("claim lost", "", 500),
    ("report not stored", "", 500),
    ("report settled by its receipt", "", 50),
    // The other reasons are worth an alert.
    ("task rejected", "backlog is full", 500),
    ("task rejected", "worker is stopping", 500),
    ("task rejected", "", 500),
    ("task refused", "", 500),
];

/// The limited lines of the current windows.
#[derive(Default)]
pub(super) struct LogLimit {
    windows: BTreeMap<(&'static str, &'static str), Window>,
}

struct Window {
    end: Instant,
    logged: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether to log this line. It is counted if not.
    pub(super) fn allows(&mut self, line: &str, now: Instant) -> bool {
        let fits =
            |(beginning, part, _): &(&str, &str, u32)| line.starts_with(beginning) && line.contains(part);
        let Some((beginning, part, most)) = LIMITS.into_iter().find(fits) else { return true };
        let window = self.windows.entry((beginning, part)).or_insert_with(|| Window {
            end: now + WINDOW,
            logged: 0,
            left_out: 0,
        });
        if window.end <= now {
            // What was left out is still to be reported.
            window.logged = 0;
            window.end = if window.left_out == 0 { now + WINDOW } else { window.end };
        }
        let allowed = window.logged < most;
        if allowed {
            window.logged += 1;
        } else {
            window.left_out += 1;
        }
        allowed
    }

    /// Ends the windows that are over, and returns the beginnings of lines that were left out in them, with their numbers.
    pub(super) fn take_left_out(&mut self, now: Instant) -> Vec<(&'static str, u64)> {
        let ended = self.windows.extract_if(.., |_, window| window.end <= now);
        ended.map(|((line, _), window)| (line, window.left_out)).filter(|(_, count)| *count > 0).collect()
    }

    /// Returns when lines that were left out are due to be reported.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.windows.values().filter(|window| window.left_out > 0).map(|window| window.end).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limit: &mut LogLimit, line: &str, times: u32, now: Instant) -> usize {
        (0..times).filter(|_| limit.allows(line, now)).count()
    }

    #[test]
    fn lines_beyond_the_limit_are_counted_per_window() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        let cancel = "cancel ignored task=t";
        assert_eq!(allowed(&mut limit, cancel, 55, start), 50);
        assert_eq!(allowed(&mut limit, "message invalid", 3, start), 3, "another kind");
        assert_eq!(limit.deadline(), Some(start + WINDOW));
        assert_eq!(limit.take_left_out(start + WINDOW / 2), []);
        assert_eq!(allowed(&mut limit, cancel, 2, start + WINDOW / 2), 0);
        assert_eq!(limit.take_left_out(start + WINDOW), [("cancel ignored", 7)]);
        assert_eq!((limit.deadline(), limit.take_left_out(start + WINDOW)), (None, vec![]));
        assert_eq!(allowed(&mut limit, cancel, 55, start + WINDOW), 50, "a new window");
    }

    #[test]
    fn a_window_without_lines_left_out_ends_silently() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        assert_eq!(allowed(&mut limit, "message invalid", 50, start), 50);
        assert_eq!(limit.deadline(), None);
        assert_eq!(allowed(&mut limit, "message invalid", 50, start + WINDOW), 50);
    }

    #[test]
    fn a_full_backlog_does_not_hide_another_reason() {
        let start = Instant::now();
        let mut limit = LogLimit::default();
        let full = "task rejected task=t reason=\"the worker's backlog is full\"";
        assert_eq!(allowed(&mut limit, full, 600, start), 500);
        assert!(limit.allows("task rejected task=t reason=\"no thread for the task\"", start));
        assert!(!limit.allows(full, start));
        assert!(limit.allows(full, start + WINDOW), "a new window");
        assert_eq!(limit.take_left_out(start + WINDOW), [("task rejected", 101)]);
    }

    #[test]
    fn other_lines_are_not_limited() {
        assert_eq!(allowed(&mut LogLimit::default(), "task claimed task=t", 5000, Instant::now()), 5000);
    }
}
