//! Limits the log lines that a peer can cause at will.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The time in which a limit counts.
const WINDOW: Duration = Duration::from_secs(10);

/// The lines that are limited, by their beginning, and how many of them are logged in a window; further ones are counted. A
/// control plane may assign many tasks at once.
const LIMITS: [(&str, u32); 8] = [
    ("cancel ignored", 50),
    ("message ignored", 50),
    ("message invalid", 50),
    ("assignment invalid", 500),
    ("assignment repeated", 500),
    ("assignment received", 500),
    ("assignment dropped", 500),
    ("task rejected", 500),
];

/// The limited lines of the current windows.
#[derive(Default)]
pub(super) struct LogLimit {
    windows: BTreeMap<&'static str, Window>,
}

struct Window {
    end: Instant,
    logged: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether to log this line. It is counted if not.
    pub(super) fn allows(&mut self, line: &str, now: Instant) -> bool {
        let Some((kind, most)) = LIMITS.into_iter().find(|(kind, _)| line.starts_with(kind)) else {
            return true;
        };
        let new = || Window { end: now + WINDOW, logged: 0, left_out: 0 };
        let window = self.windows.entry(kind).or_insert_with(new);
        if window.end <= now && window.left_out == 0 {
            *window = new();
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
        ended.map(|(kind, window)| (kind, window.left_out)).filter(|(_, count)| *count > 0).collect()
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
    fn other_lines_are_not_limited() {
        assert_eq!(allowed(&mut LogLimit::default(), "task claimed task=t", 5000, Instant::now()), 5000);
    }
}
