//! What the figures should be on a quiet machine. They are printed beside the figures; nothing is asserted.

use crate::figure::Figure;
use Target::{AboveFloor, AtLeast, AtMost, TimesFloor};

/// A bound of a worker's median.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// At most this many times the floor.
    TimesFloor(f64),
    /// At most this much more than the floor.
    AboveFloor(f64),
}

/// Scenario, figure, and the target of the figure.
pub const TARGETS: [(&str, &str, Target); 20] = [
    ("connect", "exec to connected, 0 containers", AtMost(8.0)),
    ("claim", "assignment to claim", AtMost(0.3)),
    ("task", "true to completed, pull auto", TimesFloor(1.01)),
    ("task", "true to completed, pull missing", TimesFloor(0.98)),
    ("task", "CPU per task, pull auto", AtMost(1.5)),
    ("task", "CPU per task, pull missing", AtMost(1.5)),
    ("output", "128-byte lines, MiB per CPU second", AtLeast(500.0)),
    // 8 MiB in 2 s.
    ("output", "2-byte lines, MiB per CPU second", AtLeast(4.0)),
    ("output", "128-byte lines, peak", AboveFloor(14.0)),
    ("output", "2-byte lines, peak", AboveFloor(14.0)),
    ("output", "one line, peak", AboveFloor(14.0)),
    ("output", "binary, peak", AboveFloor(14.0)),
    // 2.2 times the cap.
    ("long-output", "cap of 64 MiB, peak", AtMost(140.8)),
    ("long-output", "cap of 64 MiB, 10 s afterwards", TimesFloor(1.25)),
    ("idle", "memory, new", AtMost(3.5)),
    ("idle", "memory, after one task", AtMost(3.5)),
    // As without look-ups, but for the accuracy of the measurement.
    ("look-ups", "one task to completed, with look-ups", TimesFloor(1.05)),
    ("look-ups", "burst of short tasks, 100 ms per look-up", TimesFloor(1.05)),
    ("look-ups", "burst of short tasks, 1000 ms per look-up", TimesFloor(1.05)),
    ("sleeping", "memory, 200 tasks", AtMost(16.0)),
];

impl Target {
    /// Returns the target of a figure.
    pub fn of(scenario: &str, figure: &str) -> Option<Self> {
        let found = TARGETS.iter().find(|(of, name, _)| (*of, *name) == (scenario, figure));
        found.map(|(_, _, target)| *target)
    }

    /// Whether a worker meets it; `None` without samples.
    pub fn is_met(self, figure: &Figure, worker: usize) -> Option<bool> {
        let value = figure.worker(worker)?;
        Some(match self {
            AtMost(bound) => value <= bound,
            AtLeast(bound) => value >= bound,
            TimesFloor(bound) => figure.ratio(worker)? <= bound,
            AboveFloor(bound) => value <= figure.floor_beside(worker)? + bound,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AtMost(bound) => write!(f, "<= {bound}"),
            AtLeast(bound) => write!(f, ">= {bound}"),
            TimesFloor(bound) => write!(f, "<= {bound} x floor"),
            AboveFloor(bound) => write!(f, "<= floor + {bound}"),
        }
    }
}
