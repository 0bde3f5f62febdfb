//! Cuts of every kind between the workers and their control plane, at random bytes, while tasks come and go.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::fleet::{Fleet, Member};
use crate::support::control_plane::{ControlPlane, How, World};
use crate::support::cutter::{Cut, Way};
use crate::support::dice::{Dice, Seed};
use crate::worker::DEADLINE;

const TASKS: usize = 300;
const CUTS: usize = 50;

/// More of them than are asked for: the last ones may find nothing left to do.
const WORKERS: usize = 12;
const CUTS_EACH: usize = 5;

/// So many runs are under way at the most, some of them in the backlogs.
const AT_ONCE: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Rst,
    Fin,
    /// The control plane says goodbye, as it does when it is restarted.
    Away,
    /// Silence in these directions and then a reset: the worker's own patience is a minute.
    HalfOpen(&'static [Way]),
}

const FAULTS: [Fault; 6] = [
    Fault::Rst,
    Fault::HalfOpen(&[Way::Out]),
    Fault::Away,
    Fault::HalfOpen(&[Way::Back]),
    Fault::Fin,
    Fault::HalfOpen(&[Way::Out, Way::Back]),
];

/// After how many bytes the connections of one worker are cut: about one of eight within the handshake, the others
/// anywhere in what eight tasks cost.
fn limits(dice: &mut Dice) -> Vec<u64> {
    let limit = |_| if dice.within(0..=7) == 0 { dice.within(0..=500) } else { dice.within(600..=8000) };
    (0..CUTS_EACH).map(limit).collect()
}

impl Fault {
    /// Does it to a connection that has stopped.
    fn strike(self, member: &Member, number: usize, plane: &ControlPlane, dice: &mut Dice) {
        let cutter = &member.cutter;
        match self {
            Self::Rst => cutter.cut(number, Cut::Rst),
            Self::Fin => cutter.cut(number, Cut::Fin),
            Self::Away if plane.drop_worker(&member.id, How::Close1001) => cutter.go_on(number),
            // In the middle of the handshake there is nobody to say goodbye to.
            Self::Away => cutter.cut(number, Cut::Rst),
            Self::HalfOpen(ways) => {
                ways.iter().for_each(|way| cutter.swallow(number, *way));
                cutter.go_on(number);
                // The length of the fault; nothing is waited for.
                std::thread::sleep(Duration::from_millis(dice.within(50..=600)));
                cutter.cut(number, Cut::Rst);
            }
        }
    }
}

/// Cuts one worker's connections, one after the other; gives the number of cuts.
fn torment(
    member: &Member,
    faults: impl Iterator<Item = Fault>,
    plane: &ControlPlane,
    dice: &mut Dice,
    over: &AtomicBool,
) -> usize {
    for (number, fault) in (1..).zip(faults.take(CUTS_EACH)) {
        while !member.cutter.stops(number, Duration::from_millis(200)) {
            if over.load(Ordering::SeqCst) {
                return number - 1;
            }
        }
        fault.strike(member, number, plane, dice);
    }
    CUTS_EACH
}

fn under_way(world: &World) -> usize {
    world.runs.iter().filter(|run| !run.state.ended()).count()
}

/// Counts: 300 tasks or more, 50 cuts or more; each task that was started was started once and has its true report at
/// the control plane; no container is left.
#[test]
fn three_hundred_tasks_over_fifty_cuts_are_each_run_once_and_reported() {
    let seed = Seed::new();
    let mut dice = seed.dice();
    let all_limits = (0..WORKERS).map(|_| limits(&mut dice)).collect();
    let fleet = Fleet::new(all_limits, 4, &mut dice);
    let plane = &fleet.stage.plane;
    let (over, left, cuts) = (AtomicBool::new(false), AtomicUsize::new(WORKERS), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (index, member) in fleet.members.iter().enumerate() {
            let (over, left, cuts) = (&over, &left, &cuts);
            let mut dice = dice.split();
            scope.spawn(move || {
                let faults = FAULTS.into_iter().cycle().skip(index);
                cuts.fetch_add(torment(member, faults, plane, &mut dice, over), Ordering::SeqCst);
                left.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let mut submitted = 0;
        // Whoever is cut late still needs tasks to be cut with.
        while submitted < TASKS || left.load(Ordering::SeqCst) > 0 && submitted < 2 * TASKS {
            fleet.submit(dice.within(0..=1500), [0, 0, 3][dice.size(0..=2)]);
            submitted += 1;
            let room = plane.holds_within(DEADLINE, |world| under_way(world) < AT_ONCE);
            over.store(!room, Ordering::SeqCst);
            assert!(room, "nothing has come to its end");
        }
        over.store(true, Ordering::SeqCst);
    });
    plane.wait_for(DEADLINE, |world| under_way(world) == 0);
    fleet.wait_clean();
    let (tally, cuts) = (fleet.tally(), cuts.into_inner());
    eprintln!("{cuts} cuts: {tally:?}");
    assert!(cuts >= CUTS, "only {cuts} cuts");
    assert!(tally.reported >= TASKS - tally.void && tally.void < TASKS / 4, "{tally:?}");
    fleet.stop();
}
