//! The scenarios, in the order in which they run: the most important first.

mod adoption;
mod burst;
mod claim;
mod connect;
mod idle;
mod long_output;
mod look_ups;
mod output;
mod parallel;
mod reconnect;
mod sidecar;
mod size;
mod sleeping;
mod task;

use crate::bench::Bench;
use crate::figure::Figure;

/// One subject.
pub struct Scenario {
    pub name: &'static str,
    /// Its share of the time, in percent.
    pub share: f64,
    /// Measures all workers.
    pub measure: fn(&Bench) -> Vec<Figure>,
}

pub const SCENARIOS: [Scenario; 14] = [
    Scenario { name: "size", share: 1.0, measure: size::measure },
    Scenario { name: "connect", share: 6.0, measure: connect::measure },
    Scenario { name: "claim", share: 3.0, measure: claim::measure },
    Scenario { name: "task", share: 9.0, measure: task::measure },
    Scenario { name: "idle", share: 14.0, measure: idle::measure },
    Scenario { name: "parallel", share: 7.0, measure: parallel::measure },
    Scenario { name: "output", share: 11.0, measure: output::measure },
    Scenario { name: "sleeping", share: 12.0, measure: sleeping::measure },
    Scenario { name: "look-ups", share: 8.0, measure: look_ups::measure },
    Scenario { name: "sidecar", share: 6.0, measure: sidecar::measure },
    Scenario { name: "adoption", share: 5.0, measure: adoption::measure },
    Scenario { name: "long-output", share: 14.0, measure: long_output::measure },
    Scenario { name: "reconnect", share: 2.0, measure: reconnect::measure },
    Scenario { name: "burst", share: 2.0, measure: burst::measure },
];
