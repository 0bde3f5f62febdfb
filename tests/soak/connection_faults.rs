//! Connection faults of every kind at random moments, and periods in which look-ups fail.
//!
//! A worker backs off longer after each short connection, and a long connection resets that. So a few short connections
//! are followed by a long one, and the worker is connected most of the time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Until;
use crate::setup::Setup;
use crate::support::control_plane::Disconnect;
use crate::support::fault_proxy::{Cut, Direction};
use crate::support::rng::Rng;

/// Longer than the 30 s after which a connection resets the worker's back-off.
const LONG: std::ops::RangeInclusive<u64> = 31_000..=38_000;

const SHORT: std::ops::RangeInclusive<u64> = 0..=7_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Rst,
    Fin,
    /// The control plane closes with code 1001.
    Away,
    /// Silence in these directions, then a reset.
    HalfOpen(&'static [Direction]),
    /// The worker's end is reset; the control plane keeps its own end for a while.
    Stale,
}

const FAULTS: [(Fault, &str); 7] = [
    (Fault::Rst, "RST"),
    (Fault::Fin, "FIN"),
    (Fault::Away, "close 1001"),
    (Fault::HalfOpen(&[Direction::Upstream]), "half-open, nothing reaches the control plane"),
    (Fault::HalfOpen(&[Direction::Downstream]), "half-open, nothing reaches the worker"),
    (Fault::HalfOpen(&[Direction::Upstream, Direction::Downstream]), "half-open, both directions"),
    (Fault::Stale, "RST at the worker, stale at the control plane"),
];

/// Injects faults and counts them.
pub struct ConnectionFaults {
    rng: Rng,
    pub count: BTreeMap<&'static str, usize>,
    pub lookup_failures: usize,
}

impl ConnectionFaults {
    pub fn new(rng: &mut Rng) -> Self {
        Self { rng: rng.fork(), count: BTreeMap::new(), lookup_failures: 0 }
    }

    /// Injects a fault into one connection after the other.
    pub fn inject(&mut self, until: &Until<'_>, setup: &Setup) {
        while !until.over() {
            for _ in 0..self.rng.u64(1..=3) {
                let lasts = Duration::from_millis(self.rng.u64(SHORT));
                self.end_after(lasts, until, setup);
            }
            self.fail_look_ups(until, setup);
            let lasts = Duration::from_millis(self.rng.u64(LONG));
            self.end_after(lasts, until, setup);
        }
    }

    /// Injects a fault into the current connection once it has lasted this long, and waits for the next connection.
    fn end_after(&mut self, lasts: Duration, until: &Until<'_>, setup: &Setup) {
        until.pause(lasts);
        if until.over() {
            return;
        }
        let Setup { proxy, stage, .. } = setup;
        let number = proxy.connections();
        let (fault, name) = FAULTS[self.rng.usize(0..=FAULTS.len() - 1)];
        self.end_with(fault, number, until, setup);
        *self.count.entry(name).or_default() += 1;
        while !until.over()
            && (proxy.connections() == number || stage.plane.view(|model| model.connected() == 0))
        {
            until.pause(Duration::from_millis(20));
        }
    }

    fn end_with(&mut self, fault: Fault, number: usize, until: &Until<'_>, setup: &Setup) {
        let Setup { proxy, stage, .. } = setup;
        match fault {
            Fault::Rst => proxy.cut(number, Cut::Rst),
            Fault::Fin => proxy.cut(number, Cut::Fin),
            Fault::Away => {
                stage.plane.drop_worker(&stage.worker_id, Disconnect::Close1001);
            }
            Fault::HalfOpen(directions) => {
                directions.iter().for_each(|direction| proxy.swallow(number, *direction));
                until.pause(Duration::from_millis(self.rng.u64(200..=4000)));
                proxy.cut(number, Cut::Rst);
            }
            Fault::Stale => {
                proxy.cut_one_end(number, Direction::Downstream, Cut::Rst);
                until.pause(Duration::from_millis(self.rng.u64(200..=6000)));
                proxy.cut(number, Cut::Rst);
            }
        }
    }

    /// Makes the look-ups fail for a while, or does nothing, at random.
    fn fail_look_ups(&mut self, until: &Until<'_>, setup: &Setup) {
        let status = [None, Some(503), Some(404)][self.rng.usize(0..=2)];
        if status.is_none() || until.over() {
            return;
        }
        setup.stage.plane.fail_rest_with(status);
        until.pause(Duration::from_millis(self.rng.u64(3000..=12_000)));
        setup.stage.plane.fail_rest_with(None);
        self.lookup_failures += 1;
    }
}
