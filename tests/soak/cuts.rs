//! The cuts: every kind of end that a connection can have, at random moments, and look-ups that fail for a while.
//!
//! Owns which and when. A worker waits for longer after each short connection, and a long one takes that back: so a few
//! short ones are followed by a long one, and it is connected most of the time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Until;
use crate::stage::Stage;
use crate::support::control_plane::How;
use crate::support::cutter::{Cut, Way};
use crate::support::dice::Dice;

/// A connection that lasts longer has the worker's waits start over at a second.
const LONG: std::ops::RangeInclusive<u64> = 31_000..=38_000;

const SHORT: std::ops::RangeInclusive<u64> = 0..=7_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Rst,
    Fin,
    /// The control plane says goodbye.
    Away,
    /// Silence in these directions, and then a reset.
    HalfOpen(&'static [Way]),
    /// The worker's end is reset; the control plane holds on to its own for a while.
    Stale,
}

const FAULTS: [(Fault, &str); 7] = [
    (Fault::Rst, "RST"),
    (Fault::Fin, "FIN"),
    (Fault::Away, "close 1001"),
    (Fault::HalfOpen(&[Way::Out]), "half-open, nothing arrives there"),
    (Fault::HalfOpen(&[Way::Back]), "half-open, nothing comes back"),
    (Fault::HalfOpen(&[Way::Out, Way::Back]), "half-open, both ways"),
    (Fault::Stale, "RST here, stale there"),
];

/// Makes them, and counts.
pub struct Cuts {
    dice: Dice,
    pub count: BTreeMap<&'static str, usize>,
    pub lookup_failures: usize,
}

impl Cuts {
    pub fn new(dice: &mut Dice) -> Self {
        Self { dice: dice.split(), count: BTreeMap::new(), lookup_failures: 0 }
    }

    /// Cuts one connection after the other.
    pub fn strike(&mut self, until: &Until<'_>, stage: &Stage) {
        while !until.over() {
            for _ in 0..self.dice.within(1..=3) {
                let lasts = Duration::from_millis(self.dice.within(SHORT));
                self.strike_after(lasts, until, stage);
            }
            self.fail_look_ups(until, stage);
            let lasts = Duration::from_millis(self.dice.within(LONG));
            self.strike_after(lasts, until, stage);
        }
    }

    /// Cuts the present connection when it has lasted so long, and waits for the next.
    fn strike_after(&mut self, lasts: Duration, until: &Until<'_>, stage: &Stage) {
        until.pause(lasts);
        if until.over() {
            return;
        }
        let number = stage.cutter.connections();
        let (fault, name) = FAULTS[self.dice.size(0..=FAULTS.len() - 1)];
        self.strike_with(fault, number, until, stage);
        *self.count.entry(name).or_default() += 1;
        while !until.over()
            && (stage.cutter.connections() == number || stage.plane.view(|world| world.connected() == 0))
        {
            until.pause(Duration::from_millis(20));
        }
    }

    fn strike_with(&mut self, fault: Fault, number: usize, until: &Until<'_>, stage: &Stage) {
        let cutter = &stage.cutter;
        match fault {
            Fault::Rst => cutter.cut(number, Cut::Rst),
            Fault::Fin => cutter.cut(number, Cut::Fin),
            Fault::Away => {
                stage.plane.drop_worker(&stage.worker_id, How::Close1001);
            }
            Fault::HalfOpen(ways) => {
                ways.iter().for_each(|way| cutter.swallow(number, *way));
                until.pause(Duration::from_millis(self.dice.within(200..=4000)));
                cutter.cut(number, Cut::Rst);
            }
            Fault::Stale => {
                cutter.cut_end(number, Way::Back, Cut::Rst);
                until.pause(Duration::from_millis(self.dice.within(200..=6000)));
                cutter.cut(number, Cut::Rst);
            }
        }
    }

    /// At the beginning of a long connection.
    fn fail_look_ups(&mut self, until: &Until<'_>, stage: &Stage) {
        let status = [None, Some(503), Some(404)][self.dice.size(0..=2)];
        if status.is_none() || until.over() {
            return;
        }
        stage.plane.fail_rest_with(status);
        until.pause(Duration::from_millis(self.dice.within(3000..=12_000)));
        stage.plane.fail_rest_with(None);
        self.lookup_failures += 1;
    }
}
