//! The control plane is away for a while, or holds on to a connection that is no more.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, Tally};
use super::{reports, starts};
use crate::support::control_plane::{How, State, World};
use crate::support::cutter::{Cut, Way};
use crate::support::dice::Seed;
use crate::worker::DEADLINE;

/// How long it is away: for several attempts to connect.
const OUTAGE: Duration = Duration::from_secs(25);

/// The tasks that end meanwhile: each holds its slot until its report is delivered.
const SLOTS: usize = 64;

const TASKS: usize = 400;

/// So many wait for a slot when it goes away.
const WAITING: usize = 20;

fn under_way(world: &World) -> usize {
    world.runs.iter().filter(|run| !run.state.ended()).count()
}

/// Each once fewer than so many are under way: one for which there is no room is given back, and comes again late.
fn submit(fleet: &Fleet, count: usize, at_once: usize) {
    for _ in 0..count {
        let room = |world: &World| under_way(world) < at_once;
        assert!(fleet.stage.plane.holds_within(DEADLINE, room), "nothing has come to its end");
        fleet.submit_held();
    }
}

/// Counts: 400 tasks of which 64 end while the control plane is away and 20 wait; 400 started once, 400 reported, none
/// left.
#[test]
fn four_hundred_tasks_around_an_outage_of_25_seconds_are_all_reported() {
    let seed = Seed::new();
    let fleet = Fleet::new(vec![Vec::new()], SLOTS, &mut seed.dice());
    let (plane, worker) = (&fleet.stage.plane, &fleet.members[0].worker);
    plane.wait_connected(1);
    let before = (TASKS - SLOTS - WAITING) / 2;
    fleet.gate.open(before);
    submit(&fleet, before + SLOTS + WAITING, SLOTS + WAITING);
    fleet.gate.wait_told(&fleet.stage, before + SLOTS);
    plane.wait_for(DEADLINE, |world| under_way(world) == SLOTS + WAITING);
    plane.refuse_with(Some(503));
    plane.drop_connections(How::Rst);
    let back = Instant::now() + OUTAGE;
    worker.wait_log(DEADLINE, |line| line.contains("connection lost"));
    fleet.gate.open(SLOTS);
    let mut ended = 0;
    worker.wait_log(DEADLINE, |line| {
        ended += usize::from(line.contains("task ended"));
        ended == before + SLOTS
    });
    assert_eq!(fleet.gate.told().len(), before + SLOTS, "nothing is started meanwhile");
    assert!(!plane.holds_within(back.saturating_duration_since(Instant::now()), |_| false));
    plane.refuse_with(None);
    let connected = plane.connections() + 1;
    plane.wait_connected(connected);
    fleet.gate.open(TASKS);
    // No more than a backlog holds: the slots are free only once those reports are confirmed.
    submit(&fleet, TASKS - before - SLOTS - WAITING, SLOTS);
    plane.wait_for(DEADLINE, |world| under_way(world) == 0);
    fleet.wait_clean();
    assert_eq!(fleet.tally(), Tally { reported: TASKS, void: 0 });
    let late = plane.runs().into_iter().filter(|run| run.state == State::Failed);
    let late: Vec<_> = late.map(|run| reports(&run)[0].connection).collect();
    assert_eq!(late, [connected; SLOTS], "those that ended meanwhile, all on the next connection");
    fleet.stop();
}

/// After a half-open connection the control plane may have two of one worker for a while. It gives runs to both, and
/// with the end of the old one it takes back or gives up those of the new one as well.
#[test]
fn a_connection_that_ends_late_at_the_control_plane_costs_no_run() {
    let seed = Seed::new();
    let fleet = Fleet::new(vec![Vec::new()], 4, &mut seed.dice());
    let (plane, cutter) = (&fleet.stage.plane, &fleet.members[0].cutter);
    plane.wait_connected(1);
    let first: Vec<String> = (0..2).map(|_| fleet.submit_held()).collect();
    fleet.gate.wait_told(&fleet.stage, 2);
    [Way::Out, Way::Back].iter().for_each(|way| cutter.swallow(1, *way));
    cutter.cut_end(1, Way::Back, Cut::Rst);
    plane.wait_connected(2);
    assert_eq!(plane.view(|world| world.connected()), 2);
    // In turn to both: three are swallowed, two are started and one waits.
    let others: Vec<String> = (0..6).map(|_| fleet.submit_held()).collect();
    fleet.gate.wait_told(&fleet.stage, 4);
    cutter.cut_end(1, Way::Out, Cut::Fin);
    plane.wait_for(DEADLINE, |world| world.connected() == 1);
    fleet.gate.open(8);
    plane.wait_for(DEADLINE, |world| under_way(world) == 0);
    fleet.wait_clean();
    assert_eq!(fleet.tally(), Tally { reported: 8, void: 0 });
    let given_up = |id: &&String| plane.run(id).state == State::Failed;
    assert_eq!(
        first.iter().chain(&others).filter(given_up).count(),
        4,
        "those that ran when the old one ended"
    );
    assert_eq!(starts(&fleet.gate.told()).len(), 8);
    fleet.stop();
}
